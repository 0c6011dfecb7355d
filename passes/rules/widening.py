"""A node with its floats in a wider type."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from irshap.errors import ModelError
from irshap.ir.builder import current
from irshap.ir.core import Node, Op, Value
from irshap.ir.types import DType, Tensor, TensorType, Type
from irshap.ir.walks import is_float
from irshap.ops.cast import Cast, cast, retyped
from irshap.ops.program import Constant, Pullback

__all__ = ["widened"]

Change = Callable[[DType], DType]


def widened(node: Node, mapping: Mapping[Value, Value], change: Change) -> list[Value]:
    """Emits `node` with its element types changed; one that irshap doesn't model keeps them between casts."""
    b, names = current(), tuple(v.name for v in node.results)
    if node.op.types_given and not node.op.is_input:
        operands = [cast(mapping[v], v.dtype) if _is_castable(v) else mapping[v] for v in node.operands]
        results = b.emit(node.op, *operands, types=node.types, names=names)
        return [cast(v, change(v.dtype)) if _is_castable(v) else v for v in results]
    op = _wide_op(node.op, change)
    if isinstance(op, Cast) and mapping[node.operands[0]].type == _wide_type(node.types[0], change):
        return [mapping[node.operands[0]]]
    types = tuple(_wide_type(t, change) for t in node.types)
    return list(b.emit(op, *(mapping[v] for v in node.operands), types=types, names=names))


def _is_castable(value: Value) -> bool:
    """Whether it is a float tensor of known rank: any other is read by nodes that irshap doesn't model."""
    return is_float(value) and value.tensor.shape is not None


def _wide_op(op: Op, change: Change) -> Op:
    if isinstance(op, Constant) and op.value.type.dtype.is_float:
        return Constant(Tensor.wrap(op.value.array.astype(change(op.value.type.dtype).numpy)))
    if isinstance(op, Pullback):
        raise ModelError("types change before the derivative is taken", where=op.mnemonic)
    return retyped(op, change)


def _wide_type(type: Type, change: Change) -> Type:
    float_type = isinstance(type, TensorType) and type.dtype.is_float
    return type.with_dtype(change(type.dtype)) if float_type else type  # type: ignore[union-attr]
