"""Every kind of data gives the rows that it holds, however they are cut, and says what is wrong with it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explaining import FEATURES, Array, table

from irshap.datasets.base import Source, Wanted
from irshap.datasets.folders import Pixels
from irshap.datasets.sources import open_source
from irshap.errors import UserError

X = table(50)
WANTED = Wanted({"x": (FEATURES,)})
TWO = Wanted({"x": (FEATURES,), "s": (2,)})
S = np.arange(100, dtype=np.float32).reshape(50, 2)


def npy(folder: Path) -> Any:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def fortran(folder: Path) -> Any:
    np.save(folder / "x.npy", np.asfortranarray(X))
    return folder / "x.npy"


def npz(folder: Path) -> Any:
    np.savez(folder / "x.npz", X)
    return folder / "x.npz"


def packed(folder: Path) -> Any:
    np.savez_compressed(folder / "x.npz", x=X)
    return folder / "x.npz"


def columns() -> dict[str, Array]:
    return {f"c{i}": X[:, i] for i in range(FEATURES)}


def lists() -> Any:
    arrow = pytest.importorskip("pyarrow")
    return arrow.table(
        {"id": np.arange(50), "v": arrow.FixedSizeListArray.from_arrays(X.reshape(-1), FEATURES)}
    )


def parquet_columns(folder: Path) -> Any:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns()), folder / "x.parquet", row_group_size=7)
    return folder / "x.parquet"


def parquet_lists(folder: Path) -> Any:
    pytest.importorskip("pyarrow.parquet").write_table(lists(), folder / "x.parquet", row_group_size=11)
    return folder / "x.parquet"


def arrow(folder: Path) -> Any:
    module = pytest.importorskip("pyarrow")
    with module.ipc.new_file(str(folder / "x.arrow"), lists().schema) as file:
        for start in range(0, 50, 9):
            file.write_table(lists().slice(start, 9))
    return folder / "x.arrow"


def arrays(folder: Path) -> Any:
    for i, row in enumerate(X):
        np.save(folder / f"{i:03d}.npy", row)
    return folder


def memory(folder: Path) -> Any:
    return {"x": X}


def rows(folder: Path) -> Any:
    return iter(X)


def batches(folder: Path) -> Any:
    return (part for part in np.array_split(X, 7))


KINDS = [npy, fortran, npz, packed, parquet_columns, parquet_lists, arrow, arrays, memory, rows, batches]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: str(make.__name__))
def test_rows_as_they_are(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    source = open_source(make(tmp_path), WANTED)
    assert source.rows == (None if source.once else 50)
    np.testing.assert_array_equal(source.first(3)["x"][:3], X[:3])
    found = [source.read(start, min(start + 13, 50))["x"] for start in range(0, 50, 13)]
    assert [len(part) for part in found] == [13, 13, 13, 11]
    np.testing.assert_array_equal(np.concatenate(found), X)
    if not source.once:
        np.testing.assert_array_equal(source.read(20, 31)["x"], X[20:31])
        np.testing.assert_array_equal(source.read(5, 6)["x"], X[5:6])


@pytest.mark.parametrize("make", KINDS[:9], ids=lambda make: str(make.__name__))
def test_another_process_reads_the_same(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    source = open_source(make(tmp_path), WANTED)
    other = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(other.read(20, 31)["x"], X[20:31])
    assert other.digest() == source.digest()


@pytest.mark.parametrize("make", KINDS[:9], ids=lambda make: str(make.__name__))
def test_a_digest_is_of_the_content(
    tmp_path: Path, make: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    told = open_source(make(first), WANTED).digest()
    assert open_source(make(first), WANTED).digest() == told
    changed = X.copy()
    changed[31, 2] += 1
    monkeypatch.setitem(globals(), "X", changed)
    assert open_source(make(second), WANTED).digest() != told


def test_several_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X, s=S)
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    made = arrow.table({"s": arrow.FixedSizeListArray.from_arrays(S.reshape(-1), 2), **columns()})
    parquet.write_table(made, tmp_path / "d.parquet")
    for data in (tmp_path / "d.npz", tmp_path / "d.parquet", {"x": X, "s": S}, iter([{"x": X, "s": S}])):
        found = open_source(data, TWO).read(0, 50)
        np.testing.assert_array_equal(found["x"], X)
        np.testing.assert_array_equal(found["s"], S)


def test_features_by_name(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    made = arrow.table({"label": np.arange(50), **dict(reversed(columns().items()))})
    parquet.write_table(made, tmp_path / "d.parquet")
    wanted = Wanted({"x": (FEATURES,)}, {"x": [f"c{i}" for i in range(FEATURES)]})
    np.testing.assert_array_equal(open_source(tmp_path / "d.parquet", wanted).read(0, 50)["x"], X)
    with pytest.raises(UserError, match="has 7 columns of numbers, and 'x' takes 6 a row"):
        open_source(tmp_path / "d.parquet", WANTED)
    with pytest.raises(UserError, match=r"no column for feature 'c9'.*did you mean"):
        open_source(tmp_path / "d.parquet", Wanted({"x": (2,)}, {"x": ["c0", "c9"]}))


def test_a_column_of_lists_needs_no_names(tmp_path: Path) -> None:
    """References may have been a DataFrame, whose columns name the features."""
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(arrow.table({"v": [[1.0, 2.0], [3.0, 4.0]], "row": [0, 1]}), tmp_path / "d.parquet")
    for names in (["a", "b"], []):
        found = open_source(tmp_path / "d.parquet", Wanted({"x": (2,)}, {"x": names})).read(0, 2)["x"]
        np.testing.assert_array_equal(found, [[1, 2], [3, 4]])
    with pytest.raises(UserError, match="no column for feature 'a'"):
        open_source(tmp_path / "d.parquet", Wanted({"x": (2,)}, {"x": ["row", "a"]}))


def test_a_frames_columns_by_name() -> None:
    pandas = pytest.importorskip("pandas")
    wanted = Wanted({"x": (FEATURES,)}, {"x": [f"c{i}" for i in range(FEATURES)]})
    frame = pandas.DataFrame(dict(reversed(columns().items())) | {"label": np.arange(50)})
    for data in (frame, {"x": frame}, iter([frame[:20], frame[20:]])):
        np.testing.assert_array_equal(open_source(data, wanted).read(0, 50)["x"], X)
    with pytest.raises(UserError, match=r"data: the DataFrame has no column 'c2'. give all of c0, c1, "):
        open_source(frame.drop(columns="c2"), wanted)


def test_what_is_missing_is_nan_and_integers_are_numbers(tmp_path: Path) -> None:
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    made = arrow.table({"a": arrow.array([1, None, 3]), "b": arrow.array([True, False, None])})
    parquet.write_table(made, tmp_path / "d.parquet")
    found = open_source(tmp_path / "d.parquet", Wanted({"x": (2,)})).read(0, 3)["x"]
    np.testing.assert_array_equal(found, [[1, 1], [np.nan, 0], [3, np.nan]])


@pytest.mark.parametrize(
    "column", [["1", "2"], ["1", None], [b"1", b"2"], [[1.0], [2.0]], [{"c": 1}, {"c": 2}]]
)
def test_what_is_no_column_of_numbers(tmp_path: Path, column: Any) -> None:
    """Not even texts that spell numbers."""
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(arrow.table({"a": column, "b": [1.0, 2.0]}), tmp_path / "d.parquet")
    source = open_source(tmp_path / "d.parquet", Wanted({"x": (2,)}, {"x": ["a", "b"]}))
    with pytest.raises(UserError, match="column 'a': is no column of numbers"):
        source.read(0, 2)


def picture(folder: Path, name: str, size: tuple[int, int] = (5, 4), mode: str = "RGB") -> Array:
    images = pytest.importorskip("PIL.Image")
    depth = {"RGB": 3, "L": 1}[mode]
    pixels = np.random.default_rng(len(name)).integers(0, 256, (*size, depth), np.uint8)
    images.fromarray(pixels if depth == 3 else pixels[..., 0]).save(folder / name)
    return np.asarray(pixels)


def test_images(tmp_path: Path) -> None:
    a, b = picture(tmp_path, "a.png"), picture(tmp_path, "bb.png")
    both = np.stack([a, b])
    last = open_source(tmp_path, Wanted({"x": (5, 4, 3)}))
    np.testing.assert_array_equal(last.read(0, 2)["x"], both)
    assert last.labels(0, 2) == ["a.png", "bb.png"]
    scaled = Pixels(1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    first = open_source(tmp_path, Wanted({"x": (3, 5, 4)}), scaled)
    wanted = ((both / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(first.read(0, 2)["x"], wanted, atol=1e-6)
    assert first.digest() != last.digest()
    with pytest.raises(UserError, match=r"has 5 x 4 pixels, the model takes 8 x 8. resize it"):
        open_source(tmp_path, Wanted({"x": (3, 8, 8)})).read(0, 1)
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"c.png: is no image that can be read"):
        open_source(tmp_path, Wanted({"x": (5, 4, 3)})).read(0, 3)


def pickled(folder: Path) -> Any:
    np.save(folder / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    return folder / "x.npy"


def short(folder: Path) -> Any:
    content = npy(folder).read_bytes()
    (folder / "x.npy").write_bytes(content[:-10])
    return folder / "x.npy"


def garbage(name: str) -> Callable[[Path], Any]:
    def make(folder: Path) -> Any:
        if name.endswith((".parquet", ".arrow")):
            pytest.importorskip("pyarrow")
        (folder / name).write_bytes(b"PK\x03\x04 this is no such file")
        return folder / name

    return make


def mixed(folder: Path) -> Any:
    picture(folder, "a.png")
    return npy(folder).parent


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pickled, "Python objects, which are never loaded"),
        (short, "is cut short: 10 bytes are missing"),
        (garbage("x.npy"), "is damaged"),
        (garbage("x.npz"), "is damaged"),
        (garbage("x.parquet"), "can't be read"),
        (garbage("x.arrow"), "can't be read"),
        (garbage("x.csv"), "its name tells no kind of data"),
        (mixed, "has both .npy and images"),
        (lambda folder: folder, "has no .npy and no images"),
        (lambda folder: folder / "none.npy", "no such file"),
        (lambda folder: X[:0], "there is no row"),
        (lambda folder: {"x": X, "s": S[:3]}, "different numbers of rows"),
        (lambda folder: 3, "int is no data"),
    ],
)
def test_what_is_no_data(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(make(tmp_path), WANTED)


@pytest.mark.parametrize("make", KINDS[:2] + KINDS[4:8], ids=lambda make: str(make.__name__))
def test_a_file_that_changes_or_goes(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    source = open_source(make(tmp_path), WANTED)
    source.read(0, 5)
    file = max(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"was changed while it was read|is cut short|fewer rows"):
        source.read(5, 50)
    file.unlink()
    with pytest.raises(UserError, match="can't be read: No such file"):
        source.read(5, 50)


def drifting(kind: str) -> Iterator[Array]:
    yield X[:3]
    yield X[3:5].astype(kind)


@pytest.mark.parametrize("kind", ["float64", "int32", "U8"])
def test_a_type_that_changes_on_the_way(kind: str) -> None:
    source: Source = open_source(drifting(kind), WANTED)
    with pytest.raises(UserError, match=r"'x' is .* from row 3 on, and was float32 \[6\]"):
        source.read(0, 4)
    source = open_source(drifting(kind), WANTED)
    source.read(0, 3)
    with pytest.raises(UserError, match="from row 3 on"):
        source.read(3, 4)
