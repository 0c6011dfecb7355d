"""Broken data files by seed: what may be given as references, samples, weights, groups, saved explanations
and training data.  Each of these takes the file, or refuses it with a reason.
"""

from __future__ import annotations

import io
import json
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
from fuzz_workers import Kind, Outcome, judged

import irshap
from irshap.compiler.making import KINDS, make_references
from irshap.compiler.references import check_references, check_weights, read_groups
from irshap.contract import Training
from irshap.errors import UserError
from irshap.ir.dims import N
from irshap.ir.types import DType, TensorType
from irshap.runtime import Explainer
from irshap.training.checkpoint import Checkpoint
from irshap.training.data import Data, read_table

__all__ = ["DATA", "NETWORK", "REFERENCES"]

Random = np.random.Generator

NETWORK = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3] x) => (float[N,2] y)
<float[3,2] w = {1,-2,3,0.5,2,1}> { h = MatMul(x, w) r = Relu(h) y = Softmax(r) }"""
REFERENCES = np.array([[0, 0, 0], [1, -1, 0.5]], np.float32)
DTYPES = ("<f4", "<f4", "<f4", "<f8", "<f2", ">f4", ">f8", "<i8", ">i4", "|u1", "|b1", "<c8", "<U3", "|S3")
DTYPES += ("<M8[s]", "|V4")
SHAPES = (
    (2, 3),
    (2, 3),
    (2, 3),
    (0, 3),
    (2, 0),
    (2,),
    (),
    (3,),
    (2, 3, 1),
    (1, 3),
    (5, 3),
    (2, 2, 3),
    (1,) * 32,
)
HEADERS = (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 3), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (0, 9223372036854775807), }",
    b"{'descr': '<f4', 'fortran_order': 7, 'shape': (2, 3), }",
    b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }",
    b"{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (2,), }",
    b"{'descr': '<f4', 'shape': (2, 3)}",
    b"{'descr': '<U1000000000', 'fortran_order': False, 'shape': (2, 3), }",
    b"__import__('os').system('false')",
    b"(" * 4000,
    b"-" * 9000 + b"1",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"2," * 3000 + b"), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3), }",
)


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('a pickle was run')",)


def _array(rng: Random) -> np.ndarray[Any, Any]:
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    numbers = rng.normal(size=shape) * (1e300 if rng.random() < 0.05 else 1)
    with np.errstate(all="ignore"), suppress(TypeError, ValueError):
        numbers = numbers.astype(np.dtype(DTYPES[int(rng.integers(len(DTYPES)))]))
    if numbers.dtype.kind == "f" and numbers.size and rng.random() < 0.15:
        numbers.flat[int(rng.integers(numbers.size))] = rng.choice([np.nan, np.inf, -np.inf])
    if rng.random() < 0.1:
        holder = np.empty(2, object)
        holder[:] = [_Harmful(), None]
        return holder
    return np.asfortranarray(numbers) if rng.random() < 0.2 else numbers


def _npy(rng: Random) -> bytes:
    stream = io.BytesIO()
    np.save(stream, _array(rng), allow_pickle=True)
    content = stream.getvalue()
    if rng.random() < 0.3:
        header = HEADERS[int(rng.integers(len(HEADERS)))]
        version = int(rng.integers(1, 5))
        length = len(header).to_bytes(2 if version == 1 else 4, "little")
        content = b"\x93NUMPY" + bytes([version, 0]) + length + header + content[-24:]
    return content


def _npz(rng: Random) -> bytes:
    stream = io.BytesIO()
    names = (
        "x",
        "y",
        "labels",
        "sample_weights",
        "arr_0",
        "irshap",
        "values/x",
        "data/x",
        "../x",
        "/x",
        "x\0",
        "",
    )
    squeezed = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", squeezed) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names may come twice
        for name in rng.choice(names, size=int(rng.integers(1, 5))):
            entry = _npy(rng) if rng.random() < 0.9 else b"text"
            archive.writestr(f"{name}.npy" if rng.random() < 0.9 else str(name) or "x", entry)
    return stream.getvalue()


@cache
def _saved() -> tuple[bytes, ...]:
    """Archives that irshap writes: an explanation, and a checkpoint."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "e.npz")
        explainer()(REFERENCES).save(path)
        found.append(path.read_bytes())
        Checkpoint("r", values={"w": REFERENCES}).save(path)
        found.append(path.read_bytes())
    return tuple(found)


