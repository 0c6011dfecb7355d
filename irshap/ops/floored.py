"""Quotients whose divisor may be nearly 0 in one world: x / max(|x|, epsilon), p / sum p."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import NoLocalRule, Point, Precision, Sample, Value
from irshap.ir.types import Array
from irshap.ops.activations import Clip
from irshap.ops.arithmetic import Abs, Div, maximum, where
from irshap.ops.families import ZippedElementwise
from irshap.ops.logic import LessOrEqual
from irshap.ops.program import constant
from irshap.ops.reduce import unbroadcast
from irshap.ops.samples import randn

__all__ = ["FlooredDiv", "PartOfSum"]


@dataclass(frozen=True)
class FlooredDiv(ZippedElementwise):
    """z = u / w, w = max(v, low): a division with a guard.

    For any share a, m_u = a/w + (1 - a)/w0 and m_w = -((1 - a) u + a u0) / (w w0) are complete.  A half is
    the rule of a division (rules.md section 4).  But where the guard holds in one world alone, w is no size
    of u there, and 1/low in the other world is far from anything: multipliers of 1/low would have to cancel.
    So the other world's w gets all of the share.
    """

    low: float
    mnemonic = "floored_div"
    precision = Precision.FULL
    cost = 2

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] / np.maximum(arrays[1], arrays[1].dtype.type(self.low)))

    def linear_in(self, varying: frozenset[int]) -> bool:
        return varying == {0}

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        if i != 0:
            raise NoLocalRule("not linear in the divisor")
        return unbroadcast(ct / maximum(at.operands[1], self.low), at.operands[0].shape)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        u, v = at.operands
        w = maximum(v, self.low)
        partial = {0: lambda: cts[0] / w, 1: lambda: -cts[0] * u / (w * w) * self._floor.slope(v, w)}
        return tuple(unbroadcast(partial[i](), at.operands[i].shape) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (u, v), (u0, v0) = at.operands, at0.operands
        w, w0 = maximum(v, self.low), maximum(v0, self.low)
        share = where(self._holds(v0), 1.0, where(self._holds(v), 0.0, constant(0.5, v.dtype)))
        rest = 1.0 - share
        partial = {
            0: lambda: cts[0] * (share / w + rest / w0),
            1: lambda: -cts[0] * (rest * u + share * u0) / (w * w0) * self._floor.chord(v, v0, w, w0),
        }
        return tuple(unbroadcast(partial[i](), at.operands[i].shape) for i in wrt)

    @property
    def _floor(self) -> Clip:
        return Clip(self.low, None)

    def _holds(self, v: Value) -> Value:
        return emit1(LessOrEqual(), v, constant(self.low, v.dtype))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        u, v = randn(2, 3, 4), np.abs(randn(2, 3, 4, seed=1)) + 0.1
        yield Sample(cls(1e-6), (u, v), (0, 1), (0, 0))
        yield Sample(cls(1e-6), (u, v[:, :1]), (0, 1), (0, 0))
        yield Sample(cls(1.0), (u, v), (0, 1), (0, 0))


@dataclass(frozen=True)
class PartOfSum(Div):
    """z = u / v where v is a sum of which u is a term: a division that shares out.

    Of the complete rules with a share a (see `FlooredDiv`) it is that of a = v^2 / (v^2 + v0^2): the world
    whose sum is larger has more to say.  Where the other sum is nearly 0, 1/v is no size of anything, and
    multipliers of that size would have to cancel.  These stay at the inverse of the larger sum:

        m_u = (v + v0) / (v^2 + v0^2),   m_v = -(v0 z + v z0) / (v^2 + v0^2)

    Where both sums are equal, that is the rule of a division.
    """

    mnemonic = "part_of_sum"

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (_, v), (_, v0) = at.operands, at0.operands
        z, z0 = at.results[0], at0.results[0]
        # squares of small sums would be 0
        size = maximum(emit1(Abs(), v), emit1(Abs(), v0))
        h, h0 = v / size, v0 / size
        whole = size * (h * h + h0 * h0)
        partial = {
            0: lambda: cts[0] * ((h + h0) / whole),
            1: lambda: -cts[0] * (h0 * z + h * z0) / whole,
        }
        return tuple(unbroadcast(partial[i](), at.operands[i].shape) for i in wrt)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        u = np.abs(randn(2, 3, 4)) + 0.1
        yield Sample(cls(), (u, u.sum(1, keepdims=True)), (0, 1), (0, 0))
        yield Sample(cls(), (u, u + 0.5), (0, 1), (0, 0))
