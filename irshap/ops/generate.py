"""Tensors made from numbers: counting, and one-hot rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import emit
from irshap.ir.core import Axes, MixesBatch, Precision, Sample, Stacked, Value, require, tensors
from irshap.ir.dims import Dim, product
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.families import NonDifferentiable
from irshap.ops.program import NOTHING_VARIES, batch_from_shape

__all__ = ["Arange", "OneHot"]


@dataclass(frozen=True)
class Arange(NonDifferentiable):
    """start, start + step, ... as int64, `count` numbers: positions whose number is known at run time."""

    start: Dim
    step: int
    count: Dim
    mnemonic = "arange"
    precision = Precision.DATA
    reason = NOTHING_VARIES

    def infer(self, *types: Type) -> tuple[Type, ...]:
        require(not types, "takes no operands")
        return (TensorType(DType.I64, (self.count,)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (int(self.start) + self.step * np.arange(int(self.count), dtype=np.int64),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if batch_from_shape((self.count,)) is not None:
            raise MixesBatch("numbers the rows of the batch")
        return (None,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(2, 3, 4), ())
        yield Sample(cls(5, -1, 5), ())


@dataclass(frozen=True)
class OneHot(NonDifferentiable):
    """values[1] where the position on the new `axis` is the index (negative: from the end), else values[0].

    Operands: indices, the size of the new axis (`depth` again, in the element type of the model), values.
    """

    axis: int
    depth: int
    mnemonic = "one_hot"
    precision = Precision.DATA
    reason = "an index jumps: no local rule is complete"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        index, _, values = tensors(types)
        require(0 <= self.axis <= index.rank and values.dims == (2,), f"no new axis {self.axis} for {index}")
        return (values.with_shape((*index.dims[: self.axis], self.depth, *index.dims[self.axis :])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        index, _, values = arrays
        whole = np.expand_dims(index.astype(np.int64), self.axis)
        position = np.arange(self.depth).reshape(-1, *[1] * (index.ndim - self.axis))
        return (values[((whole == position) | (whole + self.depth == position)).astype(np.int64)],)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(results[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[1] is not None or axes[2] is not None:
            raise MixesBatch("its values depend on the batch")
        return (None if axes[0] is None else axes[0] + (axes[0] >= self.axis),)

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        return None if any(at.batched[1:]) else emit(replace(self, axis=self.axis + 1), *at.operands)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        index, depth, values = np.array([[0, 2], [-1, 3]]), np.array(3), np.array([0, 1], np.float32)
        yield Sample(cls(2, 3), (index, depth, values), batch=(0, None, None))
        yield Sample(cls(0, 3), (index, depth, values), batch=(1, None, None))
        yield Sample(cls(1, 3), (index, depth, np.array([5, -5])), batch=(0, None, None))
