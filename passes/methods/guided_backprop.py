"""guided-backprop: the gradient, of which every ReLU lets through only what is positive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irshap.ir.core import Op, Point, Value
from irshap.ops.arithmetic import maximum
from irshap.ops.elementwise import Relu
from irshap.passes.methods.base import LocalMethod, Sum

__all__ = ["GuidedBackprop"]


@dataclass(frozen=True)
class GuidedBackprop(LocalMethod):
    """Guided backpropagation (Springenberg et al. 2015, arXiv:1412.6806).

    Where a ReLU's result has the multiplier g, its operand z gets 1(z > 0) max(g, 0).  All other ops keep
    their derivative, LeakyReLU, clips and smooth activations among them, as in Captum.
    """

    name = "guided-backprop"
    sums_to = Sum.NOTHING
    tokens = False

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        if isinstance(op, Relu):
            cts = [maximum(ct, 0.0) for ct in cts]
        return op.derivative(cts, at, wrt)

    def score(self, m: Value, x: Value) -> Value:
        return m

    @classmethod
    def cases(cls) -> Iterable[GuidedBackprop]:
        yield cls()
