"""Elements and blocks of a tensor replaced, or added to, by index: linear in tensor and updates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import Axes, MixesBatch, Point, Precision, Sample, Stacked, Value, require, tensors
from irshap.ir.dims import Dim, product, same
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.gather import GatherND, flat_position
from irshap.ops.index import GatherElements, Indexed
from irshap.ops.reduce import Expand
from irshap.ops.samples import randn
from irshap.ops.shape import Slice, reshape, zeros_like

__all__ = ["ScatterElements", "ScatterND", "leading"]


def leading(x: Value, index: Value, axis: int) -> Value:
    """The part of `x` that indices with fewer positions on the other axes than `x` are about."""
    short = [a for a in range(x.rank) if a != axis and not same(x.shape[a], index.shape[a])]
    if not short:
        return x
    ends = tuple(index.shape[a] for a in short)
    return emit1(Slice(tuple(short), (0,) * len(short), ends, (1,) * len(short)), x)


class _Scatter(Indexed, family=True):
    """Operands: the tensor, integer indices, updates; without `add` no index may appear twice."""

    add: bool
    precision = Precision.FULL

    def linear_in(self, varying: frozenset[int]) -> bool:
        return varying <= {0, 2}

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(operands[2].dims) if self.add else 0

    @abstractmethod
    def picked(self, ct: Value, index: Value) -> Value:
        """The elements of `ct` at the indices: the adjoint in the updates."""

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        if i == 2:
            return self.picked(ct, at.operands[1])
        return ct if self.add else emit1(self, ct, at.operands[1], zeros_like(at.operands[2]))


@dataclass(frozen=True)
class ScatterElements(_Scatter):
    """y = x, but y[..., index[..., i, ...], ...] = (or +=) update[..., i, ...] along `axis`."""

    axis: int
    add: bool
    mnemonic = "scatter_elements"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index, update = tensors(types)
        fits = 0 <= self.axis < x.rank == index.rank == update.rank and index.dtype.is_integer
        fits = fits and update.dtype is x.dtype and all(map(same, index.dims, update.dims))
        require(fits, f"updates {update} at {index} don't fit {x}")
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        y, index, update = arrays[0].copy(), arrays[1].astype(np.int64), arrays[2]
        where = list(np.ogrid[tuple(slice(n) for n in index.shape)])
        where[self.axis] = index
        if self.add:
            np.add.at(y, tuple(where), update)
        else:
            y[tuple(where)] = update
        return (y,)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        found = set(axes)
        if found == {None}:
            return (None,)
        if len(found) > 1 or self.axis in found:
            raise MixesBatch(
                "its operands have the batch on different axes, or it moves rows across the batch"
            )
        axis = axes[0]
        if axis is None or not same(operands[0].dims[axis], operands[1].dims[axis]):
            raise MixesBatch("it changes only some rows of the batch")
        return (axis,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.led())

    def picked(self, ct: Value, index: Value) -> Value:
        return emit1(GatherElements(self.axis), leading(ct, index, self.axis), index)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        index = np.array([[3, 0], [1, 2]])
        yield Sample(cls(1, False), (randn(2, 4), index, randn(2, 2)), (0, 2), (0, 0, 0))
        yield Sample(cls(1, True), (randn(2, 4), np.array([[1, 1], [0, 2]]), randn(2, 2)), (0, 2), (0, 0, 0))
        yield Sample(cls(0, False), (randn(3, 4), np.array([[2, 0]]), randn(1, 2)), (0, 2))
        yield Sample(cls(0, True), (randn(3, 2, 2), np.array([[[2, 0]], [[2, 1]]]), randn(2, 1, 2)), (0, 2))


@dataclass(frozen=True)
class ScatterND(_Scatter):
    """y = x, but y[index[i]] = (or +=) update[i]: the index's last axis holds positions on x's first axes."""

    add: bool
    mnemonic = "scatter_nd"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index, update = tensors(types)
        depth = index.dims[-1] if index.rank else 0
        fits = isinstance(depth, int) and 1 <= depth <= x.rank and index.dtype.is_integer
        wanted = (*index.dims[:-1], *x.dims[int(depth) if fits else 0 :])
        fits = fits and update.dtype is x.dtype and update.rank == len(wanted)
        require(fits and all(map(same, update.dims, wanted)), f"updates {update} at {index} don't fit {x}")
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        y, index, update = arrays[0].copy(), arrays[1].astype(np.int64), arrays[2]
        where = tuple(np.moveaxis(index, -1, 0))
        if self.add:
            np.add.at(y, where, update)
        else:
            y[where] = update
        return (y,)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        x, index, update = axes
        if x is None and index is None and update is None:
            return (None,)
        depth = int(operands[1].dims[-1])
        if x is None or index is not None or x < depth or update != operands[1].rank - 1 + x - depth:
            raise MixesBatch(
                "its operands have the batch on different axes, or it moves rows across the batch"
            )
        return (x,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        # the indexed axes as one, in which every element of an update has its position
        x, index, update = at.led()
        depth = int(index.shape[-1])
        place = flat_position(index, x.shape[1 : depth + 1])
        block, each = product(x.shape[depth + 1 :]), product(index.shape[1:-1])
        place = emit1(Expand((at.count, each, block)), reshape(place, (at.count, each, 1)))
        flat = reshape(x, (at.count, product(x.shape[1 : depth + 1]), block))
        y = emit1(ScatterElements(1, self.add), flat, place, reshape(update, place.shape))
        return (reshape(y, x.shape),)

    def picked(self, ct: Value, index: Value) -> Value:
        return emit1(GatherND(0), ct, index)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        index = np.array([[2], [0]])
        yield Sample(cls(False), (randn(3, 4), index, randn(2, 4)), (0, 2), (1, None, 1))
        yield Sample(cls(True), (randn(3, 4), np.array([[2], [2]]), randn(2, 4)), (0, 2), (1, None, 1))
        yield Sample(cls(False), (randn(2, 3, 2), np.array([[[1, 2], [0, 0]]]), randn(1, 2, 2)), (0, 2))
        yield Sample(cls(True), (randn(2, 3), np.array([[1, 2], [1, 2]]), randn(2)), (0, 2))
