"""The largest and the smallest element over axes: max-pooling's rule with one window (rules.md section 3)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Op, Point, Precision, Sample, Value
from irshap.ir.degrees import Degree
from irshap.ir.dims import Shape
from irshap.ir.types import Array
from irshap.ops.arithmetic import maximum, minimum, share_quotient
from irshap.ops.index import ArgMax, ScatterAdd
from irshap.ops.parts import Parts, Routed, Sharing
from irshap.ops.program import constant
from irshap.ops.reduce import ReduceSum, Reduction, over
from irshap.ops.samples import randn
from irshap.ops.shape import reshape, transpose

__all__ = ["ReduceMax", "ReduceMin", "from_rows", "to_rows"]


def to_rows(x: Value, axes: Sequence[int]) -> Value:
    """`x` with `axes` gathered in one last axis."""
    kept = [a for a in range(x.rank) if a not in axes]
    return reshape(transpose(x, [*kept, *axes]), (*(x.shape[a] for a in kept), over(x, axes)))


def from_rows(rows: Value, axes: Sequence[int], shape: Shape) -> Value:
    """What `to_rows` made of a tensor of `shape`, undone."""
    order = [*(a for a in range(len(shape)) if a not in axes), *axes]
    moved = reshape(rows, [shape[a] for a in order])
    return transpose(moved, [order.index(a) for a in range(len(shape))])


class _Extreme(Reduction, family=True):
    precision = Precision.DATA

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    @abstractmethod
    def beyond(self, a: Value, b: Value) -> Value:
        """The more extreme of two values."""

    def _placed(self, share: Value, x: Value, shape: Shape) -> Value:
        """A number for each result, at the element of `x` that is the result (the first of equals)."""
        rows = to_rows(x if isinstance(self, ReduceMax) else -x, self.axes)
        position = emit1(ArgMax((rows.rank - 1,), keepdims=True), rows)
        placed = emit1(ScatterAdd(rows.rank - 1, rows.shape[-1]), reshape(share, position.shape), position)
        return from_rows(placed, self.axes, shape)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return (self._placed(cts[0], at.operands[0], at.operands[0].shape),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0, y, y0 = at.operands[0], at0.operands[0], at.results[0], at0.results[0]
        # ct (M - y0) for the sample's element, ct (y - M) for the reference's: they sum to ct (y - y0)
        top = self.beyond(y, y0)
        gain = self._placed(cts[0] * (top - y0), x, x.shape)
        loss = self._placed(cts[0] * (y - top), x0, x.shape)
        return (share_quotient(gain + loss, x - x0),)

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        x = at.operands[0]
        (rates,) = self.secant([constant(1.0, x.dtype)], at, at0, (0,))
        total = ReduceSum(self.axes, self.keepdims)
        return Routed(
            lambda part: emit1(total, rates * part), lambda m: rates * reshape(m, self.kept(x.shape))
        )

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        build: Callable[..., Op] = cls
        yield Sample(build((1,), True), (randn(3, 5),), (0,), (0,))
        yield Sample(build((1, 3), False), (randn(2, 3, 2, 4),), (0,), (2,))
        yield Sample(build((0, 1), True), (randn(2, 3),), (0,))
        yield Sample(build((2,), False), (np.array([[[1, 7, 7], [0, 0, -1]]], np.float32),), batch=(0,))
        yield Sample(build((1,), True), (np.array([[3, -1], [2, 5]]),), batch=(0,))


@dataclass(frozen=True)
class ReduceMax(_Extreme):
    """y = the largest x over axes."""

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_max"

    def beyond(self, a: Value, b: Value) -> Value:
        return maximum(a, b)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        least = bounds(arrays[0])[0]
        return (np.asarray(arrays[0].max(axis=self.axes, keepdims=self.keepdims, initial=least)),)


@dataclass(frozen=True)
class ReduceMin(_Extreme):
    """y = the smallest x over axes."""

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_min"

    def beyond(self, a: Value, b: Value) -> Value:
        return minimum(a, b)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        most = bounds(arrays[0])[1]
        return (np.asarray(arrays[0].min(axis=self.axes, keepdims=self.keepdims, initial=most)),)


def bounds(x: Array) -> tuple[float, float]:
    """The least and the largest value of an element type: what an empty maximum and minimum are."""
    if x.dtype.kind == "b":
        return False, True
    if x.dtype.kind in "iu":
        return np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
    return -np.inf, np.inf
