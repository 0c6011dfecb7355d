"""Running sums, and triangles of matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import Axes, MixesBatch, Point, Precision, Sample, Stacked, Value, numel, require, tensors
from irshap.ir.dims import Dim
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.families import Linear
from irshap.ops.samples import randn

__all__ = ["CumSum", "Trilu"]


@dataclass(frozen=True)
class CumSum(Linear):
    """y_i = sum of x_j for j <= i along `axis`; for j < i if `exclusive`; from the other end if `reverse`."""

    axis: int
    exclusive: bool = False
    reverse: bool = False
    mnemonic = "cum_sum"
    precision = Precision.FULL
    nonnegative = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(0 <= self.axis < x.rank, f"axis {self.axis} is not one of {x.rank}")
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x = np.flip(arrays[0], self.axis) if self.reverse else arrays[0]
        y = np.cumsum(x, axis=self.axis, dtype=x.dtype)
        if self.exclusive:
            y = np.roll(y, 1, axis=self.axis)
            y[(slice(None),) * self.axis + (slice(0, 1),)] = 0
        return (np.ascontiguousarray(np.flip(y, self.axis) if self.reverse else y),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return numel(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("sums along the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return emit1(replace(self, reverse=not self.reverse), ct)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1), (randn(2, 5),), (0,), (0,))
        yield Sample(cls(1, exclusive=True), (randn(2, 4, 3),), (0,), (2,))
        yield Sample(cls(2, exclusive=True, reverse=True), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls(0, reverse=True), (randn(4),), (0,))


@dataclass(frozen=True)
class Trilu(Linear):
    """Each matrix (the last two axes) on and above its diagonal `k`, or on and below it; 0 elsewhere."""

    upper: bool
    k: int = 0
    mnemonic = "trilu"
    precision = Precision.DATA
    nonnegative = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(x.rank >= 2, "takes matrices")
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return ((np.triu if self.upper else np.tril)(arrays[0], self.k),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] is not None and axes[0] >= operands[0].rank - 2:
            raise MixesBatch("treats the rows of the batch differently")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(self, *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return emit1(self, ct)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(True), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls(False, -1), (randn(2, 4, 3),), (0,), (0,))
        yield Sample(cls(True, 2), (randn(3, 3),), (0,))
        yield Sample(cls(False, 1), (np.arange(8).reshape(2, 2, 2),), batch=(0,))
