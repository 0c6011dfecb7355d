"""Reductions over axes, and broadcasting: a sum and an expansion are each other's adjoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    MixesBatch,
    Op,
    Point,
    Precision,
    Sample,
    Stacked,
    Value,
    numel,
    require,
    tensors,
)
from irshap.ir.dims import Dim, N, Shape, product, same
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.cast import Cast
from irshap.ops.families import Linear, broadcast
from irshap.ops.program import Dims, batch_from_shape, constant
from irshap.ops.samples import randn
from irshap.ops.shape import Move, reshape

__all__ = ["Expand", "ReduceMean", "ReduceSum", "Reduction", "number", "over", "unbroadcast"]


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

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        below = replace(self, axes=tuple(a + 1 for a in self.axes))  # type: ignore[type-var]
        return emit(below, *at.operands)

    def kept(self, shape: Shape) -> Shape:
        """`shape` with reduced axes as 1: where a cotangent stands against the operand."""
        return tuple(1 if a in self.axes else d for a, d in enumerate(shape))

    def spread(self, ct: Value, shape: Shape) -> Value:
        """`ct` at every element of the operand."""
        return emit1(Expand(shape), reshape(ct, self.kept(shape)))


def number(dim: Dim, dtype: DType) -> Value:
    """A dimension as a float scalar of the graph."""
    if isinstance(dim, int):
        return constant(float(dim), dtype)
    return emit1(Cast(dtype), emit1(Dims((dim,), scalar=True)))


def over(x: Value, axes: Sequence[int]) -> Dim:
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

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
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

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        x = at.operands[0]
        return self.spread(ct / number(over(x, self.axes), x.dtype), x.shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1, 2), True), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls((1,), False), (randn(2, 3, 4),), (0,), (2,))


@dataclass(frozen=True)
class Expand(Move):
    """numpy's broadcast of the operand against `shape`."""

    shape: Shape
    mnemonic = "expand"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        return (x.with_shape(broadcast([x.dims, self.shape])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        shape = np.broadcast_shapes(arrays[0].shape, tuple(int(d) for d in self.shape))
        return (np.array(np.broadcast_to(arrays[0], shape), order="C"),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        made = batch_from_shape(results[0].dims)
        moved = None if axes[0] is None else axes[0] + results[0].rank - operands[0].rank
        if made is not None and moved is not None and made != moved:
            raise MixesBatch("repeats the whole batch")
        return (made if moved is None else moved,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        (x,) = at.operands
        rank = max(x.rank - 1, len(self.shape))
        x = reshape(x, (at.count, *[1] * (rank - x.rank + 1), *x.shape[1:]))
        return emit(Expand((at.count, *[1] * (rank - len(self.shape)), *self.shape)), x)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return unbroadcast(ct, at.operands[0].shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((2, 3, 4)), (randn(3, 1),), (0,))
        yield Sample(cls(()), (randn(),), (0,))
        yield Sample(cls((N, 4)), (randn(2, 1),), (0,), (0,))


def unbroadcast(ct: Value, shape: Shape) -> Value:
    """Sums `ct` over the axes along which a tensor of `shape` was broadcast: the adjoint of broadcasting."""
    extra = ct.rank - len(shape)
    axes = [*range(extra)]
    axes += [extra + i for i, d in enumerate(shape) if same(d, 1) and not same(ct.shape[extra + i], 1)]
    if axes:
        ct = emit1(ReduceSum(axes=tuple(axes), keepdims=True), ct)
    return reshape(ct, shape)
