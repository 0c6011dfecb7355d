"""Ops on the rows of a batch: pairing samples with references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Axes, MixesBatch, Point, Precision, Sample, Value, require, tensors
from irshap.ir.dims import Dim, divide
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.families import Linear
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import reshape

__all__ = ["RepeatRows", "TileRows"]


class _Copies(Linear, family=True):
    """Rows along `axis`, `times` over."""

    axis: int
    times: Dim
    precision = Precision.DATA
    nonnegative = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(0 <= self.axis < x.rank, f"axis {self.axis} is not one of {x.rank}")
        return (
            x.with_shape((*x.dims[: self.axis], x.dims[self.axis] * self.times, *x.dims[self.axis + 1 :])),
        )

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        raise MixesBatch(f"{self.mnemonic} copies the batch")


@dataclass(frozen=True)
class RepeatRows(_Copies):
    """Each block of `block` rows `times` over: each sample, once for each reference.

    A sample is one row, or several where its windows or heads are merged with the batch.
    """

    axis: int
    times: Dim
    block: Dim = 1
    mnemonic = "repeat_rows"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        found = super().infer(x)
        whole = divide(x.dims[self.axis], self.block) is not None
        require(whole, lambda: f"axis {self.axis} of {x} has no whole blocks of {self.block}")
        return found

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        before, after = x.shape[: self.axis], x.shape[self.axis + 1 :]
        blocks = x.reshape(*before, -1, int(self.block), *after)
        return (np.repeat(blocks, int(self.times), axis=self.axis).reshape(*before, -1, *after),)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        shape = at.operands[0].shape
        blocks = divide(shape[self.axis], self.block)
        assert blocks is not None
        apart = reshape(ct, (*shape[: self.axis], blocks, self.times, self.block, *shape[self.axis + 1 :]))
        return reshape(emit1(ReduceSum((self.axis + 1,), keepdims=False), apart), shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0, 3), (randn(2, 3),), (0,))
        yield Sample(cls(1, 2), (randn(2, 3, 2),), (0,))
        yield Sample(cls(1, 3, 2), (randn(2, 4, 2),), (0,))


@dataclass(frozen=True)
class TileRows(_Copies):
    """The rows of `axis` as a whole, `times` over: the set of references, once for each sample."""

    axis: int
    times: Dim
    mnemonic = "tile_rows"

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        counts = [1] * arrays[0].ndim
        counts[self.axis] = int(self.times)
        return (np.tile(arrays[0], counts),)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        shape = at.operands[0].shape
        apart = reshape(ct, (*shape[: self.axis], self.times, *shape[self.axis :]))
        return reshape(emit1(ReduceSum((self.axis,), keepdims=False), apart), shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0, 3), (randn(2, 3),), (0,))
        yield Sample(cls(1, 2), (randn(2, 3, 2),), (0,))
