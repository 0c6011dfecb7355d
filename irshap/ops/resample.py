"""Grids of another size: interpolation, and the mean of each window.

They share a room as each is the other's adjoint where windows don't overlap.  An interpolation is one matrix
for each axis, known when compiling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    LinearPart,
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
from irshap.ir.dims import Dim, N, Shape, divide, product, same, same_shape
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.cast import cast
from irshap.ops.conv import ConvTranspose
from irshap.ops.families import Linear
from irshap.ops.generate import Arange
from irshap.ops.linear import matmul
from irshap.ops.logic import Equal
from irshap.ops.program import Full, constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import reshape, transpose
from irshap.ops.window import padded, window_count, windows

__all__ = ["COORDINATES", "NEAREST", "AveragePool", "Resize", "Windowed"]

Number: TypeAlias = np.float32 | np.float64
Coordinate = Callable[[Array, Number, Number, Number], Array]
"""(position in the result, scale, old size, new size) -> position in the operand."""


def _symmetric(i: Array, scale: Number, old: Number, new: Number) -> Array:
    center = old / 2
    return np.asarray(center * (1 - new / (scale * old)) + (i + 0.5) / scale - 0.5)


COORDINATES: dict[str, Coordinate] = {
    "align_corners": lambda i, scale, old, new: i * 0 if new == 1 else i * (old - 1) / (new - 1),
    "asymmetric": lambda i, scale, old, new: i / scale,
    "half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5,
    "half_pixel_symmetric": _symmetric,
    "pytorch_half_pixel": lambda i, scale, old, new: (i + 0.5) / scale - 0.5 if new > 1 else i * 0,
}
NEAREST: dict[str, Callable[[Array], Array]] = {
    "ceil": np.ceil,
    "floor": np.floor,
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
}


@dataclass(frozen=True)
class Resize(Linear):
    """Values at other positions of each axis, by the nearest element, two neighbours or four (cubic).

    `sizes` is the result's shape.  `scales` are the factors that positions are computed with; without them,
    the quotients of the sizes.  An axis of the same size stays as it is.
    """

    mode: str
    sizes: Shape
    scales: tuple[float, ...] = ()
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    mnemonic = "resize"
    precision = Precision.HALF

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(
            len(self.sizes) == x.rank and len(self.scales) in (0, x.rank),
            f"needs a size for each axis of {x}",
        )
        known = self.mode in _WEIGHTS and self.coordinates in COORDINATES and self.nearest in NEAREST
        require(known, f"no {self.mode} interpolation by {self.coordinates}, {self.nearest}")
        return (x.with_shape(self.sizes),)

    def resized(self, shape: Shape) -> list[int]:
        """The axes that change.  Where no size does, runtimes copy, whatever the scales."""
        if same_shape(shape, self.sizes):
            return []
        scaled = self.scales or (1.0,) * len(shape)
        return [a for a, d in enumerate(shape) if not same(d, self.sizes[a]) or scaled[a] != 1]

    def matrix(self, axis: int, old: int, new: int, dtype: DType) -> Array:
        """W with y = W x along `axis`; positions are computed in `dtype`, as runtimes do."""
        kind = dtype.numpy.type if dtype is DType.F64 else np.float32
        scale = kind(self.scales[axis]) if self.scales else kind(new) / kind(old)
        position = COORDINATES[self.coordinates](np.arange(new, dtype=kind), scale, kind(old), kind(new))
        w = np.zeros((new, old))
        for index, weight in _WEIGHTS[self.mode](self, np.asarray(position, dtype=np.float64), old):
            np.add.at(w, (np.arange(new), np.clip(index, 0, old - 1).astype(np.int64)), weight)
        return w

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (y,) = arrays
        dtype = DType.of(y)
        for axis in self.resized(y.shape):
            w = self.matrix(axis, y.shape[axis], int(self.sizes[axis]), dtype)
            if self.mode == "nearest":
                y = np.take(y, w.argmax(1), axis=axis)
            else:
                y = np.moveaxis(np.tensordot(w.astype(y.dtype), y, axes=(1, axis)), 0, axis)
        return (np.ascontiguousarray(y, dtype=arrays[0].dtype),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        taps = {"nearest": 0, "linear": 2, "cubic": 4}[self.mode]
        return 2 * taps ** len(self.resized(operands[0].dims)) * product(results[0].dims) if taps else 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] in self.resized(operands[0].dims):
            raise MixesBatch("interpolates over the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        (x,) = at.operands
        if 0 in self.resized(x.shape[1:]):
            scales = self.scales and (1.0, *self.scales)
            return emit(replace(self, sizes=(at.count, *self.sizes), scales=scales), x)
        rows = reshape(x, (at.count * x.shape[1], *x.shape[2:]))
        y = emit1(replace(self, sizes=(rows.shape[0], *self.sizes[1:])), rows)
        return (reshape(y, (at.count, *self.sizes)),)

    def copies(self, axis: int, old: Dim, dtype: DType) -> int | None:
        """How many neighbours are copies of one element, where `axis` is only repeated."""
        times = divide(self.sizes[axis], old)
        if not isinstance(times, int) or self.mode != "nearest":
            return None
        # of an unknown size two examples are looked at: whole factors treat every element alike
        for size in (old,) if isinstance(old, int) else (3, 8):
            repeated = np.repeat(np.eye(size), times, axis=0)
            if not np.array_equal(self.matrix(axis, size, size * times, dtype), repeated):
                return None
        return times

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        shape = at.operands[0].shape
        axes = self.resized(shape)
        repeated = {a: self.copies(a, shape[a], ct.dtype) for a in axes}
        for axis in axes:
            if repeated[axis] is None:
                old, new = shape[axis], self.sizes[axis]
                if isinstance(old, int) and isinstance(new, int):
                    ct = transposed(self.matrix(axis, old, new, ct.dtype), ct, axis)
                else:
                    ct = transposed(self._open_matrix(axis, old, new, ct.dtype), ct, axis)
        counts = [repeated.get(axis) or 1 for axis in range(ct.rank)]
        return sum_of_copies(ct, counts)

    def _open_matrix(self, axis: int, old: Dim, new: Dim, dtype: DType) -> Value:
        """W' [old, new] where a size is only known at run time: what the op makes of the unit vectors."""
        if self.scales and 1 < self.scales[axis] < 2:
            # small sizes may stay as they are, which runtimes copy where no other axis changes
            raise NoLocalRule(f"the size of its axis {axis} is only known at run time")
        count = emit1(Arange(0, 1, old))
        unit = cast(emit1(Equal(), reshape(count, (old, 1)), reshape(count, (1, old))), dtype)
        scales = (1.0, 1.0, 1.0, self.scales[axis]) if self.scales else ()
        one_axis = replace(self, sizes=(1, 1, old, new), scales=scales)
        return reshape(emit1(one_axis, reshape(unit, (1, 1, old, old))), (old, new))

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        if self.mode == "cubic":
            raise NoLocalRule("RevealCancel has no rule for cubic interpolation, whose weights change sign")
        return self, tuple(operands)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x = randn(2, 3, 4, 5)
        yield Sample(
            cls("nearest", (N, 3, 8, 10), (1.0, 1.0, 2.0, 2.0), "asymmetric", "floor"), (x,), (0,), (0,)
        )
        yield Sample(cls("nearest", (N, 3, 7, 3)), (x,), (0,), (0,))
        yield Sample(cls("nearest", (N, 3, 6, 7), (), "align_corners", "round_prefer_ceil"), (x,), (0,), (0,))
        yield Sample(cls("nearest", (N, 3, 2, 15), (), "pytorch_half_pixel", "ceil"), (x,), (0,), (0,))
        yield Sample(cls("linear", (N, 3, 8, 10), (1.0, 1.0, 2.0, 2.0)), (x,), (0,), (0,))
        yield Sample(cls("linear", (N, 3, 3, 9), (), "align_corners"), (x,), (0,), (0,))
        yield Sample(cls("linear", (N, 3, 6, 5), (1.0, 1.0, 1.5, 1.0), "asymmetric"), (x,), (0,), (0,))
        yield Sample(cls("linear", (N, 3, 1, 4), (), "pytorch_half_pixel"), (x,), (0,), (0,))
        yield Sample(cls("linear", (1, 2, 4, 6, 3), (), "half_pixel"), (randn(1, 2, 3, 3, 2),), (0,))
        yield Sample(cls("cubic", (N, 3, 8, 10)), (x,), (0,), (0,))
        exclude = cls("cubic", (N, 3, 7, 9), (), "align_corners", cubic=-0.5, exclude_outside=True)
        yield Sample(exclude, (x,), (0,), (0,))


