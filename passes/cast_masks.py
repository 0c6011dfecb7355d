"""cast-masks: what is 1 where a condition holds and 0 elsewhere is the condition, cast."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.core import Node, Value
from irshap.ir.dims import same_shape
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ops.arithmetic import Where
from irshap.ops.cast import cast
from irshap.ops.program import Constant
from irshap.pipeline.base import Semantics
from irshap.pipeline.rewriting import RewritingPass

__all__ = ["CastMasks"]


@rewrite(Where)
def mask_as_cast(node: Node, condition: Value, a: Value, b: Value) -> Replacement:
    """where(c, 1, 0) = cast(c)."""
    whole = same_shape(condition.shape, node.results[0].shape)
    if not (whole and _is_all(a, 1.0) and _is_all(b, 0.0)):
        return NoMatch("it chooses between other numbers than 1 and 0, or its condition broadcasts")
    return cast(condition, a.dtype)


def _is_all(value: Value, number: float) -> bool:
    op = value.node.op
    return isinstance(op, Constant) and bool((op.value.array == number).all())


@dataclass(frozen=True)
class CastMasks(RewritingPass):
    """Choices between 1 and 0, the slopes of ReLU and its kin, become casts.

    ONNX Runtime's kernels for Where read three operands, element by element; Cast reads one.
    """

    name = "cast-masks"
    semantics = Semantics.PRESERVES
    into_bodies = True
    rules = (mask_as_cast,)
