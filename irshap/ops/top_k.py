"""The k largest or smallest elements."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

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
from irshap.ir.degrees import Degree
from irshap.ir.dims import Dim, product
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.arithmetic import maximum, minimum, share_quotient, where
from irshap.ops.gather import Gather
from irshap.ops.index import ScatterAdd
from irshap.ops.logic import Equal, Greater, Less
from irshap.ops.program import Full, constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import concat, reshape, transpose

__all__ = ["TopK"]

MOST_RANKED = 32
"""The rule for k > 1 looks at every pair of elements."""


@dataclass(frozen=True)
class TopK(Op):
    """The k largest (or smallest) elements along an axis, most extreme first, and their positions.

    k = 1 is a maximum (rules.md section 3).  For k > 1 the k-th value may move while both the sample's and
    the reference's element stay: sharing between these two can't be complete.  The rule is the mean
    derivative on the straight path from the reference to the sample: the order changes only where two
    elements meet, so that it is a finite sum; complete, and nothing is divided by x - r.
    """

    axis: int
    k: int
    largest: bool = True
    mnemonic = "top_k"
    positions = frozenset({1})
    precision = Precision.DATA

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(0 <= self.axis < x.rank, f"axis {self.axis} is not one of {x.rank}")
        size = x.dims[self.axis]
        require(self.k >= 0 and (not isinstance(size, int) or self.k <= size), f"no {self.k} of {size}")
        values = x.with_shape((*x.dims[: self.axis], self.k, *x.dims[self.axis + 1 :]))
        return (values, values.with_dtype(DType.I64))

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        if self.largest:
            # equal elements by position: a stable order of the mirror image, mirrored
            order = x.shape[self.axis] - 1 - np.argsort(np.flip(x, self.axis), axis=self.axis, kind="stable")
            order = np.flip(order, self.axis)
        else:
            order = np.argsort(x, axis=self.axis, kind="stable")
        order = np.ascontiguousarray(np.take(order, np.arange(self.k), axis=self.axis), dtype=np.int64)
        return (np.take_along_axis(x, order, axis=self.axis), order)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(operands[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("ranks over the batch")
        return (axes[0], axes[0])

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.operands)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return (emit1(ScatterAdd(self.axis, at.operands[0].shape[self.axis]), cts[0], at.results[1]),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0 = at.operands[0], at0.operands[0]
        if self.k != 1:
            return (self._mean_on_path(cts[0], x, x0),)
        (y, index), (y0, index0) = at.results, at0.results
        top = maximum(y, y0) if self.largest else minimum(y, y0)
        back = ScatterAdd(self.axis, x.shape[self.axis])
        share = emit1(back, cts[0] * (top - y0), index) + emit1(back, cts[0] * (y - top), index0)
        return (share_quotient(share, x - x0),)

    def _mean_on_path(self, ct: Value, x: Value, x0: Value) -> Value:
        size = x.shape[self.axis]
        if not isinstance(size, int) or size > MOST_RANKED:
            raise NoLocalRule(
                f"the ranks of {size} elements move; a complete rule takes at most {MOST_RANKED}"
            )
        last = x.rank - 1
        order = [*(a for a in range(x.rank) if a != self.axis), self.axis]
        ct, x, x0 = (transpose(v, order) for v in (ct, x, x0))
        step = x - x0
        lead = x.shape[:last]
        # where on the way, as parts of it, each pair meets; a part more than needed does no harm
        a, b = (constant([p[i] for p in combinations(range(size), 2)], DType.I64) for i in (0, 1))
        gap = emit1(Gather(last), x0, b) - emit1(Gather(last), x0, a)
        speed = emit1(Gather(last), step, a) - emit1(Gather(last), step, b)
        zero, one = (constant(v, x.dtype) for v in (0.0, 1.0))
        part = gap / where(emit1(Equal(), speed, zero), one, speed)
        part = where(emit1(Greater(), part, zero), where(emit1(Less(), part, one), part, one), one)
        pairs = size * (size - 1) // 2
        part = emit(TopK(last, pairs, largest=False), part)[0]
        start = concat((emit1(Full(0.0, x.dtype, (*lead, 1))), part), last)
        end = concat((part, emit1(Full(1.0, x.dtype, (*lead, 1)))), last)
        middle = reshape((start + end) * 0.5, (*lead, pairs + 1, 1))
        between = reshape(x0, (*lead, 1, size)) + middle * reshape(step, (*lead, 1, size))
        chosen = emit(TopK(last + 1, self.k, self.largest), between)[1]
        shares = reshape(end - start, (*lead, pairs + 1, 1)) * reshape(ct, (*lead, 1, self.k))
        summed = emit1(ReduceSum((last,), keepdims=False), emit1(ScatterAdd(last + 1, size), shares, chosen))
        return transpose(summed, [order.index(i) for i in range(last + 1)])

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 1), (randn(3, 5),), (0,), (0,))
        yield Sample(cls(1, 3), (randn(3, 5),), (0,), (0,))
        yield Sample(cls(1, 2, False), (randn(2, 4, 2),), (0,), (2,))
        yield Sample(cls(0, 1, False), (randn(4, 3),), (0,), (1,))
        yield Sample(cls(0, 3), (np.array([[1, 7], [2, 7], [2, 0]]),), batch=(1,))
        yield Sample(cls(1, 2), (np.array([[3, -1, 3], [2, 5, 0]]),), batch=(0,))
