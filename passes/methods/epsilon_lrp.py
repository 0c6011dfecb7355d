"""epsilon-lrp: layer-wise relevance propagation, as a chain rule with another slope for nonlinearities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Op, Point, Value
from irshap.ops.arithmetic import where
from irshap.ops.families import Elementwise
from irshap.ops.logic import Less
from irshap.ops.piecewise import Piecewise
from irshap.ops.program import constant
from irshap.passes.methods.base import LocalMethod, Sum

__all__ = ["EpsilonLrp"]


@dataclass(frozen=True)
class EpsilonLrp(LocalMethod):
    """Epsilon-LRP (Bach et al. 2015) as the modified chain rule of Ancona et al. 2018, proposition 1.

    An elementwise nonlinearity y = f(z) gets the slope f(z) / (z + epsilon s), s = 1 for z >= 0 and -1 below;
    all other ops (max-pooling, softmax, products) keep their derivative.  The input gets x times that
    "gradient".
    """

    epsilon: float = 1e-4
    name = "epsilon-lrp"
    sums_to = Sum.NOTHING

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise ValueError(f"epsilon is {self.epsilon}, and must be a positive number")

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        if not isinstance(op, Elementwise | Piecewise) or len(wrt) > 1:
            return op.derivative(cts, at, wrt)
        z, y = at.operands[wrt[0]], at.results[0]
        below = emit1(Less(), z, constant(0.0, z.dtype))
        away = where(below, -self.epsilon, constant(self.epsilon, z.dtype))
        return (cts[0] * y / (z + away),)

    def score(self, m: Value, x: Value) -> Value:
        return m * x

    @classmethod
    def cases(cls) -> Iterable[EpsilonLrp]:
        yield cls()
        yield cls(epsilon=0.1)
