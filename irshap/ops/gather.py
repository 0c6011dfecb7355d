"""Rows and blocks picked by index, and the adjoint that adds them up again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import Axes, MixesBatch, Point, Precision, Sample, Stacked, Value, require, tensors
from irshap.ir.dims import Dim, Shape, as_dim, product, same
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.arithmetic import where
from irshap.ops.cast import cast
from irshap.ops.index import Indexed, ScatterAdd
from irshap.ops.logic import Less
from irshap.ops.program import Constant, Dims, constant
from irshap.ops.reduce import Expand, ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import Pad, reshape, to_front, transpose

__all__ = ["Gather", "GatherND", "ScatterRows"]

PAIRS_BATCHES = "pairs the rows of one batch with those of another"


@dataclass(frozen=True)
class Gather(Indexed):
    """y[a, i, b] = x[a, index[i], b] with a and b any axes before and behind `axis`, i those of the index."""

    axis: int
    mnemonic = "gather"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index = tensors(types)
        require(0 <= self.axis < x.rank and index.dtype.is_integer, f"indices {index} don't pick from {x}")
        require(not (same(x.dims[self.axis], 0) and index.size != 0), f"{x} has nothing to pick from")
        return (x.with_shape((*x.dims[: self.axis], *index.dims, *x.dims[self.axis + 1 :])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.asarray(np.take(arrays[0], arrays[1].astype(np.int64), axis=self.axis)),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        x, index = axes
        if x is not None and index is not None:
            raise MixesBatch(PAIRS_BATCHES)
        if x is None:
            return (None if index is None else self.axis + index,)
        if x == self.axis:
            raise MixesBatch("picks rows across the batch")
        return (x if x < self.axis else x - 1 + operands[1].rank,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        (x, index), (many, indices) = at.operands, at.batched
        if not indices:
            return emit(Gather(self.axis + 1), x, index)
        if not many:
            return (to_front(emit1(self, x, index), self.axis),)
        # each sample picks from its own
        rest = [a for a in range(1, x.rank) if a != self.axis + 1]
        rows = transpose(x, [0, self.axis + 1, *rest])
        picked = emit1(GatherND(1), rows, reshape(index, (*index.shape, 1)))
        before = [index.rank + i for i in range(self.axis)]
        own = range(1, index.rank)
        return (transpose(picked, [0, *before, *own, *range(index.rank + self.axis, picked.rank)]),)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        x, index = at.operands
        run = consecutive(index, x.shape[self.axis])
        if run is None:
            return emit1(ScatterRows(self.axis, x.shape[self.axis]), ct, index)
        # one row, or neighbours: zeros around them
        start, count = run
        before: list[Dim] = [0] * x.rank
        after: list[Dim] = [0] * x.rank
        before[self.axis], after[self.axis] = start, as_dim(x.shape[self.axis] - start - count)
        rows = reshape(ct, (*x.shape[: self.axis], count, *x.shape[self.axis + 1 :]))
        return emit1(Pad(tuple(before), tuple(after), 0.0), rows)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x = randn(3, 4, 5)
        yield Sample(cls(1), (x, np.array([3, 0, 0])), (0,), (0, None))
        yield Sample(cls(1), (x, np.array(2)), (0,), (0, None))
        yield Sample(cls(2), (x, np.array([1, 2, 3])), (0,), (0, None))
        yield Sample(cls(0), (x, np.array([[2, 0], [1, 2]])), (0,), (1, None))
        yield Sample(cls(1), (x, np.array([[1, 2], [3, 1]])), (0,), (2, None))
        yield Sample(cls(0), (randn(6, 2), np.array([[5, 0, 5], [2, 2, 1]])), (0,), (None, 0))


def consecutive(index: Value, size: Dim) -> tuple[Dim, int] | None:
    """Start and length of constant indices that are neighbours in order."""
    op = index.node.op
    if not isinstance(op, Constant) or op.value.array.ndim > 1 or not op.value.array.size:
        return None
    given = op.value.array.reshape(-1).astype(np.int64)
    if np.any(np.diff(given) != 1) or (given[0] < 0 <= given[-1]):
        return None
    start = int(given[0])
    return (start if start >= 0 else as_dim(size + start)), given.size


@dataclass(frozen=True)
class ScatterRows(Indexed):
    """y = zeros; y[a, index[i], b] += x[a, i, b]: the adjoint of `Gather`; `axis` gets `size` elements."""

    axis: int
    size: Dim
    mnemonic = "scatter_rows"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index = tensors(types)
        behind = self.axis + index.rank
        fits = behind <= x.rank and index.dtype.is_integer
        fits = fits and all(map(same, x.dims[self.axis : behind], index.dims))
        require(fits, f"indices {index} don't fit {x} from axis {self.axis}")
        return (x.with_shape((*x.dims[: self.axis], self.size, *x.dims[behind:])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, index = arrays
        lead, tail = x.shape[: self.axis], x.shape[self.axis + index.ndim :]
        y = np.zeros((*lead, int(self.size), *tail), x.dtype)
        rows = np.moveaxis(x.reshape(*lead, index.size, *tail), self.axis, 0)
        np.add.at(np.moveaxis(y, self.axis, 0), index.reshape(-1), rows)
        return (y,)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(operands[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        x, index = axes
        behind = self.axis + operands[1].rank
        if index is not None or (x is not None and self.axis <= x < behind):
            raise MixesBatch("adds up rows of the batch")
        return (x if x is None or x < self.axis else x - operands[1].rank + 1,)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return emit1(Gather(self.axis), ct, at.operands[1])

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 4), (randn(2, 3, 2), np.array([3, 0, 3])), (0,), (0, None))
        yield Sample(cls(0, 5), (randn(2, 2, 3), np.array([[1, 0], [1, 4]])), (0,), (2, None))
        yield Sample(cls(1, 3), (randn(2, 4), np.array(1)), (0,), (0, None))


@dataclass(frozen=True)
class GatherND(Indexed):
    """y[b, i] = x[b, index[b, i]]: the index's last axis holds positions on x's axes from `batch_dims` on."""

    batch_dims: int
    mnemonic = "gather_nd"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, index = tensors(types)
        lead, depth = self.batch_dims, index.dims[-1] if index.rank else 0
        fits = (
            isinstance(depth, int) and lead < index.rank and lead + depth <= x.rank and index.dtype.is_integer
        )
        fits = fits and all(map(same, x.dims[:lead], index.dims[:lead]))
        require(fits, f"indices {index} don't pick from {x}")
        return (x.with_shape((*index.dims[:-1], *x.dims[lead + int(depth) :])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, index = arrays[0], arrays[1].astype(np.int64)
        lead, depth = self.batch_dims, index.shape[-1]
        count = int(np.prod(x.shape[:lead]))
        flat = index.reshape(count, -1, depth)
        picked = x.reshape(count, *x.shape[lead:])[(np.arange(count)[:, None], *np.moveaxis(flat, -1, 0))]
        return (np.asarray(picked.reshape((*index.shape[:-1], *x.shape[lead + depth :]))),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        x, index = axes
        lead, behind = self.batch_dims, self.batch_dims + int(operands[1].dims[-1])
        if x is None and index is None:
            return (None,)
        if x is not None and x == index and x < lead:
            return (x,)
        if index is None and x is not None and x >= behind:
            return (operands[1].rank - 1 + x - behind,)
        if x is None and index is not None and lead <= index < operands[1].rank - 1:
            return (index,)
        raise MixesBatch("picks rows across the batch")

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        (x, index), (many, indices) = at.operands, at.batched
        if self.batch_dims or (many and indices):
            return emit(GatherND(self.batch_dims + 1), *at.led())
        if indices:
            return emit(self, x, index)
        depth = int(index.shape[-1])
        behind = transpose(x, [*range(1, depth + 1), 0, *range(depth + 1, x.rank)])
        return (to_front(emit1(self, behind, index), index.rank - 1),)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        x, index = at.operands
        lead, depth = self.batch_dims, int(index.shape[-1])
        picked, rest = x.shape[lead : lead + depth], product(x.shape[lead + depth :])
        position = flat_position(index, picked)
        if not lead:
            rows = reshape(ct, (*index.shape[:-1], rest))
            return reshape(emit1(ScatterRows(0, product(picked)), rows, position), x.shape)
        count, each = product(x.shape[:lead]), product(index.shape[lead:-1])
        position = emit1(Expand((count, each, rest)), reshape(position, (count, each, 1)))
        summed = emit1(ScatterAdd(1, product(picked)), reshape(ct, (count, each, rest)), position)
        return reshape(summed, x.shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x = randn(2, 3, 4)
        yield Sample(cls(0), (x, np.array([[0, 1], [1, 2], [0, 1]])), (0,), (2, None))
        yield Sample(cls(0), (x, np.array([[[1]], [[0]]])), (0,), (1, None))
        yield Sample(cls(1), (x, np.array([[[2, 3], [0, 0]], [[1, 1], [1, 1]]])), (0,), (0, 0))
        yield Sample(cls(1), (x, np.array([[2], [0]])), (0,), (0, 0))
        yield Sample(cls(0), (randn(5, 2), np.array([[[1]], [[4]]])), (0,), (None, 0))


def flat_position(index: Value, dims: Shape) -> Value:
    """The position in a block of `dims`, flattened, that each row of an index tensor names."""
    strides = [product(dims[i + 1 :]) for i in range(len(dims))]
    if isinstance(index.node.op, Constant) and all(isinstance(d, int) for d in dims):
        given = index.node.op.value.array.astype(np.int64)
        front = np.where(given < 0, given + np.array(dims, np.int64), given)
        return constant((front * np.array(strides, np.int64)).sum(-1), DType.I64)
    sizes, steps = (emit1(Dims(tuple(d))) for d in (dims, strides))
    index = cast(index, DType.I64)
    inside = where(emit1(Less(), index, constant(0, DType.I64)), index + sizes, index)
    return emit1(ReduceSum((index.rank - 1,), keepdims=False), inside * steps)
