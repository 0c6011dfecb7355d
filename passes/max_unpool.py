"""max-unpool: what goes to distinct places, as in max-pooling without overlap, is set there, not added."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Node, Value
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ir.types import DType
from irshap.ops.generate import Arange
from irshap.ops.index import ScatterAdd, Unpool
from irshap.ops.shape import reshape
from irshap.pipeline.base import Semantics
from irshap.pipeline.rewriting import RewritingPass

__all__ = ["MaxUnpool"]


@rewrite(ScatterAdd)
def scatter_to_distinct_places(node: Node, x: Value, index: Value) -> Replacement:
    """scatter_add(x, i) = unpool(x, i + size row): rows and channels counted through."""
    op = node.op
    assert isinstance(op, ScatterAdd)
    if not op.distinct or op.axis != 2 or x.rank != 3:
        return NoMatch("its elements may meet, or it is no plane of rows and channels")
    rows, channels, count = x.shape
    if x.dtype is not DType.F32 or not (isinstance(op.size, int) and isinstance(count, int)):
        return NoMatch("ONNX Runtime's MaxUnpool is in float32, and for planes of a known size")
    starts = reshape(emit1(Arange(0, op.size, rows * channels)), (rows, channels, 1))
    return emit1(Unpool(op.size), x, index + starts)


@dataclass(frozen=True)
class MaxUnpool(RewritingPass):
    """ScatterAdd to distinct places becomes MaxUnpool.

    ONNX Runtime's CPU provider runs it faster than ScatterElements; its CUDA provider has none.
    """

    name = "max-unpool"
    semantics = Semantics.PRESERVES
    into_bodies = True
    rules = (scatter_to_distinct_places,)
