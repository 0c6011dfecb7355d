"""Max-pooling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import product
from irshap.ir.types import DType
from irshap.ir.walks import ancestors
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.window import disputed, padded_at_run_time, window_attributes
from irshap.ops import pool
from irshap.ops.program import PARAMETER, Input

__all__: list[str] = []


@importer("MaxPool")
def _read_max_pool(n: Import) -> Sequence[Value]:
    if len([o for o in n.proto.output if o]) > 1:
        raise Unmodeled("its indices are used")
    kernel = tuple(n.attributes["kernel_shape"])
    disputed(n, kernel)
    # finite, so that differences at padding are 0
    x, geometry = padded_at_run_time(n, kernel, _lowest(n.tensor().dtype))
    return n.emit(pool.MaxPool(kernel, *geometry, bool(n.attribute("ceil_mode", 0))), x)


def _lowest(dtype: DType) -> float:
    """The least finite number of an element type."""
    return float(np.finfo(dtype.numpy).min if dtype.is_float else np.iinfo(dtype.numpy).min)


@exporter(pool.MaxPool)
def _write_max_pool(e: Export, op: pool.MaxPool) -> None:
    attributes = {"kernel_shape": op.kernel, "ceil_mode": int(op.ceil), **window_attributes(op)}
    trained = any(_is_parameter(v) for v in ancestors([e.operand()])) if e.used(1) else False
    # ONNX Runtime's blocked kernel gives no positions.  Behind any other it can't tell that two branches have
    # equal shapes, and fuses an addition less than in the model: the values would round differently
    if not trained:
        e.add("MaxPool", e.inputs, into=e.outputs[:1], **attributes)
    if not e.used(1):
        return
    # ONNX counts positions through the whole tensor, the IR within each plane
    again, whole = (e.emitter.fresh(f"{e.outputs[1]}_{what}") for what in ("values", "whole"))
    # where weights are inputs, nothing runs blocked
    again = e.outputs[0] if trained else again
    e.add("MaxPool", e.inputs, into=[again, whole], **attributes)
    plane = e.emitter.dim(product(e.operand().shape[2:]))
    e.add("Mod", [whole, plane], into=[e.outputs[1]])


def _is_parameter(value: Value) -> bool:
    return isinstance(value.node.op, Input) and value.node.op.kind == PARAMETER
