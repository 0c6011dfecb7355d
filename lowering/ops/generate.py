"""Tensors made from numbers."""

from __future__ import annotations

import numpy as np
import onnx

from irshap.ir.core import Value
from irshap.ir.dims import as_dim
from irshap.ir.types import Tensor
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import LARGEST_MADE, Import, Unmodeled, importer, known
from irshap.ops import generate, program
from irshap.ops.shape import reshape

__all__: list[str] = []


@importer("Range")
def _read_range(n: Import) -> Value:
    bounds = [n.tensor(i) for i in range(3)]
    # some models give vectors of one number, which ONNX Runtime takes unless it can tell their shape
    n.inputs = [reshape(v, ()) if v.shape == (1,) else v for v in bounds]
    plain = [v.node.op.value.array for v in bounds if isinstance(v.node.op, program.Constant)]
    if len(plain) == 3:
        start, stop, step = (a.reshape(()) for a in plain)
        count = max(0, int(np.ceil((stop - start) / step)))
        if count > LARGEST_MADE:
            raise Unmodeled(f"it has more than {LARGEST_MADE} elements")
        return n.one(program.Constant(Tensor((start + step * np.arange(count)).astype(start.dtype))))
    dims = [known(v) for v in bounds]
    first, last, by = (None if d is None else as_dim(d.reshape(-1)[0]) for d in dims)
    if first is None or last is None or by not in (1, -1):
        raise Unmodeled("its bounds are only known at run time")
    return n.one(generate.Arange(first, int(by), as_dim((last - first) * int(by))))


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
