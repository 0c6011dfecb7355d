"""Numbers kept apart by their last digit, so that a quotient of differences needs no guard.

(f(x) - f(r)) / (x - r) is exact where f returns its operand or a constant, but 0/0 at x = r.  With x rounded
to an even last binary digit and r to an odd one they never meet: where both are on one piece the quotient is
its slope, and no comparison passes over the pairs.  A number moves by at most three units in its last place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Precision, Sample, Value, tensors
from irshap.ir.types import Array, Type
from irshap.ops.arithmetic import least
from irshap.ops.families import NonDifferentiable, ZippedElementwise

__all__ = ["Even", "Odd", "apart", "lone_quotient", "smallest", "step"]


def smallest(dtype: np.dtype[np.floating]) -> float:
    """An odd number from which on a unit in the last place is a normal number."""
    limits = np.finfo(dtype)
    return float(limits.tiny / limits.eps * 2 * (1 + limits.eps))


def step(dtype: np.dtype[np.floating]) -> float:
    """x + step x is x's neighbour: step x is 0.7 to 1.4 units in the last place, whatever x's digits."""
    return float(np.finfo(dtype).eps) * 0.7


class _Rounding(NonDifferentiable, ZippedElementwise, family=True):
    """Moves the last digits of one operand."""

    precision = Precision.FULL
    reason = "it moves last digits, inside of multipliers"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        return (x,)


@dataclass(frozen=True)
class Even(_Rounding):
    """x rounded to an even last digit: 4 (x - (x - x/4)), whose inner difference has two bits less for x/4.

    As Dekker 1971 splits numbers; x/4 is exact, so that fused multiply-adds give the same.
    """

    mnemonic = "even"
    cost = 4

    def numpy(self, *arrays: Array) -> Array:
        (x,) = arrays
        return np.asarray((x - (x - x * 0.25)) * 4)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (_numbers(),), batch=(0,))


@dataclass(frozen=True)
class Odd(_Rounding):
    """The neighbour, away from 0, of `even`, and a smallest number for what is too close to 0 to have one.

    `positive`: the sign of that number.
    """

    positive: bool
    mnemonic = "odd"
    cost = 9

    def numpy(self, *arrays: Array) -> Array:
        even = Even().numpy(*arrays)
        least = even.dtype.type(smallest(even.dtype))
        moved = even + even * even.dtype.type(step(even.dtype))
        return np.asarray(np.where(np.abs(even) < least, least if self.positive else -least, moved))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for positive in (False, True):
            yield Sample(cls(positive), (_numbers(),), batch=(0,))


def apart(x: Value, x0: Value, *, positive: bool = False) -> tuple[Value, Value]:
    """Both, moved so that they differ; where both are 0, x0 has the sign `positive`."""
    return emit1(Even(), x), emit1(Odd(positive), x0)


def lone_quotient(dy: Value, dx: Value, slope0: Value) -> Value:
    """dy / dx, and slope0 where both are 0: a smallest number is added to dx, and slope0 times it to dy.

    For differences of copies, to a single reference that is `Odd`, and so not too close to 0: slope0 follows
    from that alone, and is a constant.  Two passes more than the quotient, where `Even` takes four.
    """
    number = least(dx.dtype)
    return (dy + slope0 * number) / (dx + number)


def _numbers() -> Array:
    return np.array([[0.0, 0.1, -1 / 3, 1.0], [-1.0, 6.0, 1e-300, 1e30], [2 / 3, -0.7, 1e-20, 255.0]])
