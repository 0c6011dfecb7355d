"""own-weights: weights that kernels lay out in different ways are each kernel's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irshap.ir.builder import emit, emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import map_bodies, map_nodes
from irshap.ir.types import Tensor
from irshap.ops.conv import Conv, ConvTranspose
from irshap.ops.linear import Gemm, MatMul
from irshap.ops.program import Constant
from irshap.ops.shape import Transpose, reshape, transpose
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["OwnWeights"]


@dataclass(frozen=True)
class OwnWeights(Pass):
    """Square constants that are read in a second way, such as transposed, are stored for it a second time.

    OpenVINO's CPU kernels reorder weights when they load, and look for reordered ones by where the weights
    are and by their shape: of square ones, the second kernel takes what the first one made, in silence.
    The second copy is stored flat, with a reshape that runtimes fold when they load.
    """

    name = "own-weights"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        return _apart(ir, {}, context)


def _apart(ir: Graph, ways: dict[Tensor, dict[object, int]], context: Context) -> Graph:
    """`ways`: for each constant the ways in which it is read so far, counted through."""
    ir = map_bodies(ir, lambda body: _apart(body, ways, context))

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
        if not isinstance(node.op, Conv | ConvTranspose | Gemm | MatMul):
            return None
        operands = [mapping[v] for v in node.operands]
        again = False
        for i, value in enumerate(node.operands[:2]):
            weights, perm = _weights(value)
            if weights is None or not _square(weights, node):
                continue
            known = ways.setdefault(weights, {})
            if copy := known.setdefault((*_way(node, i), perm), len(known)):
                operands[i], again = _stored_again(weights, perm, copy), True
                context.count("stored again")
        return emit(node.op, *operands) if again else None

    return map_nodes(ir, visit)


def _weights(value: Value) -> tuple[Tensor | None, tuple[int, ...]]:
    """A matrix or kernel that is known when compiling, and how it is turned on its way to its reader."""
    perm = tuple(range(value.rank))
    if isinstance(value.node.op, Transpose):
        perm, value = tuple(value.node.op.perm), value.node.operands[0]
    known = isinstance(value.node.op, Constant) and value.rank > 1
    return (value.node.op.value if known else None), perm  # type: ignore[attr-defined]


def _square(weights: Tensor, node: Node) -> bool:
    """Whether both ways to read them have one shape: [n, n], and of kernels [n, n, ...] for each group."""
    shape = weights.array.shape
    if isinstance(node.op, Conv | ConvTranspose):
        return bool(shape[0] == shape[1] * node.op.group)
    return bool(shape[-1] == shape[-2])


def _way(node: Node, i: int) -> tuple[object, ...]:
    """What tells apart how kernels lay out their i-th operand."""
    op = node.op
    if isinstance(op, Gemm):
        return ("product", i, op.trans_b if i else op.trans_a)
    return ("product", i, False) if isinstance(op, MatMul) else (type(op).__name__, i)


def _stored_again(weights: Tensor, perm: tuple[int, ...], copy: int) -> Value:
    """The weights, turned by `perm`, of an array of their own: one of another shape for each copy."""
    flat = weights.array.reshape(*[1] * copy, -1)
    return transpose(reshape(emit1(Constant(Tensor.wrap(flat))), weights.array.shape), perm)
