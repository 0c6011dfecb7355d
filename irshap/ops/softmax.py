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
from irshap.ops.arithmetic import Abs, maximum, where
from irshap.ops.elementwise import Exp, Log, Relu, phi
from irshap.ops.extremum import ReduceMax
from irshap.ops.families import NonDifferentiable
from irshap.ops.logic import Equal, Greater
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

    With l = ln sum e^x and l - l0 =: s, every factor between 0 and 1:
    w_i = max(e^(x_i - l) e^-[-s]+, e^(r_i - l0) e^-[s]+) phi(|D_i|)/phi(|s|), so that sum w D = s, and
    m_i = G_i - w_i sum G, with G the multiplier of x - l.
    """

    def _shift(self, x: Value) -> tuple[Value, Value]:
        """The largest element m of each row, and ln sum e^(x - m)."""
        top = emit1(ReduceMax((self.axis,), keepdims=True), x)
        return top, emit1(Log(), self.total(emit1(Exp(), x - top)))

    def _through_sum(self, x: Value, x0: Value, g: tuple[Value, Value]) -> tuple[Value, Value]:
        """D - s, and the map that takes G to m, given the probabilities g = (p, p0)."""
        (top, rest), (top0, rest0) = self._shift(x), self._shift(x0)
        s = (top - top0) + (rest - rest0)
        # a mask of -inf is the same in both worlds: no difference
        d = where(emit1(Equal(), x, x0), 0.0, x - x0)
        p, p0 = g
        size = maximum(p * emit1(Exp(), -emit1(Relu(), -s)), p0 * emit1(Exp(), -emit1(Relu(), s)))
        weight = size * phi(emit1(Abs(), d)) / phi(emit1(Abs(), s))
        return d - s, weight


@dataclass(frozen=True)
class Softmax(_Softmax):
    """y = e^x / sum e^x along `axis`; G_k = ct_k max(y_k, y0_k) phi(|ln y_k - ln y0_k|)."""

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
        log_ratio, weight = self._through_sum(at.operands[0], at0.operands[0], (y, y0))
        g = cts[0] * (maximum(y, y0) * phi(emit1(Abs(), log_ratio)))
        return (g - weight * self.total(g),)


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
        probabilities = emit1(Exp(), at.results[0]), emit1(Exp(), at0.results[0])
        _, weight = self._through_sum(at.operands[0], at0.operands[0], probabilities)
        return (cts[0] - weight * self.total(cts[0]),)


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
