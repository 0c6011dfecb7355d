"""References made of data: what each kind keeps, what is refused, and what may be wrong with references."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irshap
from irshap import demo
from irshap.cli import main
from irshap.cli.references import KINDS as LISTED
from irshap.compiler.making import KINDS, concerns, make_references
from irshap.errors import ReferencesError, UserError

IMAGES = demo.digits()[0]
RNG = np.random.default_rng(0)
LETTERS = RNG.integers(0, 4, (6, 50))
HOT = np.eye(4, dtype=np.float32)[LETTERS]
IDS = RNG.integers(1, 9, (7, 12))


def made(data: Any, kind: str, count: int = 5, **given: Any) -> Any:
    found = make_references(data, kind, count, **given)
    return found.arrays[""]


def rows(array: Any) -> set[bytes]:
    return {row.tobytes() for row in np.ascontiguousarray(array)}


def test_a_sample_is_of_the_data() -> None:
    found = made(IMAGES, "sample")
    assert found.shape == (5, *IMAGES.shape[1:])
    assert rows(found) <= rows(IMAGES)
    np.testing.assert_array_equal(found, made(IMAGES, "sample"))
    assert rows(found) != rows(made(IMAGES, "sample", seed=1))
    both = make_references({"a": IMAGES, "b": np.arange(len(IMAGES))[:, None]}, "sample", 4)
    np.testing.assert_array_equal(both.arrays["a"], IMAGES[both.arrays["b"][:, 0]])  # the same rows of all


def test_one_row() -> None:
    np.testing.assert_allclose(made(IMAGES, "mean"), IMAGES.mean(axis=0, keepdims=True), atol=1e-6)
    assert made(IMAGES, "mean").dtype == IMAGES.dtype
    np.testing.assert_array_equal(made(IMAGES, "zeros"), np.zeros_like(IMAGES[:1]))
    np.testing.assert_array_equal(made(IDS, "padding", pad=3), np.full((1, 12), 3))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
def test_a_blur_keeps_what_is_flat_and_the_mean_within(layout: str) -> None:
    pictures = {"NCHW": IMAGES, "NHWC": IMAGES.transpose(0, 2, 3, 1), "NHW": IMAGES[:, 0]}[layout]
    found, plain = made(pictures, "blur", sigma=1.0), made(pictures, "sample")
    assert found.shape == plain.shape
    assert found.std() < plain.std()
    assert found.min() >= plain.min() - 1e-6 and found.max() <= plain.max() + 1e-6
    flat = np.full((3, *pictures.shape[1:]), 0.5, np.float32)
    np.testing.assert_allclose(made(flat, "blur", 2), flat[:2], atol=1e-6)
    # one bright pixel becomes the kernel, alike along both axes
    dot = np.zeros((1, 1, 9, 9), np.float32)
    dot[..., 4, 4] = 1
    spot = made(dot, "blur", 1, sigma=1.0)[0, 0]
    np.testing.assert_allclose(spot, spot.T, atol=1e-7)
    np.testing.assert_allclose(spot[4, 3] / spot[4, 4], np.exp(-0.5), rtol=1e-5)


def pairs(sequence: Any) -> Counter[tuple[int, int]]:
    return Counter(zip(sequence[:-1].tolist(), sequence[1:].tolist(), strict=True))


@pytest.mark.parametrize("form", ["ids", "NLC", "NCL"])
def test_pairs_of_neighbours_stay_as_frequent(form: str) -> None:
    given = {"ids": LETTERS, "NLC": HOT, "NCL": HOT.transpose(0, 2, 1)}[form]
    found = made(given, "dinucleotide-shuffle", 6)
    assert found.shape == given.shape and found.dtype == given.dtype
    back = {"ids": lambda a: a, "NLC": lambda a: a.argmax(2), "NCL": lambda a: a.argmax(1)}[form](found)
    for new, old in zip(back, LETTERS, strict=True):
        assert pairs(new) == pairs(old)
        assert (new[0], new[-1]) == (old[0], old[-1])
        assert (new != old).any()


def test_a_shuffle_keeps_what_is_at_each_position() -> None:
    for data, axis in ((HOT, 1), (HOT.transpose(0, 2, 1), 2), (IDS, 1), (IMAGES, None)):
        found = made(data, "shuffle", 5)
        plain = made(data, "sample", 5)
        assert (found != plain).any()
        for new, old in zip(found, plain, strict=True):
            columns = [
                np.moveaxis(a, axis - 1, 0).reshape(a.shape[axis - 1], -1) if axis else a.reshape(1, -1).T
                for a in (new, old)
            ]
            assert Counter(c.tobytes() for c in map(np.ascontiguousarray, columns[0])) == Counter(
                c.tobytes() for c in map(np.ascontiguousarray, columns[1])
            )


def test_clusters_have_weights() -> None:
    pytest.importorskip("sklearn")
    data = np.float32([[0, 0], [0, 2], [10, 10], [10, 12], [10, 11], [10, 11]])
    found = make_references(data, "kmeans", 2)
    assert found.weights is not None
    order = np.argsort(found.arrays[""][:, 0])
    np.testing.assert_allclose(found.arrays[""][order], [[0, 1], [10, 11]], atol=1e-5)
    np.testing.assert_allclose(found.weights[order], [1 / 3, 2 / 3])
    compiled = irshap.compile(demo.model_path(), make_references(IMAGES, "kmeans", 4))
    assert np.abs(compiled.explainer()(IMAGES[:2]).completeness_error).max() < 1e-5


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (IMAGES, "kmean", r"no kind of references is called 'kmean'. did you mean kmeans"),
        (IMAGES[:3], "sample", r"5 references of 3 rows of data. give -n 3 or fewer"),
        (IMAGES[:3], "kmeans", r"5 clusters of 3 different rows of data"),
        (IDS, "kmeans", r"has dtype int64, which has no centres"),
        (IDS, "mean", r"has dtype int64, of which a mean has no meaning"),
        (IMAGES, "padding", r"padding is for token ids, and data has dtype float32"),
        (IDS, "blur", r"are no pictures. give floats"),
        (IMAGES, "dinucleotide-shuffle", r"are no sequences of letters. give one-hot"),
        (np.zeros((6, 0), int), "dinucleotide-shuffle", r"\[N, 0\] are no sequences of letters"),
        (np.zeros((6, 0, 4)), "dinucleotide-shuffle", r"\[N, 0, 4\] are no sequences of letters"),
        (IMAGES[:0], "mean", r"data needs rows"),
        ({"a": IMAGES, "b": IDS}, "sample", r"equally many for all inputs \(a: \d+, b: 7\)"),
        (
            np.where(IMAGES == 0, np.nan, IMAGES),
            "sample",
            r"has NaN or infinity, the first at \[0, 0, 0, 0\]",
        ),
        (np.array([["a"]]), "sample", r"has dtype <U1, which holds no numbers"),
        (np.zeros(5), "shuffle", r"has no positions to shuffle"),
    ],
)
def test_what_cannot_be_made(data: Any, kind: str, message: str) -> None:
    with pytest.raises(ReferencesError, match=message):
        make_references(data, kind, 5)


def test_what_a_message_says_of_rows_and_seeds() -> None:
    with pytest.raises(ReferencesError, match=r"of shape \[N, 5\] are no sequences"):
        make_references(np.ones((3, 5)), "dinucleotide-shuffle", 4, per_sample=True)
    with pytest.raises(ReferencesError, match="the seed is -1"):
        make_references(np.ones((3, 5)), "shuffle", 2, seed=-1)


def test_clusters_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"kmeans needs scikit-learn. install it: pip install"):
        make_references(IMAGES, "kmeans", 5)


def test_what_may_be_wrong_with_references() -> None:
    of = irshap.References
    assert concerns(of(IMAGES[:5]), IMAGES, IMAGES[5:9]) == []
    assert concerns(of(IMAGES[[1, 1, 2]])) == [
        "1 of 3 references equal another: weights say the same at less cost"
    ]
    (found,) = concerns(of(IMAGES[:2] + 2), IMAGES)
    assert (
        found
        == "references have values that the data never has, in 64 of 64 features, the first at [0, 0, 0]"
    )
    (found,) = concerns(of({"x": IMAGES[:5]}), samples={"x": IMAGES[3:9]})
    assert found == "sample 0 is among the references for 'x', and 1 more"
    with pytest.raises(UserError, match=r"no data for input 'x'. there: y"):
        concerns(of({"x": IMAGES[:5]}), {"y": IMAGES})
    with pytest.raises(UserError, match=r"data of shape \[7, 12\] have other features"):
        concerns(of(IMAGES[:5]), IDS)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "x.npy", tmp_path / "r.npy"
    np.save(data, IMAGES)
    assert main(["references", str(data), "--kind", "sample", "-n", "7", "-o", str(out)]) == 0
    assert f"{out}: float32 [7, 1, 8, 8], sample\nuse them: irshap compile" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(out), made(IMAGES, "sample", 7))
    np.save(data, IMAGES + 1)
    assert main(["references", str(data), "--kind", "zeros", "-o", str(out), "-i", str(out)]) == 0
    assert "warning: references have values that the data never has" in capsys.readouterr().err
    np.savez(tmp_path / "two.npz", a=IMAGES, b=IDS[[0] * len(IMAGES)])
    command = ["references", str(tmp_path / "two.npz"), "--kind", "sample", "-o"]
    assert main([*command, str(out)]) == 2
    assert "these references go to a .npz file. name it so: -o REFS.npz" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "r.npz")]) == 0
    with np.load(tmp_path / "r.npz") as found:
        assert {k: v.shape[0] for k, v in found.items()} == {"a": 20, "b": 20}
    assert LISTED == KINDS


def test_the_command_with_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    data, out = tmp_path / "x.npy", tmp_path / "r.npy"
    np.save(data, IMAGES)
    assert main(["references", str(data), "--kind", "kmeans", "-n", "3", "-o", str(out)]) == 0
    weights = tmp_path / "r.weights.npy"
    assert f"--references {out} --weights {weights}" in capsys.readouterr().out
    command = ["compile", str(demo.model_path()), "-r", str(out), "--weights", str(weights)]
    assert main([*command, "-o", str(tmp_path / "e.onnx")]) == 0
