"""Max-pooling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Axes, MixesBatch, Op, Point, Precision, Sample, Value, require, tensors
from irshap.ir.degrees import Degree
from irshap.ir.dims import Dim, product, same
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.arithmetic import maximum, quotient_or_zero, share_quotient, where
from irshap.ops.index import GatherElements, ScatterAdd
from irshap.ops.logic import Greater
from irshap.ops.parts import Parts, Routed, Sharing
from irshap.ops.samples import randn
from irshap.ops.shape import reshape
from irshap.ops.window import padded, window_count, windows

__all__ = ["MaxPool"]


@dataclass(frozen=True)
class MaxPool(Op):
    """The largest element of each window, and its index in the window's plane (the spatial axes, flattened).

    Padding never wins.  Of equal elements the first one does.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    ceil: bool = False
    mnemonic = "max_pool"
    precision = Precision.DATA
    positions = frozenset({1})

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        spatial = x.rank - 2
        given = {len(self.kernel), len(self.strides), len(self.pads), len(self.dilations)}
        require(spatial >= 1 and given == {spatial}, f"{x} doesn't fit the attributes")
        geometry = zip(x.dims[2:], self.kernel, self.strides, self.pads, self.dilations, strict=True)
        y = x.with_shape((*x.dims[:2], *(window_count(*g, ceil=self.ceil) for g in geometry)))
        return (y, y.with_dtype(DType.I64))

    def dropped(self, x: TensorType) -> int | None:
        """The first spatial axis on which a window that starts in the padding behind the end is left out."""
        geometry = zip(x.dims[2:], self.kernel, self.strides, self.pads, self.dilations, strict=True)
        for axis, (size, kernel, stride, pads, dilation) in enumerate(geometry):
            # with as much more behind the end as a stride, floor counts what ceil does, starts not looked at
            all_of = window_count(size, kernel, stride, (pads[0], pads[1] + stride - 1), dilation)
            if self.ceil and not same(all_of, window_count(size, kernel, stride, pads, dilation, ceil=True)):
                return axis
        return None

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        spatial = x.ndim - 2
        ends = [(p[0], p[1] + (s if self.ceil else 0)) for p, s in zip(self.pads, self.strides, strict=True)]
        plane = np.arange(int(np.prod(x.shape[2:]))).reshape(1, 1, *x.shape[2:])
        (result, _) = self.infer(TensorType(DType.of(x), x.shape))
        take = (slice(None), slice(None), *(slice(int(d)) for d in result.dims[2:]))  # type: ignore[union-attr]
        view = windows(padded(x, ends, low), self.kernel, self.strides, self.dilations)[take]
        where_from = windows(padded(plane, ends, -1), self.kernel, self.strides, self.dilations)[take]
        flat = view.reshape(*view.shape[: 2 + spatial], -1)
        best = np.expand_dims(flat.argmax(-1), -1)
        source = np.broadcast_to(where_from.reshape(*where_from.shape[: 2 + spatial], -1), flat.shape)
        y, index = np.take_along_axis(flat, best, -1)[..., 0], np.take_along_axis(source, best, -1)[..., 0]
        return (y, index.astype(np.int64))

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(results[0].dims) * product(self.kernel)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] is not None and axes[0] > 1:
            raise MixesBatch("pools over the batch")
        return (axes[0], axes[0])

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def _scatter(self, share: Value, index: Value, like: Value) -> Value:
        n, c, *plane = like.shape
        flat = (n, c, product(share.shape[2:]))
        reaches = zip(self.kernel, self.strides, self.dilations, strict=True)
        apart = all((k - 1) * d < s for k, s, d in reaches)
        summed = emit1(ScatterAdd(2, product(plane), apart), reshape(share, flat), reshape(index, flat))
        return reshape(summed, like.shape)

    def _gather(self, x: Value, index: Value) -> Value:
        n, c, *plane = x.shape
        picked = emit1(
            GatherElements(2),
            reshape(x, (n, c, product(plane))),
            reshape(index, (n, c, product(index.shape[2:]))),
        )
        return reshape(picked, index.shape)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return (self._scatter(cts[0], at.results[1], at.operands[0]),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0, (y, index), (y0, index0) = at.operands[0], at0.operands[0], at.results, at0.results
        # M = max(y, y0): the sample's maximum gets ct (M - y0), the reference's ct (y - M), one of which is 0
        place = where(emit1(Greater(), y, y0), index, index0)
        # overlapping windows accumulate: overwriting is why other tools' attributions don't sum
        share = self._scatter(cts[0] * (y - y0), place, x)
        # an element's shares are at most its difference each: 0 only where that is 0 (rules.md: below 1e-7)
        return (share_quotient(share, x - x0),)

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        x, x0, y, y0 = at.operands[0], at0.operands[0], at.results[0], at0.results[0]
        top, ends = maximum(y, y0), (at.results[1], at0.results[1])
        # of D at the sample's maximum and at the reference's, how much of each the window's Dy consists of
        rates = [
            quotient_or_zero(share, self._gather(x, index) - self._gather(x0, index))
            for share, index in zip((top - y0, y - top), ends, strict=True)
        ]

        def forward(part: Value) -> Value:
            first, second = (q * self._gather(part, index) for q, index in zip(rates, ends, strict=True))
            return first + second

        def backward(m: Value) -> Value:
            first, second = (self._scatter(q * m, index, x) for q, index in zip(rates, ends, strict=True))
            return first + second

        return Routed(forward, backward)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)), (randn(2, 3, 4, 6),), (0,), (0,))
        yield Sample(cls((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)), (randn(2, 2, 7, 6),), (0,), (0,))
        yield Sample(cls((3, 2), (2, 3), ((1, 0), (0, 1)), (1, 2), True), (randn(2, 2, 8, 10),), (0,), (0,))
        yield Sample(cls((3,), (1,), ((1, 1),), (2,)), (randn(2, 2, 9),), (0,), (0,))
        yield Sample(cls((2, 2, 2), (2, 1, 2), ((0, 0),) * 3, (1, 1, 1)), (randn(1, 2, 4, 3, 4),), (0,))
