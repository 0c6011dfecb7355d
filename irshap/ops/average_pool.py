"""Average-pooling, and what other sums over windows need: their geometry and the adjoint of the sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Axes, MixesBatch, Op, Point, Precision, Sample, require, tensors
from irshap.ir.dims import Dim, Shape, product, same
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.conv import ConvTranspose
from irshap.ops.families import Linear
from irshap.ops.program import Full, constant
from irshap.ops.resize import Resize, transposed
from irshap.ops.samples import randn
from irshap.ops.shape import reshape
from irshap.ops.window import padded, window_count, windows

__all__ = ["AveragePool", "Windowed"]

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

    def spread(self, ct: Any, plane: Shape) -> Any:
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

    def adjoint(self, ct: Any, at: Point, i: int) -> Any:
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
