"""Interpolation between grids of another size: one matrix for each axis, known when compiling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Axes, MixesBatch, NoLocalRule, Op, Point, Precision, Sample, require, tensors
from irshap.ir.dims import Dim, N, Shape, divide, product, same, same_shape
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.families import Linear
from irshap.ops.linear import matmul
from irshap.ops.program import constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import reshape

__all__ = ["COORDINATES", "NEAREST", "Resize"]

Coordinate = Callable[[Array, Any, Any, Any], Array]
"""(position in the result, scale, old size, new size) -> position in the operand."""


def _symmetric(i: Array, scale: Any, old: Any, new: Any) -> Array:
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

    def adjoint(self, ct: Any, at: Point, i: int) -> Any:
        shape = at.operands[0].shape
        axes = self.resized(shape)
        repeated = {a: self.copies(a, shape[a], ct.dtype) for a in axes}
        for axis in axes:
            if repeated[axis] is None:
                old, new = shape[axis], self.sizes[axis]
                if not isinstance(old, int) or not isinstance(new, int):
                    raise NoLocalRule(f"the size of its axis {axis} is only known at run time")
                ct = transposed(self.matrix(axis, old, new, ct.dtype), ct, axis)
        counts = [repeated.get(axis) or 1 for axis in range(ct.rank)]
        return sum_of_copies(ct, counts)

    def linear_part(
        self, operands: Sequence[Any], varying: frozenset[int], absolute: bool
    ) -> tuple[Op, tuple[Any, ...]]:
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


def sum_of_copies(ct: Any, counts: Sequence[int]) -> Any:
    """The sum of `counts[a]` neighbours along each axis a."""
    if all(count == 1 for count in counts):
        return ct
    if counts[:2] == [1, 1] and 3 <= len(counts) <= 5 and ct.dtype is not DType.F64:
        # the mean of a window, times its size: faster than a sum over axes that take turns with others
        from irshap.ops.average_pool import AveragePool

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


def transposed(w: Array, ct: Any, axis: int) -> Any:
    """W' ct along `axis`."""
    new, old = w.shape
    dims = ct.shape
    if axis == ct.rank - 1:
        rows = reshape(ct, (1, new)) if ct.rank == 1 else ct
        return reshape(matmul(rows, constant(w, ct.dtype)), (*dims[:axis], old))
    lead, tail = product(dims[:axis]), product(dims[axis + 1 :])
    y = matmul(constant(w.T, ct.dtype), reshape(ct, (lead, new, tail)))
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
