"""A small table model, its data, and folders compared, which tests of data sets share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
from onnx import numpy_helper

import irshap

Array = np.ndarray[Any, np.dtype[Any]]

FEATURES = 6
NET = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,3] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"""


def table(rows: int = 1000, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, FEATURES)).astype(np.float32)


@cache
def model(batch: int | str = "auto", **options: Any) -> bytes:
    """An explained model with the input x [N, 6] and references bound."""
    net, rng = onnx.parser.parse_model(NET), np.random.default_rng(1)
    for name, shape in (("w", (FEATURES, 16)), ("v", (16, 3))):
        net.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    references = None if options.get("method") == "gradient" else table(5, seed=2)
    return bytes(irshap.compile(irshap.Model(net, batch=batch), references, **options))


def saved(folder: Path) -> Path:
    """The model as a file."""
    path = folder / "explained.onnx"
    path.write_bytes(model())
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def arrays(folder: Path) -> dict[str, Array]:
    """The columns of a folder of .npy."""
    return {p.stem: np.load(p) for p in folder.glob("*.npy")}
