"""Picking elements by index, and putting them back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    MixesBatch,
    NoLocalRule,
    Op,
    Point,
    Precision,
    Sample,
    Stacked,
    Value,
    require,
    tensors,
)
from irshap.ir.degrees import Degree, NotHomogeneous, fixed, joined
from irshap.ir.dims import Dim, Shape, product, same
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.families import NonDifferentiable
from irshap.ops.reduce import Reduction
from irshap.ops.samples import randn
from irshap.ops.shape import reshape

__all__ = ["ArgMax", "GatherElements", "Indexed", "ScatterAdd", "TopKIndices", "Unpool"]


class Indexed(Op, family=True):
    """Linear in operand 0, moved by the integer operand 1."""

    precision = Precision.DATA
    nonnegative = True

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def linear_in(self, varying: frozenset[int]) -> bool:
        return varying <= {0}

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        first, index, *rest = degrees
        if not fixed(index):
            raise NotHomogeneous("its indices change with scale")
        return joined([first, *rest])

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return tuple(self.adjoints(cts, at, i) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule("its indices vary between sample and reference: no local rule is complete")


def _elements_axes(axis: int, axes: Axes, operands: Sequence[TensorType]) -> int | None:
    found = {a for a in axes if a is not None}
    if not found:
        return None
    if len(found) > 1 or None in axes or axis in found:
        raise MixesBatch("picks rows across the batch")
    return axes[0]


@dataclass(frozen=True)
class GatherElements(Indexed):
    """y[..., i, ...] = x[..., index[..., i, ...], ...] along `axis`; the other axes agree."""

    axis: int
    mnemonic = "gather_elements"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index = tensors(types)
        fits = x.rank == index.rank and 0 <= self.axis < x.rank and index.dtype.is_integer
        others = [a for a in range(x.rank) if a != self.axis] if fits else []
        fits = fits and all(same(x.dims[a], index.dims[a]) for a in others)
        require(fits, f"indices {index} don't pick along axis {self.axis} of {x}")
        return (x.with_shape(index.dims),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.take_along_axis(arrays[0], arrays[1].astype(np.int64), axis=self.axis),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (_elements_axes(self.axis, axes, operands),)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(GatherElements(self.axis + 1), *at.led())

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return emit1(ScatterAdd(self.axis, at.operands[0].shape[self.axis]), ct, at.operands[1])

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1), (randn(2, 5), np.array([[1, 1, 4], [0, 3, 2]])), (0,), (0, 0))
        yield Sample(cls(0), (randn(3, 2), np.array([[2, 0], [2, 1], [2, 2], [0, 0]])), (0,))


@dataclass(frozen=True)
class ScatterAdd(Indexed):
    """y = zeros; y[..., index[..., i, ...], ...] += x[..., i, ...] along `axis`, of `size` elements.

    `distinct`: no two elements go to the same place.
    """

    axis: int
    size: Dim
    distinct: bool = False
    mnemonic = "scatter_add"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index = tensors(types)
        fits = len(x.dims) == len(index.dims) and all(map(same, x.dims, index.dims))
        require(fits and 0 <= self.axis < x.rank and index.dtype.is_integer, f"indices {index} don't fit {x}")
        return (x.with_shape((*x.dims[: self.axis], self.size, *x.dims[self.axis + 1 :])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, index = arrays
        y = np.zeros((*x.shape[: self.axis], int(self.size), *x.shape[self.axis + 1 :]), x.dtype)
        where = list(np.ogrid[tuple(slice(n) for n in x.shape)])
        where[self.axis] = index
        np.add.at(y, tuple(where), x)
        return (y,)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(operands[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (_elements_axes(self.axis, axes, operands),)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.led())

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return emit1(GatherElements(self.axis), ct, at.operands[1])

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 4), (randn(2, 3), np.array([[1, 1, 3], [0, 3, 2]])), (0,), (0, 0))
        yield Sample(cls(0, 3), (randn(4, 2), np.array([[2, 0], [2, 1], [2, 2], [0, 0]])), (0,))


@dataclass(frozen=True)
class Unpool(Indexed):
    """y[n, c, :] of `size` elements, flattened: zeros, but y[index[n, c, i]] = x[n, c, i].

    The indices count through the whole result, and no two are equal (ONNX's MaxUnpool).
    """

    size: int
    mnemonic = "unpool"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index = tensors(types)
        require(
            x.rank == 3 and index.dtype is DType.I64 and all(map(same, x.dims, index.dims)),
            f"indices {index} don't fit {x}",
        )
        planes = isinstance(x.dims[2], int) and x.dims[2] <= self.size
        require(planes, f"{x.dims[2]} elements don't fit into {self.size} distinct places")
        return (x.with_shape((*x.dims[:2], self.size)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, index = arrays
        y = np.zeros((*x.shape[:2], self.size), x.dtype)
        y.reshape(-1)[index] = x
        return (y,)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        raise MixesBatch("its indices count through all rows")

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        index = at.operands[1]
        flat = (reshape(v, (product(v.shape),)) for v in (ct, index))
        return reshape(emit1(GatherElements(0), *flat), index.shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(4), (randn(2, 1, 2), np.array([[[3, 0]], [[5, 6]]])), (0,))
        yield Sample(cls(3), (randn(1, 2, 1), np.array([[[2], [3]]])), (0,))


@dataclass(frozen=True)
class ArgMax(NonDifferentiable, Reduction):
    """The position of the largest element along one axis (the first of equals)."""

    axes: tuple[int, ...]
    keepdims: bool
    mnemonic = "argmax"
    precision = Precision.DATA
    positions = frozenset({0})
    result_dtype = DType.I64
    reason = "a position jumps: no local rule is complete"

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (axis,) = self.axes
        return (np.argmax(arrays[0], axis=axis, keepdims=self.keepdims).astype(np.int64),)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return 0.0

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1,), True), (randn(2, 5),), batch=(0,))
        yield Sample(cls((0,), False), (np.array([[1, 2], [1, 3]], np.float32),))


@dataclass(frozen=True)
class TopKIndices(NonDifferentiable):
    """The positions of the k largest elements along an axis, largest first."""

    axis: int
    k: int
    mnemonic = "top_k_indices"
    precision = Precision.DATA
    reason = "a position jumps: no local rule is complete"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        size = x.dims[self.axis]
        require(
            self.k >= 1 and (not isinstance(size, int) or self.k <= size), f"no {self.k} largest of {size}"
        )
        shape: Shape = (*x.dims[: self.axis], self.k, *x.dims[self.axis + 1 :])
        return (TensorType(DType.I64, shape),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        order = np.argsort(-arrays[0], axis=self.axis, kind="stable")
        return (np.take(order, np.arange(self.k), axis=self.axis).astype(np.int64),)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return 0.0

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(operands[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("ranks over the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.operands)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 2), (randn(2, 5),), batch=(0,))
