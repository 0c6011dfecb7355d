"""p-norms over axes and over windows, and sums of squares: closed forms without cancellation.

A chord of |x|^p is that of |x| times P(|x|, |r|), with P(a, b) = sum of a^k b^(p-1-k) for k < p; that of the
root is 1 / P(y, y0).  Composed, nothing cancels, and a row of zeros needs no epsilon.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Point, Precision, Sample, Value, numel, require
from irshap.ir.degrees import Degree
from irshap.ir.dims import Dim
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.arithmetic import Abs, maximum, quotient_or_zero
from irshap.ops.reduce import Reduction
from irshap.ops.resample import Windowed
from irshap.ops.samples import randn
from irshap.ops.shape import reshape

__all__ = ["LpPool", "ReduceLp", "ReduceSumSquare"]


def _tiny(x: Value) -> float:
    return float(np.finfo(x.dtype.numpy).tiny)


def _magnitude(x: Value) -> Value:
    return emit1(Abs(), x)


def power_sum(a: Value, b: Value, p: int) -> Value:
    """P(a, b), for p >= 2."""
    total, power = a + b, b
    for _ in range(p - 2):
        power = power * b
        total = a * total + power
    return total


def power_chord(x: Value, x0: Value, p: int) -> Value:
    """(|x|^p - |r|^p) / (x - r)."""
    if p == 2:
        return x + x0
    size, size0 = _magnitude(x), _magnitude(x0)
    sign = Abs().chord(x, x0, size, size0)
    return sign if p == 1 else sign * power_sum(size, size0, p)


def power_slope(x: Value, p: int) -> Value:
    """The derivative of |x|^p, divided by p: x |x|^(p-2)."""
    if p == 1:
        return Abs().slope(x, x)
    size, total = _magnitude(x), x
    for _ in range(p - 2):
        total = total * size
    return total


@dataclass(frozen=True)
class ReduceLp(Reduction):
    """y = sum |x|, or sqrt(sum x^2): slope x / y, chord (x + r) / (y + y0), and 0 where all are 0."""

    p: int
    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_lp"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        require(self.p in (1, 2), "only 1- and 2-norms")
        return super().infer(*types)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        terms = np.abs(x) if self.p == 1 else x * x
        total = terms.sum(axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)
        return (np.asarray(total if self.p == 1 else np.sqrt(total), dtype=x.dtype),)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 2 * numel(operands) + numel(results)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x = at.operands[0]
        ct, y = (reshape(v, self.kept(x.shape)) for v in (cts[0], at.results[0]))
        return (ct * (power_slope(x, 1) if self.p == 1 else x / maximum(y, _tiny(y))),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0 = at.operands[0], at0.operands[0]
        ct, y, y0 = (reshape(v, self.kept(x.shape)) for v in (cts[0], at.results[0], at0.results[0]))
        if self.p == 1:
            return (ct * power_chord(x, x0, 1),)
        return (ct * ((x + x0) / maximum(y + y0, _tiny(y))),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, (1,), True), (randn(3, 4),), (0,), (0,))
        yield Sample(cls(2, (0, 2), False), (randn(2, 3, 4),), (0,), (1,))
        yield Sample(cls(1, (2, 3), True), (randn(2, 3, 3, 2),), (0,), (0,))


@dataclass(frozen=True)
class ReduceSumSquare(Reduction):
    """y = sum of x^2 over axes; slope 2x, chord x + r."""

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_sum_square"
    precision = Precision.FULL

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.asarray((x * x).sum(axis=self.axes, keepdims=self.keepdims, dtype=x.dtype)),)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return None if degrees[0] is None else 2 * degrees[0]

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 2 * numel(operands)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.secant(cts, at, at, wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0 = at.operands[0], at0.operands[0]
        return (reshape(cts[0], self.kept(x.shape)) * (x + x0),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1,), True), (randn(3, 4),), (0,), (0,))
        yield Sample(cls((0, 2), False), (randn(2, 3, 4),), (0,), (1,))


@dataclass(frozen=True)
class LpPool(Windowed):
    """(sum |x|^p)^(1/p) of each window; padding counts as zeros."""

    p: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    mnemonic = "lp_pool"
    precision = Precision.FULL

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        return (np.asarray(self.summed(np.abs(x) ** self.p) ** (1 / self.p), dtype=x.dtype),)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, y = at.operands[0], at.results[0]
        root = power_slope(y, self.p)
        return (power_slope(x, self.p) * self.spread(quotient_or_zero(cts[0], root), x.shape[2:]),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0 = at.operands[0], at0.operands[0]
        share = cts[0]
        if self.p > 1:
            share = quotient_or_zero(share, power_sum(at.results[0], at0.results[0], self.p))
        return (power_chord(x, x0, self.p) * self.spread(share, x.shape[2:]),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(2, (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), (randn(2, 3, 4, 6),), (0,), (0,))
        yield Sample(cls(1, (3, 2), (1, 1), ((1, 1), (1, 0)), (1, 1)), (randn(2, 2, 5, 6),), (0,), (0,))
        yield Sample(cls(3, (3,), (2,), ((1, 1),), (1,)), (randn(2, 2, 9),), (0,), (0,))
        yield Sample(cls(2, (2, 3), (1, 2), ((0, 1), (1, 1)), (2, 1)), (randn(2, 2, 6, 7),), (0,), (0,))
