"""Ops on the rows of a batch: pairing samples with references, and zeros between rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Axes, MixesBatch, Point, Precision, Sample, TypeMismatch, require, tensors
from irshap.ir.dims import Dim, as_dim
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.families import Linear
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import Slice, reshape

__all__ = ["Dilate", "RepeatRows", "TileRows"]


class _Copies(Linear, family=True):
    """Every block of rows `times` over.  `block` rows along `axis` make up one sample."""

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
    """Row n of `axis` becomes rows n*times ... n*times + times - 1: each sample, once for each reference."""

    axis: int
    times: Dim
    mnemonic = "repeat_rows"

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.repeat(arrays[0], int(self.times), axis=self.axis),)

    def adjoint(self, ct: Any, at: Point, i: int) -> Any:
        shape = at.operands[0].shape
        apart = reshape(ct, (*shape[: self.axis + 1], self.times, *shape[self.axis + 1 :]))
        return reshape(emit1(ReduceSum((self.axis + 1,), keepdims=False), apart), shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0, 3), (randn(2, 3),), (0,))
        yield Sample(cls(1, 2), (randn(2, 3, 2),), (0,))


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

    def adjoint(self, ct: Any, at: Point, i: int) -> Any:
        shape = at.operands[0].shape
        apart = reshape(ct, (*shape[: self.axis], self.times, *shape[self.axis :]))
        return reshape(emit1(ReduceSum((self.axis,), keepdims=False), apart), shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0, 3), (randn(2, 3),), (0,))
        yield Sample(cls(1, 2), (randn(2, 3, 2),), (0,))


@dataclass(frozen=True)
class Dilate(Linear):
    """step - 1 zeros between neighbours on `axis`: the adjoint of a strided slice."""

    axis: int
    step: int
    mnemonic = "dilate"
    precision = Precision.DATA
    nonnegative = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        length = as_dim((x.dims[self.axis] - 1) * self.step + 1)
        if isinstance(length, int) and length < 0:
            raise TypeMismatch("can't dilate an empty axis")
        return (x.with_shape((*x.dims[: self.axis], length, *x.dims[self.axis + 1 :])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x = np.moveaxis(arrays[0], self.axis, 0)
        y = np.zeros(((len(x) - 1) * self.step + 1, *x.shape[1:]), x.dtype)
        y[:: self.step] = x
        return (np.ascontiguousarray(np.moveaxis(y, 0, self.axis)),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("spreads the batch")
        return (axes[0],)

    def adjoint(self, ct: Any, at: Point, i: int) -> Any:
        return emit1(Slice((self.axis,), (0,), (ct.shape[self.axis],), (self.step,)), ct)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 3), (randn(2, 4),), (0,), (0,))
        yield Sample(cls(0, 2), (randn(4, 2),), (0,))
