"""sink-reshapes: elementwise ops compute in the shape that layers have, and reshapes go behind them."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Node, Value
from irshap.ir.dims import Shape, same, same_shape
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ops.families import ZippedElementwise
from irshap.ops.shape import Reshape, reshape
from irshap.passes.rules.reshapes import reshape_of_reshape
from irshap.pipeline.base import Semantics
from irshap.pipeline.rewriting import RewritingPass

__all__ = ["SinkReshapes"]


@rewrite(ZippedElementwise)  # type: ignore[type-abstract]
def reshaped_operand(node: Node, *operands: Value) -> Replacement:
    """f(reshape(x), y) = reshape(f(x, reshape(y))), where the reshape splits leading axes of x."""
    outer = node.results[0].shape
    split = next((v for v in operands if isinstance(v.node.op, Reshape) and _splits(v)), None)
    if split is None or not same_shape(split.shape, outer):
        return NoMatch("no operand of the result's shape had its leading axes split")
    inner = split.node.operands[0].shape
    kept = _common_end(inner, outer)
    merged = []
    for value in operands:
        lead = value.rank - kept
        if lead <= 0:
            merged.append(value)
        elif same_shape(value.shape[:lead], outer[: len(outer) - kept]):
            merged.append(reshape(value, (*inner[: len(inner) - kept], *value.shape[lead:])))
        elif all(same(d, 1) for d in value.shape[:lead]):
            merged.append(reshape(value, (1, *value.shape[lead:])))
        else:
            return NoMatch("an operand is broadcast along some of the leading axes")
    return reshape(emit1(node.op, *merged), outer)


def _splits(value: Value) -> bool:
    """Whether a reshape only splits the first axis of its operand."""
    source = value.node.operands[0]
    return 0 < source.rank < value.rank and _common_end(source.shape, value.shape) == source.rank - 1


def _common_end(a: Shape, b: Shape) -> int:
    """How many of the last axes of two shapes are the same."""
    pairs = list(zip(reversed(a), reversed(b), strict=False))
    return next((i for i, (p, q) in enumerate(pairs) if not same(p, q)), len(pairs))


@dataclass(frozen=True)
class SinkReshapes(RewritingPass):
    """Keeps cotangents in the shape of the layers that they come from and go to, [N * R, ...].

    Multipliers have an axis for samples and one for references, so that one side broadcasts against the
    other; layers have one for both.  A reshape moves no data, but is a node: one on the multiplier
    takes the place of two on the cotangent.
    """

    name = "sink-reshapes"
    semantics = Semantics.PRESERVES
    into_bodies = True
    rules = (reshape_of_reshape, reshaped_operand)
