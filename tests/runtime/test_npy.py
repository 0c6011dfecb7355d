"""numpy's files as they shouldn't be: refused with a reason, without the memory that they ask for."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from irshap.runtime.npy import Unreadable, read_npy

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(header: bytes, data: bytes = b"\0" * 24, version: int = 1) -> bytes:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def described(shape: str, descr: str = "'<f4'") -> bytes:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()


HEADERS = {
    "terabytes": (described("(1000000000000, 3)"), "tells of 12000000000000 bytes, and 24 follow"),
    "more than an address": (described("(9223372036854775807, 3)"), "and 24 follow"),
    "a negative size": (described("(-1, 3)"), "is damaged: an array of shape"),
    "truth values": (described("(True, 3)"), "is damaged: an array of shape"),
    "long texts": (described("(2, 3)", "'<U100000000'"), "and 24 follow"),
    "no type": (described("(2, 3)", "'<q9'"), "is damaged"),
    "objects": (described("(2, 3)", "'|O'"), "holds Python objects"),
    "objects inside": (described("(2,)", "[('a', '<f4'), ('b', '|O')]"), "holds Python objects"),
    "code": (b"__import__('os').system('false')", "is damaged"),
    "parentheses": (b"(" * 4000, "is damaged"),
    "signs": (b"-" * 9000 + b"1", "is damaged"),
    "a long header": (described("(" + "2," * 30000 + ")"), "is damaged"),
    "many axes": (described("(" + "1," * 65 + ")"), "is damaged"),
    "too few": (described("(2, 3)"), "tells of 24 bytes, and 3 follow"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers(name: str, tmp_path: Path) -> None:
    header, message = HEADERS[name]
    path = tmp_path / "x.npy"
    path.write_bytes(npy(header, b"abc" if name == "too few" else b"\0" * 24, 2 if len(header) > 9999 else 1))
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match=message):
            read_npy(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    finally:
        tracemalloc.stop()


def test_all_that_numpy_writes_is_read(tmp_path: Path) -> None:
    arrays = [ROWS, np.asfortranarray(ROWS), ROWS.astype(">f8"), ROWS[:0], np.array(3.0)]
    arrays.append(np.array(["a", "é"]))
    arrays.append(np.array([(1, 2.0)], dtype=[("é", "<i4"), ("b", "<f8")]))
    for array in arrays:
        np.save(tmp_path / "x.npy", array)
        np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **{f"a{i}": array for i, array in enumerate(arrays)})
        found = read_npy(tmp_path / "x.npz")
        for i, array in enumerate(arrays):
            np.testing.assert_array_equal(found[f"a{i}"], array)


def archive(path: Path, entries: dict[str, bytes], squeezed: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", squeezed) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


def test_a_few_kilobytes_that_say_100_gigabytes(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.npz", {"x.npy": npy(described("(25000000000,)"), bytes(5_000_000))})
    assert path.stat().st_size < 10_000
    with pytest.raises(Unreadable, match="tells of 100000000000 bytes, and 5000000 follow"):
        read_npy(path)
    # the directory may say it, too
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=r"'x.npy': \d+ bytes can't be 4294967294"):
        read_npy(path)


def test_more_than_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irshap.runtime.npy._memory", lambda: 2**20)
    held = {f"a{i}": bytes(900 * 2**10) for i in range(2)}
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **{name: np.frombuffer(data, np.uint8) for name, data in held.items()})
    assert path.stat().st_size < 10_000
    with pytest.raises(Unreadable, match=r"holds 0.0 GiB, more than the memory of this machine"):
        read_npy(path)


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, ROWS)
    inside = tmp_path / "inside"
    inside.mkdir()
    path = archive(inside / "x.npz", {"../out.npy": stream.getvalue(), "/tmp/out.npy": stream.getvalue()})
    assert set(read_npy(path)) == {"../out", "/tmp/out"}
    assert [p.name for p in tmp_path.rglob("*")] == ["inside", "x.npz"]


def test_archives_of_something_else(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.npz", {"word/document.xml": b"<xml/>"})
    with pytest.raises(Unreadable, match="is damaged"):
        read_npy(path)
    whole = archive(tmp_path / "y.npz", {"x.npy": npy(described("(2, 3)"))}).read_bytes()
    for cut in range(4, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(Unreadable):
            read_npy(path)
