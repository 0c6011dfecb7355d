"""How tensors made from numbers are lifted."""

from __future__ import annotations

import numpy as np
import onnx

from irshap.ir.core import Value
from irshap.ir.dims import as_dim
from irshap.ir.types import Tensor
from irshap.lowering.importer import Import, Unmodeled, importer, known
from irshap.ops import generate, program
from irshap.ops.shape import reshape

__all__: list[str] = []


_LONGEST = 2**20
"""Larger constants stay nodes: a few bytes of model could ask for any amount of memory."""


@importer("Range")
def _range(n: Import) -> Value:
    bounds = [n.tensor(i) for i in range(3)]
    # some models give vectors of one number, which ONNX Runtime takes unless it can tell their shape
    n.inputs = [reshape(v, ()) if v.shape == (1,) else v for v in bounds]
    plain = [v.node.op.value.array for v in bounds if isinstance(v.node.op, program.Constant)]
    if len(plain) == 3:
        start, stop, step = (a.reshape(()) for a in plain)
        count = max(0, int(np.ceil((stop - start) / step)))
        if count > _LONGEST:
            raise Unmodeled(f"it has more than {_LONGEST} elements")
        return n.one(program.Constant(Tensor((start + step * np.arange(count)).astype(start.dtype))))
    dims = [known(v) for v in bounds]
    first, last, by = (None if d is None else as_dim(d.reshape(-1)[0]) for d in dims)
    if first is None or last is None or by not in (1, -1):
        raise Unmodeled("its bounds are only known at run time")
    return n.one(generate.Arange(first, int(by), as_dim((last - first) * int(by))))


@importer("OneHot")
def _one_hot(n: Import) -> Value:
    index = n.tensor(0)
    depth = int(n.static(1).reshape(-1)[0])
    axis = n.axis(n.attribute("axis", -1), index.rank + 1)
    return n.one(generate.OneHot(axis, depth), index, n.tensor(1), n.tensor(2))


@importer("EyeLike")
def _eye_like(n: Import) -> Value:
    x, code = n.tensor(), n.attribute("dtype", 0)
    rows, columns = x.shape
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise Unmodeled("its size is only known at run time")
    if rows * columns > _LONGEST:
        raise Unmodeled(f"it has more than {_LONGEST} elements")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(code) if code else x.dtype.numpy
    return n.one(program.Constant(Tensor(np.eye(rows, columns, n.attribute("k", 0)).astype(dtype))))