def sum_of_copies(ct: Value, counts: Sequence[int]) -> Value:
    """The sum of `counts[a]` neighbours along each axis a."""
    if all(count == 1 for count in counts):
        return ct
    if counts[:2] == [1, 1] and 3 <= len(counts) <= 5 and ct.dtype is not DType.F64:
        # the mean of a window, times its size: faster than a sum over axes that take turns with others
        kernel = tuple(counts[2:])
        none, one = ((0, 0),) * len(kernel), (1,) * len(kernel)
        return emit1(AveragePool(kernel, kernel, none, one), ct) * float(np.prod(kernel))
    dims: list[Dim] = []
    summed = []
    for dim, count in zip(ct.shape, counts, strict=True):
        rest = divide(dim, count)
        dims.append(dim if rest is None else rest)
        if count > 1:
            summed.append(len(dims))
            dims.append(count)
    return emit1(ReduceSum(tuple(summed), keepdims=False), reshape(ct, dims))


def transposed(w: Array | Value, ct: Value, axis: int) -> Value:
    """W' ct along `axis`, from W as numbers, or from a value that is W'."""
    dims = ct.shape
    old, new = w.shape if isinstance(w, Value) else w.T.shape
    if axis == ct.rank - 1:
        rows = reshape(ct, (1, new)) if ct.rank == 1 else ct
        whole = transpose(w, (1, 0)) if isinstance(w, Value) else constant(w, ct.dtype)
        return reshape(matmul(rows, whole), (*dims[:axis], old))
    lead, tail = product(dims[:axis]), product(dims[axis + 1 :])
    turned = w if isinstance(w, Value) else constant(w.T, ct.dtype)
    y = matmul(turned, reshape(ct, (lead, new, tail)))
    return reshape(y, (*dims[:axis], old, *dims[axis + 1 :]))


