"""Reductions through logarithms, and the product over axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import NoLocalRule, Point, Precision, Sample, Value, numel
from irshap.ir.dims import Dim
from irshap.ir.types import Array, TensorType
from irshap.ops.arithmetic import Abs, Mul, maximum, where
from irshap.ops.composite import Composite
from irshap.ops.elementwise import Exp, Log, phi
from irshap.ops.extremum import to_rows
from irshap.ops.logic import Equal
from irshap.ops.reduce import ReduceSum, Reduction
from irshap.ops.samples import randn
from irshap.ops.shape import reshape, split

__all__ = ["ReduceLogSum", "ReduceLogSumExp", "ReduceProd"]

MOST_FACTORS = 64
"""Products of more factors are refused: their rule takes as many steps."""


@dataclass(frozen=True)
class ReduceLogSum(Composite, Reduction):
    """y = ln(sum of x over axes)."""

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_log_sum"
    precision = Precision.FULL

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            total = arrays[0].sum(axis=self.axes, keepdims=self.keepdims, dtype=arrays[0].dtype)
            return (np.asarray(np.log(total)),)

    def decompose(self, *operands: Value) -> tuple[Value, ...]:
        return (emit1(Log(), emit1(ReduceSum(self.axes, self.keepdims), operands[0])),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1,), True), (np.abs(randn(3, 4)) + 0.5,), (0,), (0,))
        yield Sample(cls((0, 2), False), (np.abs(randn(2, 3, 4)) + 0.5,), (0,), (1,))


def apart(a: Value, b: Value) -> Value:
    """|a - b|, and 0 where they are equal: equal infinities, as masks have them, are no NaN."""
    return emit1(Abs(), where(emit1(Equal(), a, b), 0.0, a - b))


@dataclass(frozen=True)
class ReduceLogSumExp(Reduction):
    """l = ln(sum of e^x) over axes; slope e^(x - l).

    Chord exp(max(x, r) - max(l, l0)) phi(|x - r|) / phi(|l - l0|): complete and finite (rules.md section 5).
    """

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_log_sum_exp"
    precision = Precision.FULL

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        top = x.max(axis=self.axes, keepdims=True, initial=-np.inf)
        shift = np.where(np.isfinite(top), top, 0)
        with np.errstate(divide="ignore"):
            y = np.log(np.exp(x - shift).sum(axis=self.axes, keepdims=True, dtype=x.dtype)) + shift
        return (np.asarray(y if self.keepdims else y.squeeze(self.axes), dtype=x.dtype),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 4 * numel(operands) + 2 * numel(results)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x = at.operands[0]
        ct, y = (reshape(v, self.kept(x.shape)) for v in (cts[0], at.results[0]))
        return (ct * emit1(Exp(), x - y),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0 = at.operands[0], at0.operands[0]
        ct, y, y0 = (reshape(v, self.kept(x.shape)) for v in (cts[0], at.results[0], at0.results[0]))
        top = emit1(Exp(), maximum(x, x0) - maximum(y, y0))
        return (ct / phi(apart(y, y0)) * (top * phi(apart(x, x0))),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1,), True), (randn(3, 4),), (0,), (0,))
        yield Sample(cls((0, 2), False), (randn(2, 3, 4) * 30,), (0,), (1,))
        yield Sample(cls((1,), False), (randn(2, 3) - 1e9,), batch=(0,))


@dataclass(frozen=True)
class ReduceProd(Composite, Reduction):
    """y = x_1 x_2 ... x_n over axes, multiplied from the left in row-major order.

    Its rule is that of the products one after the other, by the midpoints of both factors: no division.
    """

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_prod"
    precision = Precision.FULL

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.asarray(arrays[0].prod(axis=self.axes, keepdims=self.keepdims, dtype=arrays[0].dtype)),)

    def decompose(self, *operands: Value) -> tuple[Value, ...]:
        (x,) = operands
        rows = to_rows(x, self.axes)
        count = rows.shape[-1]
        if not isinstance(count, int) or not 1 <= count <= MOST_FACTORS:
            raise NoLocalRule(f"a product of {count} factors; up to {MOST_FACTORS} are taken apart")
        result, *rest = split(rows, rows.rank - 1, [1] * count)
        for factor in rest:
            result = emit1(Mul(), result, factor)
        (shape,) = self.infer(x.type)
        return (reshape(result, shape.dims),)  # type: ignore[union-attr]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1,), True), (randn(3, 4),), (0,), (0,))
        yield Sample(cls((0, 2), False), (randn(2, 3, 2) * 2,), (0,), (1,))
        yield Sample(cls((1,), False), (np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 1.5]]),), (0,), (0,))
        yield Sample(cls((1,), True), (randn(2, 1),), (0,), (0,))
        yield Sample(cls((0,), True), (np.array([[3, -1], [2, 5]]),))