def _archive(rng: Random) -> bytes:
    """One of these with other arrays or another header."""
    content = _saved()[int(rng.integers(2))]
    with np.load(io.BytesIO(content)) as loaded:
        arrays = {name: loaded[name] for name in loaded.files}
    header = json.loads(str(arrays.pop("irshap")[()]))
    if rng.random() < 0.6 and header:
        by = (None, -1, 1e400, [], {}, {"x": [[]]}, "text", [["x"]], True, "[" * 500, 2**70)
        header[str(rng.choice(list(header)))] = by[int(rng.integers(len(by)))]
    text = "[" * 100_000 if rng.random() < 0.05 else json.dumps(header)
    if rng.random() < 0.6:
        name = str(rng.choice(list(arrays)))
        arrays[name] = _array(rng)
        if rng.random() < 0.3:
            del arrays[name]
    stream = io.BytesIO()
    np.savez(stream, irshap=np.array(text), **arrays)
    return stream.getvalue()


def _parquet(rng: Random) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return b"PAR1"
    columns: dict[str, Any] = {}
    for name in rng.choice(["a", "b", "c", "x", "labels"], size=int(rng.integers(1, 6))):
        kinds: list[Any] = [
            [1.0, 2.0],
            [1, None],
            ["a", "b"],
            [[1.0], [2.0]],
            [[1.0], [1.0, 2.0]],
            [b"", None],
        ]
        kinds += [[{"a": 1}, {"a": 2}], [[[1]], [[2]]], [float("nan"), 1.0], [True, False]]
        columns[str(name)] = kinds[int(rng.integers(len(kinds)))]
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def _other(rng: Random) -> bytes:
    kinds = (
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04",
        b"a,b\n1,2\n",
        b"[1, 2]",
        b"\x80\x04N.",
        b"PAR1PAR1",
        b"\0" * 99,
    )
    return kinds[int(rng.integers(len(kinds)))]


MAKERS: tuple[Callable[[Random], bytes], ...] = (
    _npy,
    _npy,
    _npy,
    _npz,
    _npz,
    _archive,
    _archive,
    _parquet,
    _other,
)


def made(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    maker = MAKERS[int(rng.integers(len(MAKERS)))]
    content = bytearray(maker(rng))
    for _ in range(int(rng.integers(3)) if content else 0):
        at = int(min(rng.integers(len(content)), rng.integers(len(content))))  # headers stand in front
        kind = int(rng.integers(4))
        if kind == 0:
            content[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[at:] = b""
        elif kind == 2:
            content[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 20)), np.uint8))
        else:
            del content[at : at + int(rng.integers(1, 9))]
        if not content:
            break
    return bytes(content)


# --- who reads them ----------------------------------------------------------------------------------


@cache
def explainer() -> Explainer:
    return irshap.compile(onnx.parser.parse_model(NETWORK), REFERENCES).explainer()


def _train(path: Path) -> None:
    training = Training(inputs=("x",), given={"labels": "labels", "sample_weights": "sample_weights"})
    shapes = {"x": ["N", 3], "labels": ["N"], "sample_weights": ["N"]}
    dtypes = {"x": np.dtype("f4"), "labels": np.dtype("i8"), "sample_weights": np.dtype("f4")}
    Data.of(path, None, training, shapes, dtypes, 2)


def _make(path: Path) -> None:
    kinds = sorted(set(KINDS) - {"kmeans"})
    make_references(path, kinds[zlib.crc32(path.read_bytes()) % len(kinds)], 2)


def _explanation(path: Path) -> None:
    told = irshap.Explanation.load(path)
    told.records()
    repr(told)


def _compile(path: Path) -> None:
    check_references(path, {"x": TensorType(DType.F32, (N, 3))}, ["x"])
    if zlib.crc32(path.read_bytes()) % 10 == 0:
        irshap.compile(onnx.parser.parse_model(NETWORK), path)


READERS: Mapping[str, Callable[[Path], Any]] = {
    "references": _compile,
    "samples": lambda path: explainer()(path),
    "weights": lambda path: check_weights(path, 2),
    "groups": read_groups,
    "made": _make,
    "explanation": _explanation,
    "checkpoint": lambda path: Checkpoint.load(path, "r", {"w": (2, 3)}),
    "training": _train,
    "table": lambda path: read_table(path, Training(inputs=("x",))),
}


def _steps(content: bytes) -> Iterator[str]:
    read = []
    with tempfile.TemporaryDirectory(prefix="irshap-fuzz-") as folder:
        path = Path(folder, "data.parquet" if content[:4] == b"PAR1" else "data.npy")
        path.write_bytes(content)
        for name, reader in READERS.items():
            try:
                reader(path)
            except UserError as refusal:
                if not refusal.what.strip():
                    raise AssertionError(f"{name}: refused without a reason") from refusal
            else:
                read.append(name)
                yield " ".join(read)


def _outcome(content: bytes, *, reraise: bool = False) -> Outcome:
    return judged(_steps(content), reraise)


DATA = Kind(made, _outcome)
