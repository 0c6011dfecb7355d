"""share-weights: a large dense layer and its adjoint read one copy of their weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Node, Op, Value
from irshap.ir.rewrite import map_bodies, map_nodes
from irshap.ir.types import DType
from irshap.ops.linear import Gemm
from irshap.ops.program import Constant
from irshap.ops.shape import reshape, transpose
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["ShareWeights"]


@dataclass(frozen=True)
class ShareWeights(Pass):
    """x W = (W' x')' for weights of `smallest` bytes or more that are read both as they are and transposed.

    ONNX Runtime's CPU kernels reorder weights that are a product's second operand, when they load, and keep a
    copy for each orientation: VGG19's first dense layer takes 392 MiB twice.  A first operand is read as it
    is.  The product takes longer, which counts little where a network has much else to do.
    """

    smallest: int = 8 * 2**20
    name = "share-weights"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        ways: dict[Op, set[bool]] = defaultdict(set)
        for node in ir.walk():
            if (weights := self._weights(node)) is not None:
                ways[weights.node.op].add(node.op.trans_b)  # type: ignore[attr-defined]
        shared = {op for op, orientations in ways.items() if len(orientations) == 2}
        return self._rewritten(ir, shared, context) if shared else ir

    def _rewritten(self, ir: Graph, shared: set[Op], context: Context) -> Graph:
        ir = map_bodies(ir, lambda body: self._rewritten(body, shared, context))

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
            weights = self._weights(node)
            if weights is None or weights.node.op not in shared:
                return None
            context.count("shared")
            return (_swapped(node.op, *(mapping[v] for v in node.operands)),)

        return map_nodes(ir, visit)

    def _weights(self, node: Node) -> Value | None:
        """The large weights of a product that can be turned around."""
        if not isinstance(node.op, Gemm) or node.op.trans_a:
            return None
        _, weights, *summand = node.operands
        if not isinstance(weights.node.op, Constant) or any(v.rank > 1 for v in summand):
            return None
        large = weights.node.op.value.array.nbytes >= self.smallest
        return weights if large and weights.dtype is DType.F32 else None


def _swapped(op: Any, x: Value, weights: Value, *summand: Value) -> Value:
    columns = [reshape(v, (*v.shape, 1)) if v.rank else v for v in summand]
    product = emit1(replace(op, trans_a=not op.trans_b, trans_b=False), weights, _turned(x), *columns)
    return _turned(product)  # type: ignore[no-any-return]


def _turned(x: Value) -> Any:
    """The transpose of a matrix, as one of a stack: ONNX Runtime moves that of a matrix into the product."""
    rows, columns = x.shape
    return reshape(transpose(reshape(x, (1, rows, columns)), [0, 2, 1]), (columns, rows))