def _nearest(op: Resize, position: Array, size: int) -> Iterable[tuple[Array, Array]]:
    yield NEAREST[op.nearest](position), np.ones(len(position))


def _linear(op: Resize, position: Array, size: int) -> Iterable[tuple[Array, Array]]:
    position = np.clip(position, 0, size - 1)
    low = np.floor(position)
    yield low, 1 - (position - low)
    yield low + 1, position - low


def _cubic(op: Resize, position: Array, size: int) -> Iterable[tuple[Array, Array]]:
    """Keys' kernel with parameter a, at the distances of the four nearest elements."""
    a, low = op.cubic, np.floor(position)
    near = position - low
    weights = {}
    for step, d in ((-1, near + 1), (0, near), (1, 1 - near), (2, 2 - near)):
        inner = ((a + 2) * d - (a + 3)) * d * d + 1
        outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weights[step] = inner if step in (0, 1) else outer
        if op.exclude_outside:
            weights[step] = np.where((low + step >= 0) & (low + step < size), weights[step], 0.0)
    total = sum(weights.values()) if op.exclude_outside else 1.0
    for step, weight in weights.items():
        yield low + step, np.asarray(weight / total)


_WEIGHTS: dict[str, Callable[[Resize, Array, int], Iterable[tuple[Array, Array]]]] = {
    "cubic": _cubic,
    "linear": _linear,
    "nearest": _nearest,
}


MOST_ROWS = 256
"""Up to this size of an axis, a dense matrix along it is faster than a transposed convolution."""


