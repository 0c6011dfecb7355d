"""Softmax and its relatives along one axis (rules.md section 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
from irshap.ops.arithmetic import maximum, where
from irshap.ops.elementwise import Exp, Log, Tanh, tanhc
from irshap.ops.extremum import ReduceMax
from irshap.ops.families import NonDifferentiable
from irshap.ops.logic import Greater
from irshap.ops.program import constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn

__all__ = ["Hardmax", "LogSoftmax", "MaskedSoftmax", "Softmax"]


class _AlongAxis(Op, family=True):
    """A result of the operand's shape, each element depending on all along `axis`."""

    axis: int
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(x.dtype.is_float, lambda: f"takes floats, not {x}")
        require(0 <= self.axis < x.rank, f"axis {self.axis} is not one of {x}")
        return (x,)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 5 * numel(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("normalizes over the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.operands)  # type: ignore[type-var]

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def total(self, x: Value) -> Value:
        """The sum along the axis, which stays."""
        return emit1(ReduceSum((self.axis,), keepdims=True), x)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        build: Callable[..., Op] = cls
        yield Sample(build(1), (randn(2, 5),), (0,), (0,))
        yield Sample(build(1), (randn(2, 3, 4) * 3,), (0,), (0,))
        yield Sample(build(0), (randn(3, 2),), (0,), (1,))
        yield Sample(build(1), (np.array([[1.0, 1, 1], [2, 2, 2]]),), (0,), (0,))
        yield Sample(build(1), (np.array([[1.0, -1e9, 2, 0.5], [0, -1e9, 1, 3]]),), (0,), (0,))


class _Softmax(_AlongAxis, family=True):
    """Between two worlds both kinds are exp, sum, log and difference from it, each by its chord.

    With l = ln sum e^x, s = l - l0, p = e^(x - l), and T(h) = tanh(h)/h, the chord of exp is the mean of its
    ends times T(D/2).  That of the logarithm is 1 over the mean of two sums, over T(s/2), so that
    w_i = (p_i (1 + tanh(s/2)) + p0_i (1 - tanh(s/2))) / 2 T(D_i/2) / T(s/2), with sum w D = s, and
    m_i = G_i - w_i sum G, G being the multiplier of x - l.  No w_i exceeds 1; each is right to 1's rounding.
    """

    def _halves(self, x: Value) -> tuple[Value, Value]:
        """x/2 and l/2; what a mask of -inf leaves is as small as differences bear."""
        x = maximum(x, float(np.finfo(x.dtype.numpy).min) / 4)
        top = emit1(ReduceMax((self.axis,), keepdims=True), x)
        return x * 0.5, (top + emit1(Log(), self.total(emit1(Exp(), x - top)))) * 0.5

    def _through_sum(self, u: Value, h: Value, g: Value, p: Value, p0: Value) -> Value:
        """The multipliers of x from those of x - l, with u = D/2 and h = s/2."""
        t = emit1(Tanh(), h)
        each = self.total(g) * 0.5 / tanhc(h)
        rises, falls = each * (1.0 + t), each * (1.0 - t)
        return g - (p * rises + p0 * falls) * tanhc(u)


@dataclass(frozen=True)
class Softmax(_Softmax):
    """y = e^x / sum e^x along `axis`; G = ct (y + y0)/2 T((D - s)/2)."""

    axis: int
    mnemonic = "softmax"

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        e = np.exp(arrays[0] - arrays[0].max(axis=self.axis, keepdims=True, initial=-np.inf))
        return (np.asarray(e / e.sum(axis=self.axis, keepdims=True), arrays[0].dtype),)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        g = cts[0] * at.results[0]
        return (g - at.results[0] * self.total(g),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        y, y0 = at.results[0], at0.results[0]
        (x, log), (x0, log0) = self._halves(at.operands[0]), self._halves(at0.operands[0])
        u, h = x - x0, log - log0
        g = cts[0] * ((y * 0.5 + y0 * 0.5) * tanhc(u - h))
        return (self._through_sum(u, h, g, y, y0),)


@dataclass(frozen=True)
class MaskedSoftmax(Softmax):
    """Softmax along `axis`, and 0 in rows of which it makes NaN: those with nothing but -inf.

    Masked in both worlds, such a row has no difference, and multipliers of 0.  Masked in one world alone, its
    difference is infinite: no finite multiplier is complete, and the completeness error shows what is left.
    """

    axis: int
    mnemonic = "masked_softmax"

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(invalid="ignore"):
            (y,) = super().evaluate(*arrays)
        return (np.where(np.isnan(y), y.dtype.type(0), y),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return super().secant(cts, self._unmasked(at), self._unmasked(at0), wrt)

    def _unmasked(self, at: Point) -> Point:
        """With numbers in rows that are masked: for each world alone, which is cheaper than for pairs."""
        (x,), (y,) = at.operands, at.results
        # the elements of another row add up to 1
        found = emit1(Greater(), self.total(y), constant(0.5, y.dtype))
        return Point((where(found, x, 0.0),), (y,))


@dataclass(frozen=True)
class LogSoftmax(_Softmax):
    """y = x - ln sum e^x along `axis`; G = ct."""

    axis: int
    mnemonic = "log_softmax"

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        shifted = arrays[0] - arrays[0].max(axis=self.axis, keepdims=True, initial=-np.inf)
        return (shifted - np.log(np.exp(shifted).sum(axis=self.axis, keepdims=True)),)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return (cts[0] - emit1(Exp(), at.results[0]) * self.total(cts[0]),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        p, p0 = emit1(Exp(), at.results[0]), emit1(Exp(), at0.results[0])
        (x, log), (x0, log0) = self._halves(at.operands[0]), self._halves(at0.operands[0])
        return (self._through_sum(x - x0, log - log0, cts[0], p, p0),)


@dataclass(frozen=True)
class Hardmax(NonDifferentiable, _AlongAxis):
    """1 at the largest element along `axis` (the first of equals), 0 elsewhere."""

    axis: int
    mnemonic = "hardmax"
    reason = "its 1 jumps from place to place: no local rule is complete"

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        y = np.zeros_like(x)
        np.put_along_axis(y, np.expand_dims(x.argmax(self.axis), self.axis), 1, self.axis)
        return (y,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1), (randn(2, 5),), batch=(0,))
        yield Sample(cls(1), (np.array([[1.0, 1, 0], [0, 2, 2]]),), batch=(0,))
