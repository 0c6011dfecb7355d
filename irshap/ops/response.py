"""Normalization to a length along an axis, and by the responses of neighbouring channels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    MixesBatch,
    Op,
    Point,
    Precision,
    Sample,
    Stacked,
    Value,
    numel,
    require,
    tensors,
)
from irshap.ir.dims import Dim
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.arithmetic import Abs, where
from irshap.ops.composite import Composite
from irshap.ops.elementwise import Sqrt, inverse_or_zero
from irshap.ops.norm import mean_of
from irshap.ops.power import Power, positive
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import Pad, Slice

__all__ = ["LRN", "LpNormalization"]


@dataclass(frozen=True)
class LpNormalization(Op):
    """y = x w, w = 1/n or 0 where n is, with n the sum of magnitudes (p = 1) or its Euclidean norm (p = 2).

    A product of x and w, each at the mean of the other; w has the chord -w w0, or w^2 from 0 (where the norm
    is 0, w jumps, and the quotient carries it); n that of the absolute values, or (x + r)/(n + n0).
    """

    axis: int
    p: int
    mnemonic = "lp_normalization"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(x.dtype.is_float, lambda: f"takes floats, not {x}")
        require(
            0 <= self.axis < x.rank and self.p in (1, 2), f"no axis {self.axis} of {x}, or p is not 1 or 2"
        )
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        parts = np.abs(x) if self.p == 1 else x * x
        n = parts.sum(self.axis, keepdims=True)
        n = n if self.p == 1 else np.sqrt(n)
        return (np.divide(x, n, out=np.zeros_like(x), where=n != 0),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 3 * numel(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("normalizes over the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.operands)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def _norm(self, x: Value) -> Value:
        total = emit1(ReduceSum((self.axis,), keepdims=True), emit1(Abs(), x) if self.p == 1 else x * x)
        return total if self.p == 1 else emit1(Sqrt(), total)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.secant(cts, at, at, wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, x0 = at.operands[0], at0.operands[0]
        n, n0 = self._norm(x), self._norm(x0)
        w, w0 = inverse_or_zero(n), inverse_or_zero(n0)
        ww = w * w0
        inverse_chord = where(positive(ww), -ww, w * w + w0 * w0)
        if self.p == 1:
            norm_chord = Abs().chord(x, x0, emit1(Abs(), x), emit1(Abs(), x0))
        else:
            norm_chord = (x + x0) * inverse_or_zero(n + n0)
        along = emit1(ReduceSum((self.axis,), keepdims=True), cts[0] * mean_of(x, x0))
        return (cts[0] * mean_of(w, w0) + along * inverse_chord * norm_chord,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for p in (1, 2):
            yield Sample(cls(1, p), (randn(2, 5),), (0,), (0,))
            yield Sample(cls(1, p), (randn(2, 3, 4),), (0,), (0,))


MOST_CHANNELS = 2**10
"""A normalization over more around each would have as many terms: a few bytes could ask for any number."""


@dataclass(frozen=True)
class LRN(Composite):
    """y = x / (bias + alpha/size sum of x^2 over `size` channels around its own)^beta, channels on axis 1."""

    alpha: float
    beta: float
    bias: float
    size: int
    mnemonic = "lrn"
    precision = Precision.FULL

    @property
    def reach(self) -> tuple[int, int]:
        """How many channels before and after its own take part."""
        return (self.size - 1) // 2, self.size // 2

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(x.rank >= 3 and self.size >= 1, f"takes [n, channels, ...], got {x}")
        require(
            self.size <= MOST_CHANNELS, f"sums {self.size} channels; up to {MOST_CHANNELS} are written out"
        )
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        before, after = self.reach
        squares = np.pad(x * x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
        total = sum(squares[:, k : k + x.shape[1]] for k in range(self.size))
        return (np.asarray(x / (self.bias + self.alpha / self.size * total) ** self.beta, x.dtype),)

    def decompose(self, *operands: Value) -> tuple[Value, ...]:
        (x,) = operands
        before, after = self.reach
        rest = (0,) * (x.rank - 2)
        squares = emit1(Pad((0, before, *rest), (0, after, *rest), 0.0), x * x)
        channels = x.shape[1]
        total = emit1(Slice((1,), (0,), (channels,), (1,)), squares)
        for k in range(1, self.size):
            total = total + emit1(Slice((1,), (k,), (channels + k,), (1,)), squares)
        return (x / emit1(Power(self.beta), total * (self.alpha / self.size) + self.bias),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return (self.size + 4) * numel(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == 1:
            raise MixesBatch("normalizes over the batch")
        return (axes[0],)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0.5, 0.75, 1.0, 3), (randn(2, 5, 2, 2),), (0,), (0,))
        yield Sample(cls(2.0**-10, 0.5, 2.0, 5), (randn(2, 4, 3, 2),), (0,), (0,))
        yield Sample(cls(0.5, 0.75, 1.0, 1), (randn(2, 3, 2, 2),), (0,), (0,))
