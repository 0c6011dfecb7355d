"""narrow-positions: what is added at positions of maxima reads these in 32 bits, as they are stored."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Node, Value
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ir.types import DType
from irshap.ops.arithmetic import Where
from irshap.ops.cast import Cast, cast
from irshap.ops.index import ScatterAdd
from irshap.ops.reduce import Expand
from irshap.ops.rows import RepeatRows, TileRows
from irshap.ops.shape import Reshape
from irshap.pipeline.base import Semantics
from irshap.pipeline.rewriting import RewritingPass

__all__ = ["NarrowPositions"]


@rewrite(ScatterAdd)
def positions_of_a_scatter(node: Node, x: Value, index: Value) -> Replacement:
    """scatter_add(x, i) = scatter_add(x, i in 32 bits)."""
    op = node.op
    assert isinstance(op, ScatterAdd)
    if index.dtype is not DType.I64 or not isinstance(op.size, int) or op.size >= 2**31:
        return NoMatch("32 bits don't count the places, or are there")
    return emit1(op, x, _narrowed(index))


def _narrowed(index: Value) -> Value:
    """In 32 bits; cast before it is copied or chosen from, where there is least of it."""
    node = index.node
    if isinstance(node.op, Cast) and node.operands[0].dtype is DType.I32:
        return node.operands[0]
    if isinstance(node.op, Reshape | Expand | RepeatRows | TileRows):
        return emit1(node.op, *map(_narrowed, node.operands))
    if isinstance(node.op, Where):
        condition, *choices = node.operands
        return emit1(node.op, condition, *map(_narrowed, choices))
    return cast(index, DType.I32)


@dataclass(frozen=True)
class NarrowPositions(RewritingPass):
    """Max-pooling adds each window's share at the larger maximum of sample and reference.

    Positions in a plane need 32 bits: half of what is chosen from and copied for each pair.
    """

    name = "narrow-positions"
    semantics = Semantics.PRESERVES
    into_bodies = True
    rules = (positions_of_a_scatter,)
