"""widen: the same program in float64, the yardstick that tells a wrong rule from rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irshap.errors import ModelError
from irshap.ir.builder import current
from irshap.ir.core import Graph, Node, Op, Value
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import DType, Tensor, TensorType, Type
from irshap.ir.walks import is_float
from irshap.ops.cast import cast, retyped
from irshap.ops.program import Constant, Pullback
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Widen"]


@dataclass(frozen=True)
class Widen(Pass):
    """Computes in float64: inputs, constants, casts and outputs.

    Goes behind lift, before rules choose what they do for tiny differences.  A node that irshap doesn't model
    keeps its types between casts.
    """

    name = "widen"
    semantics = Semantics.APPROXIMATES
    tolerance = 1e-3

    def run(self, ir: Graph, context: Context) -> Graph:
        def visit(node: Node, mapping: Mapping[Value, Value]) -> list[Value]:
            results = _widened(node, mapping)
            pairs = zip(node.results, results, strict=True)
            context.count("widened", sum(old.type != new.type for old, new in pairs))
            return results

        return map_nodes(ir, visit)


def _widened(node: Node, mapping: Mapping[Value, Value]) -> list[Value]:
    b, names = current(), tuple(v.name for v in node.results)
    if node.op.types_given and not node.op.is_input:
        operands = [cast(mapping[v], v.dtype) if is_float(v) else mapping[v] for v in node.operands]
        results = b.emit(node.op, *operands, types=node.types, names=names)
        return [cast(v, DType.F64) if is_float(v) else v for v in results]
    op = _wide_op(node.op)
    types = tuple(map(_wide_type, node.types))
    return list(b.emit(op, *(mapping[v] for v in node.operands), types=types, names=names))


def _wide_op(op: Op) -> Op:
    if isinstance(op, Constant) and op.value.type.dtype.is_float:
        return Constant(Tensor.wrap(op.value.array.astype(np.float64)))
    if isinstance(op, Pullback):
        raise ModelError("widen comes before the derivative is taken", where=op.mnemonic)
    return retyped(op, lambda dtype: DType.F64 if dtype.is_float else dtype)


def _wide_type(type: Type) -> Type:
    return type.with_dtype(DType.F64) if isinstance(type, TensorType) and type.dtype.is_float else type