class Windowed(Op, family=True):
    """One number for each window of the spatial axes of x [n, c, ...]."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        given = {len(self.kernel), len(self.strides), len(self.pads), len(self.dilations)}
        require(x.rank >= 3 and given == {x.rank - 2}, f"{x} doesn't fit the attributes")
        geometry = zip(x.dims[2:], self.kernel, self.strides, self.pads, self.dilations, strict=True)
        return (x.with_shape((*x.dims[:2], *(window_count(*g) for g in geometry))),)

    def summed(self, x: Array) -> Array:
        """The sum of each window, padding counted as 0."""
        view = windows(padded(x, self.pads, 0.0), self.kernel, self.strides, self.dilations)
        return np.asarray(view.sum(axis=tuple(range(x.ndim, view.ndim)), dtype=x.dtype))

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(results[0].dims) * product(self.kernel)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] is not None and axes[0] > 1:
            raise MixesBatch("pools over the batch")
        return (axes[0],)

    def spread(self, ct: Value, plane: Shape) -> Value:
        """The adjoint of `summed`: each element of `plane` gets the cotangents of its windows, added up."""
        n, c, *count = ct.shape
        apart = zip(self.kernel, self.strides, self.pads, self.dilations, strict=True)
        if all(k == s and d == 1 and p == (0, 0) for k, s, p, d in apart) and all(
            same(m * k, size) for m, k, size in zip(count, self.kernel, plane, strict=True)
        ):
            # copies of each element: runtimes are fast at this, and slow at the same by Expand
            scales = (1.0, 1.0, *map(float, self.kernel))
            return emit1(Resize("nearest", (n, c, *plane), scales, "asymmetric", "floor"), ct)
        flipped = tuple(
            (d * (k - 1) - before, d * (k - 1) - after)
            for k, (before, after), d in zip(self.kernel, self.pads, self.dilations, strict=True)
        )
        # no runtime pads more than the kernel's size
        fits = all(0 <= p < k for ends, k in zip(flipped, self.kernel, strict=True) for p in ends)
        if fits and set(self.strides) == {1}:
            op = AveragePool(self.kernel, self.strides, flipped, self.dilations, include_pad=True)
            return emit1(op, ct) * float(np.prod(self.kernel))
        if all(isinstance(size, int) and size <= MOST_ROWS for size in plane):
            for i, (size, k, stride, d, p) in enumerate(
                zip(plane, self.kernel, self.strides, self.dilations, self.pads, strict=True)
            ):
                ones = windows(padded(np.eye(int(size))[:, None], [p], 0.0), [k], [stride], [d])
                ct = transposed(ones[:, 0].sum(-1).T, ct, 2 + i)
            return ct
        flat = reshape(ct, (product((n, c)), 1, *count))
        weights = constant(np.ones((1, 1, *self.kernel)), ct.dtype)
        whole = emit1(ConvTranspose(self.strides, self.pads, self.dilations, 1, plane), flat, weights)
        return reshape(whole, (n, c, *plane))


@dataclass(frozen=True)
class AveragePool(Windowed, Linear):
    """The mean of each window; padding counts as zeros with `include_pad`, otherwise not at all."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    include_pad: bool = False
    mnemonic = "average_pool"
    precision = Precision.HALF
    nonnegative = True

    def counts(self, plane: Shape) -> Array | int:
        """How many elements each window averages: one number, or one for each window."""
        if self.include_pad or not any(map(any, self.pads)):
            return int(np.prod(self.kernel))
        return self.summed(np.ones((1, 1, *map(int, plane))))

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        with np.errstate(all="ignore"):
            return (np.asarray(self.summed(x) / self.counts(x.shape[2:]), dtype=x.dtype),)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        plane = at.operands[0].shape[2:]
        if not self.include_pad and any(map(any, self.pads)) and not all(isinstance(d, int) for d in plane):
            # the part of each window that isn't padding, where it is only known at run time
            ones = emit1(Full(1.0, ct.dtype, (1, 1, *plane)))
            counts = emit1(replace(self, include_pad=True), ones) * float(np.prod(self.kernel))
        else:
            counts = constant(self.counts(plane), ct.dtype)
        return self.spread(ct / counts, plane)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        none = ((0, 0), (0, 0))
        yield Sample(cls((2, 2), (2, 2), none, (1, 1)), (randn(2, 3, 4, 6),), (0,), (0,))
        yield Sample(cls((2, 3), (2, 3), none, (1, 1)), (randn(2, 3, 5, 7),), (0,), (0,))
        yield Sample(cls((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)), (randn(2, 2, 5, 6),), (0,), (0,))
        yield Sample(cls((3, 2), (2, 1), ((1, 2), (0, 1)), (1, 1), True), (randn(2, 2, 7, 6),), (0,), (0,))
        yield Sample(cls((3, 2), (3, 2), ((2, 1), (0, 1)), (2, 1)), (randn(2, 2, 9, 5),), (0,), (0,))
        yield Sample(cls((2,), (1,), ((0, 1),), (3,), True), (randn(2, 2, 9),), (0,), (0,))
        yield Sample(
            cls((2, 1, 3), (1, 2, 2), ((0, 1), (0, 0), (1, 1)), (1, 1, 1)), (randn(1, 2, 3, 4, 5),), (0,)
        )
