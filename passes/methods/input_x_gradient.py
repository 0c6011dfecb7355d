"""input-x-gradient: the gradient times the input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irshap.ir.core import Op, Point, Value
from irshap.passes.methods.base import LocalMethod, Sum

__all__ = ["InputXGradient"]


@dataclass(frozen=True)
class InputXGradient(LocalMethod):
    """x dT/dx (Shrikumar et al. 2016), of a token the sum over its embedding.

    Where the target T is homogeneous of degree 1 in x (no biases; ReLU, max- and average pooling) it sums to
    T(x) by Euler's theorem; elsewhere it sums to nothing in particular.
    """

    name = "input-x-gradient"
    sums_to = Sum.NOTHING

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return op.derivative(cts, at, wrt)

    def score(self, m: Value, x: Value) -> Value:
        return m * x

    @classmethod
    def cases(cls) -> Iterable[InputXGradient]:
        yield cls()
