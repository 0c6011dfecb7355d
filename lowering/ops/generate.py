"""Tensors made from numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, ceil_div
from irshap.ir.types import Tensor
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import LARGEST_MADE, Import, Unmodeled, importer
from irshap.ops import generate, program
from irshap.ops.cast import cast
from irshap.ops.shape import reshape

__all__: list[str] = []


@importer("Range")
def _read_range(n: Import) -> Value:
    bounds = [n.tensor(i) for i in range(3)]
    # some models give vectors of one number, which ONNX Runtime takes unless it can tell their shape
    n.inputs = [reshape(v, ()) if v.shape == (1,) else v for v in bounds]
    plain = [a.reshape(()) for v in bounds if (a := n.facts.numbers(v)) is not None]
    if len(plain) == 3:
        start, stop, step = plain
        count = max(0, int(np.ceil((stop - start) / step)))
        if count > LARGEST_MADE:
            raise Unmodeled(f"it has more than {LARGEST_MADE} elements")
        return n.one(program.Constant(Tensor((start + step * np.arange(count)).astype(start.dtype))))
    found = [_whole(a.reshape(-1)[0]) for v in bounds if (a := n.facts.known(v)) is not None]
    if len(found) < 3 or any(d is None for d in found):
        raise Unmodeled("its bounds are only known at run time")
    first, last, by = (d for d in found if d is not None)
    if not isinstance(by, int) or by == 0:
        raise Unmodeled("its step is only known at run time")
    count = ceil_div(as_dim((last - first) * (1 if by > 0 else -1)), abs(by))
    return cast(n.one(generate.Arange(first, by, count)), bounds[0].dtype)


def _whole(element: Any) -> Dim | None:
    """A number or a dimension, also one that went through floats."""
    if isinstance(element, float):
        return int(element) if element.is_integer() else None
    return as_dim(element) if isinstance(element, int) or element.is_integer else None


@exporter(generate.Arange)
def _write_arange(e: Export, op: generate.Arange) -> None:
    stop = op.start + op.count * op.step
    bounds = [
        e.add("Squeeze", [e.shape([d])]) if not isinstance(d, int) else e.constant(d, "int64")
        for d in (op.start, stop)
    ]
    e.result("Range", [*bounds, e.constant(op.step, "int64")])


@importer("OneHot")
def _read_one_hot(n: Import) -> Value:
    index = n.tensor(0)
    depth = int(n.static(1).reshape(-1)[0])
    axis = n.axis(n.attribute("axis", -1), index.rank + 1)
    return n.one(generate.OneHot(axis, depth), index, n.tensor(1), n.tensor(2))


@exporter(generate.OneHot)
def _write_one_hot(e: Export, op: generate.OneHot) -> None:
    e.result("OneHot", e.inputs, axis=op.axis)


@importer("EyeLike")
def _read_eye_like(n: Import) -> Value:
    x, code = n.tensor(), n.attribute("dtype", 0)
    rows, columns = x.shape
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise Unmodeled("its size is only known at run time")
    if rows * columns > LARGEST_MADE:
        raise Unmodeled(f"it has more than {LARGEST_MADE} elements")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code) if code else x.dtype.numpy
    return n.one(program.Constant(Tensor(np.eye(rows, columns, n.attribute("k", 0)).astype(dtype))))
