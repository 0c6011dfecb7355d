"""Casts."""

from __future__ import annotations

import numpy as np
import onnx

from irshap.ir.core import Value
from irshap.ir.types import DType
from irshap.lowering.emitter import Export, exporter, onnx_dtype
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import cast

__all__: list[str] = []

_CAST_FREELY = [DType.F16, DType.F32, DType.F64, DType.BOOL, DType.I8, DType.I16, DType.I32, DType.I64]
_CAST_FREELY += [DType.U8, DType.U16, DType.U32, DType.U64, DType.BF16]


@importer("Cast")
def _read_cast(n: Import) -> Value:
    to = n.attribute("to", 0)
    if to == onnx.TensorProto.STRING:
        raise Unmodeled("it casts to strings")
    return _cast_to(n, DType.of(np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(to))))


@importer("CastLike")
def _read_cast_like(n: Import) -> Value:
    return _cast_to(n, n.tensor(1).dtype)


def _cast_to(n: Import, dtype: DType) -> Value:
    x = n.tensor()
    if x.dtype not in _CAST_FREELY or dtype not in _CAST_FREELY:
        raise Unmodeled(f"a cast from {x.dtype.value} to {dtype.value} has rounding modes of its own")
    return cast.cast(x, dtype)


@exporter(cast.Cast)
def _write_cast(e: Export, op: cast.Cast) -> None:
    e.result("Cast", e.inputs, to=onnx_dtype(op.to))
