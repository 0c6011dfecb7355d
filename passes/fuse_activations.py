"""fuse-activations: an activation function that a model spells out becomes one op with one chord."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Node, Value
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ir.types import DType
from irshap.ops.arithmetic import Add, Mul
from irshap.ops.elementwise import Sigmoid
from irshap.ops.gated import Erf, Gelu, Swish
from irshap.passes.rules.activations import number, scaled
from irshap.pipeline.base import Semantics
from irshap.pipeline.rewriting import RewritingPass

__all__ = ["FuseActivations"]


@rewrite(Mul)
def swish(node: Node, a: Value, b: Value) -> Replacement:
    """x * sigmoid(x) = swish(x)."""
    for x, gate in ((a, b), (b, a)):
        if isinstance(gate.node.op, Sigmoid) and gate.node.operands[0] is x:
            return emit1(Swish(1.0), x)
    return NoMatch("no operand is the sigmoid of the other")


@rewrite(Mul)
def gelu(node: Node, a: Value, b: Value) -> Replacement:
    """x (1 + erf(x/sqrt 2)) 1/2 = gelu(x), in whatever order the three are multiplied."""
    for factor, rest in ((a, b), (b, a)):
        if (scale := number(factor)) is not None and isinstance(rest.node.op, Mul):
            parts = [scaled(v) for v in rest.node.operands]
            break
    else:
        scale, parts = 1.0, [scaled(a), scaled(b)]
    for (first, x), (second, gate) in (parts, parts[::-1]):
        if scale * first * second == 0.5 and _is_normal(gate, x):
            return emit1(Gelu(tanh=False), x)
    return NoMatch("it isn't half of x and 1 + erf(x/sqrt 2)")


def _is_normal(gate: Value, x: Value) -> bool:
    """Whether a value is 1 + erf(x/sqrt 2), to the rounding of x.

    The root that torch exports is float32's: in float64, models with it compute something else.
    """
    if not isinstance(gate.node.op, Add):
        return False
    for one, curve in (gate.node.operands, gate.node.operands[::-1]):
        if number(one) == 1.0 and isinstance(curve.node.op, Erf):
            factor, inner = scaled(curve.node.operands[0])
            rounding = 1e-14 if x.dtype is DType.F64 else 1e-6
            return inner is x and abs(factor * 2**0.5 - 1) < rounding
    return False


RULES = [swish, gelu]


@dataclass(frozen=True)
class FuseActivations(RewritingPass):
    """Recognizes x sigmoid(x), and GELU spelled with erf, before the derivative is taken.

    A chain of complete rules on one scalar gives Df/D, so the fused chord equals that of the parts, with far
    fewer passes over the pairs of samples and references.
    """

    name = "fuse-activations"
    semantics = Semantics.PRESERVES
    rules = RULES
