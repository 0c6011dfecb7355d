"""Copies side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import Axes, MixesBatch, Point, Precision, Sample, Stacked, Value, require, tensors
from irshap.ir.dims import Dim, Shape, same
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.families import Linear
from irshap.ops.program import batch_from_shape
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import reshape

__all__ = ["Tile"]


@dataclass(frozen=True)
class Tile(Linear):
    """The operand as a whole, `repeats[a]` times over along each axis a."""

    repeats: Shape
    mnemonic = "tile"
    precision = Precision.DATA
    nonnegative = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(len(self.repeats) == x.rank, f"{len(self.repeats)} repeats for {x}")
        return (x.with_shape(tuple(d * r for d, r in zip(x.dims, self.repeats, strict=True))),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.tile(arrays[0], [int(r) for r in self.repeats]),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        made = batch_from_shape(self.repeats)
        if axes[0] is not None and (made is not None or not same(self.repeats[axes[0]], 1)):
            raise MixesBatch("repeats the whole batch")
        # one row, repeated for each sample; of several, neighbours would belong to the same sample
        if made is not None and not same(operands[0].dims[made], 1):
            raise MixesBatch("repeats several rows for each sample")
        return (axes[0] if made is None else made,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(Tile((1, *self.repeats)), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        shape = at.operands[0].shape
        dims: list[Dim] = []
        copies = []
        for repeat, dim in zip(self.repeats, shape, strict=True):
            if not same(repeat, 1):
                copies.append(len(dims))
                dims.append(repeat)
            dims.append(dim)
        return reshape(emit1(ReduceSum(tuple(copies), keepdims=False), reshape(ct, dims)), shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1, 3, 2)), (randn(2, 2, 3),), (0,), (0,))
        yield Sample(cls((2, 1)), (randn(3, 4),), (0,), (1,))
