"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Axes, MixesBatch, Op, Point, Precision, Sample, numel, require, tensors
from irshap.ir.dims import Dim, Shape, product
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.families import Linear
from irshap.ops.program import constant
from irshap.ops.samples import randn

__all__ = ["ReduceMean", "ReduceSum", "Reduction", "over"]


class Reduction(Op, family=True):
    """One number for all elements along `axes` (sorted, not negative)."""

    axes: tuple[int, ...]
    keepdims: bool
    result_dtype: DType | None = None

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        fits = all(0 <= a < x.rank for a in self.axes) and list(self.axes) == sorted(set(self.axes))
        require(fits, f"axes {self.axes} are not sorted axes of {x}")
        dims: list[Dim] = []
        for axis, dim in enumerate(x.dims):
            if axis not in self.axes:
                dims.append(dim)
            elif self.keepdims:
                dims.append(1)
        return (TensorType(self.result_dtype or x.dtype, tuple(dims)),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return numel(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        axis = axes[0]
        if axis is None:
            return (None,)
        if axis in self.axes:
            raise MixesBatch("reduces over the batch")
        return (axis if self.keepdims else axis - sum(a < axis for a in self.axes),)

    def kept(self, shape: Shape) -> Shape:
        """`shape` with reduced axes as 1: where a cotangent stands against the operand."""
        return tuple(1 if a in self.axes else d for a, d in enumerate(shape))

    def spread(self, ct: Any, shape: Shape) -> Any:
        """`ct` at every element of the operand."""
        from irshap.ops.shape import Expand, reshape

        return emit1(Expand(shape), reshape(ct, self.kept(shape)))


def over(x: Any, axes: Sequence[int]) -> Dim:
    """How many elements of `x` one result of a reduction over `axes` gathers."""
    return product(x.shape[a] for a in axes)


@dataclass(frozen=True)
class ReduceSum(Linear, Reduction):
    """y = sum of x over axes."""

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_sum"
    precision = Precision.FULL
    nonnegative = True

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.asarray(arrays[0].sum(axis=self.axes, keepdims=self.keepdims, dtype=arrays[0].dtype)),)

    def adjoint(self, ct: Any, at: Point, i: int) -> Any:
        return self.spread(ct, at.operands[0].shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1, 2), True), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls((0, 2), False), (randn(2, 3, 4),), (0,), (1,))


@dataclass(frozen=True)
class ReduceMean(Linear, Reduction):
    """y = mean of x over axes."""

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "reduce_mean"
    precision = Precision.FULL
    nonnegative = True

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.asarray(arrays[0].mean(axis=self.axes, keepdims=self.keepdims, dtype=arrays[0].dtype)),)

    def adjoint(self, ct: Any, at: Point, i: int) -> Any:
        x = at.operands[0]
        return self.spread(ct / number(over(x, self.axes), x.dtype), x.shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1, 2), True), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls((1,), False), (randn(2, 3, 4),), (0,), (2,))


def number(dim: Dim, dtype: DType) -> Any:
    """A dimension as a float scalar of the graph."""
    from irshap.ops.cast import Cast
    from irshap.ops.program import Dims

    if isinstance(dim, int):
        return constant(float(dim), dtype)
    return emit1(Cast(dtype), emit1(Dims((dim,), scalar=True)))


__all__ += ["number"]
