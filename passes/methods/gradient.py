"""gradient: every pullback becomes the derivative at the sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irshap.ir.core import Op, Point, Value
from irshap.passes.methods.base import LocalMethod, Sum

__all__ = ["Gradient"]


@dataclass(frozen=True)
class Gradient(LocalMethod):
    """The signed gradient of the target by each source: every pullback becomes the transposed Jacobian."""

    name = "gradient"
    sums_to = Sum.NOTHING
    tokens = False

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return op.derivative(cts, at, wrt)

    def score(self, m: Value, x: Value) -> Value:
        return m

    @classmethod
    def cases(cls) -> Iterable[Gradient]:
        yield cls()
