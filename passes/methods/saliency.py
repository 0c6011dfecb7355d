"""saliency: the size of the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Op, Point, Value
from irshap.ops.arithmetic import Abs
from irshap.passes.methods.base import LocalMethod, Sum

__all__ = ["Saliency"]


@dataclass(frozen=True)
class Saliency(LocalMethod):
    """|dT/dx| (Simonyan, Vedaldi, Zisserman 2014, arXiv:1312.6034), of the shape of the input.

    Their map of an image is its largest value over the channels; here channels stay apart.
    """

    name = "saliency"
    sums_to = Sum.NOTHING
    tokens = False

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return op.derivative(cts, at, wrt)

    def score(self, m: Value, x: Value) -> Value:
        return emit1(Abs(), m)

    @classmethod
    def cases(cls) -> Iterable[Saliency]:
        yield cls()
