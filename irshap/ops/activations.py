"""Activation functions made of linear pieces, and relu's relatives.

Chords: c stands for relu's, the part of the way from reference to sample that lies above 0.  Where a function
returns copies of its operand or of a bound, the quotient of differences is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Point, Precision, Sample, Stacked, Value, require, tensors
from irshap.ir.degrees import Degree, NotHomogeneous, fixed
from irshap.ir.dims import same_shape
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.apart import Odd, apart, lone_quotient
from irshap.ops.arithmetic import Abs, between, guarded_quotient, least_size, maximum, minimum, where
from irshap.ops.elementwise import Elu, Relu
from irshap.ops.families import Elementwise, ZippedElementwise
from irshap.ops.logic import Greater
from irshap.ops.parts import Parts, Sharing, curve, only
from irshap.ops.program import constant
from irshap.ops.reduce import unbroadcast
from irshap.ops.samples import randn

__all__ = ["Celu", "Clip", "HardSigmoid", "LeakyRelu", "PRelu", "Selu", "ThresholdedRelu"]


def above(x: Value, bound: float) -> Value:
    """Where x > bound."""
    return emit1(Greater(), x, constant(bound, x.dtype))


def relu_chord(x: Value, x0: Value) -> Value:
    """c, the chord of relu."""
    return Relu().chord(x, x0, emit1(Relu(), x), emit1(Relu(), x0))


def bent_chord(x: Value, x0: Value, slope: Value | float) -> Value:
    """The chord of x for x > 0 and `slope` x below: as relu's, (n + n0) / (|x| + |r|), n = y sign(x)."""
    size, size0 = maximum(emit1(Abs(), x), least_size(x.dtype)), emit1(Abs(), x0)
    share = where(above(x, 0.0), size, size * slope)
    share0 = where(above(x0, 0.0), size0, size0 * slope)
    return (share + share0) / (size + size0)


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """y = x for x > 0, alpha x otherwise."""

    alpha: float
    mnemonic = "leaky_relu"
    precision = Precision.HALF
    cost = 2

    def numpy(self, x: Array) -> Array:
        return np.where(x < 0, x * x.dtype.type(self.alpha), x)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def slope(self, x: Value, y: Value) -> Value:
        return where(above(x, 0.0), constant(1.0, x.dtype), self.alpha)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return bent_chord(x, x0, self.alpha)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for alpha in (0.125, 0.0, -0.5, 1.5):
            yield Sample(cls(alpha), (randn(2, 7),), (0,), (0,))


@dataclass(frozen=True)
class PRelu(ZippedElementwise):
    """y = max(x, 0) + slope min(x, 0), the slope broadcast against x.

    By parts where both vary: m_x with the slope's mean, m_slope = mean of min(x, 0).
    """

    mnemonic = "prelu"
    precision = Precision.HALF
    cost = 2

    def numpy(self, *arrays: Array) -> Array:
        x, slope = arrays
        return np.where(x < 0, slope * x, x)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        if not fixed(degrees[1]):
            raise NotHomogeneous("its slope changes with scale")
        return degrees[0]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, slope = tensors(types)
        (y,) = super().infer(x, slope)
        require(isinstance(y, TensorType) and same_shape(y.dims, x.dims), f"{slope} doesn't broadcast to {x}")
        return (y,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        return super().vectorized(at) if at.batched[0] else None

    def linear_in(self, varying: frozenset[int]) -> bool:
        return varying == {1}

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return unbroadcast(ct * minimum(at.operands[0], 0.0), at.operands[1].shape)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        x, slope = at.operands
        inner = where(above(x, 0.0), constant(1.0, x.dtype), slope)
        return tuple(self.adjoint(cts[0], at, 1) if i else cts[0] * inner for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (x, slope), (x0, slope0) = at.operands, at0.operands
        slope = (slope + slope0) * 0.5 if 1 in wrt else slope
        below = (minimum(x, 0.0) + minimum(x0, 0.0)) * 0.5
        parts = {
            0: lambda: cts[0] * bent_chord(x, x0, slope),
            1: lambda: unbroadcast(cts[0] * below, slope.shape),
        }
        return tuple(parts[i]() for i in wrt)

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        i = only(frozenset(parts), frozenset({0}))
        return curve(self, between(self, at, i), at, at0, i, parts[i], reveal)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (randn(2, 3, 4), np.array([[0.25], [0.5], [-0.125]])), (0, 1), (0, None))
        yield Sample(cls(), (randn(2, 3, 4), randn(2, 3, 4, seed=1)), (0, 1), (0, 0))
        yield Sample(cls(), (randn(2, 3), np.array([0.25])), (0, 1), (0, None))


@dataclass(frozen=True)
class Selu(Elementwise):
    """y = gamma elu(x, alpha)."""

    alpha: float
    gamma: float
    mnemonic = "selu"
    precision = Precision.FULL
    cost = 4

    def numpy(self, x: Array) -> Array:
        return self.gamma * Elu(self.alpha).numpy(x)

    def slope(self, x: Value, y: Value) -> Value:
        return where(above(x, 0.0), constant(self.gamma, x.dtype), y + self.alpha * self.gamma)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return Elu(self.alpha).chord(x, x0, y, y0) * self.gamma

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1.6732631921768188, 1.0507010221481323), (randn(2, 7) * 2,), (0,), (0,))
        yield Sample(cls(0.5, 2.0), (randn(2, 7),), (0,), (0,))


@dataclass(frozen=True)
class Celu(Elementwise):
    """y = alpha elu(x / alpha): max(x, 0) + alpha (e^(min(x, 0)/alpha) - 1)."""

    alpha: float
    mnemonic = "celu"
    precision = Precision.FULL
    cost = 4

    def numpy(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def slope(self, x: Value, y: Value) -> Value:
        return where(above(x, 0.0), constant(1.0, x.dtype), y * (1.0 / self.alpha) + 1.0)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        scale = 1.0 / self.alpha
        return Elu(1.0).chord(x * scale, x0 * scale, y, y0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1.0), (randn(2, 7) * 2,), (0,), (0,))
        yield Sample(cls(0.5), (randn(2, 7),), (0,), (0,))


@dataclass(frozen=True)
class ThresholdedRelu(Elementwise):
    """y = x for x > alpha, 0 otherwise: it jumps by alpha, which the quotient of differences carries."""

    alpha: float
    mnemonic = "thresholded_relu"
    precision = Precision.HALF
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.where(x > self.alpha, x, 0)

    def slope(self, x: Value, y: Value) -> Value:
        return where(above(x, self.alpha), constant(1.0, x.dtype), 0.0)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return guarded_quotient(y - y0, x - x0, self.slope(x, y))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1.0), (randn(2, 7) * 2,), (0,), (0,))


@dataclass(frozen=True)
class Clip(Elementwise):
    """y = min(max(x, low), high); a bound may be missing.  Of the bounds the upper one wins.

    With one bound the chord is relu's; with two, the quotient of differences, which are of copies.
    """

    low: float | None
    high: float | None
    mnemonic = "clip"
    precision = Precision.HALF
    cost = 2

    def numpy(self, x: Array) -> Array:
        raised = x if self.low is None else np.maximum(x, x.dtype.type(self.low))
        return raised if self.high is None else np.minimum(raised, x.dtype.type(self.high))

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        if {self.low, self.high} <= {0.0, None}:
            return degrees[0]
        raise NotHomogeneous("its bounds don't scale")

    def slope(self, x: Value, y: Value) -> Value:
        # inside the bounds, and not on them: as relu at 0
        slope = constant(1.0, x.dtype)
        if self.low is not None:
            slope = where(above(x, self.low), slope, 0.0)
        return slope if self.high is None else where(above(-x, -self.high), slope, 0.0)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        if self.low is not None and self.high is not None:
            # at x = r = 0 the two go to where it is flat, as the slope at a bound is
            e, o = apart(x, x0, positive=self.high == 0.0)
            return (emit1(self, e) - emit1(self, o)) / (e - o)
        if self.low is not None:
            return relu_chord(x - self.low, x0 - self.low)
        if self.high is not None:
            return relu_chord(self.high - x, self.high - x0)
        return self.slope(x, y)

    def lone_chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        if self.low is None or self.high is None:
            return self.chord(x0, x, y0, y)
        x0 = emit1(Odd(positive=self.high == 0.0), x0)
        y0 = emit1(self, x0)
        return lone_quotient(y - y0, x - x0, self.slope(x0, y0))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for bounds in ((0.0, 1.0), (-0.5, None), (None, 0.5), (None, None), (1.0, -1.0)):
            yield Sample(cls(*bounds), (randn(2, 7) * 2,), (0,), (0,))


@dataclass(frozen=True)
class HardSigmoid(Elementwise):
    """y = clip(alpha x + beta, 0, 1); chord alpha times that of clip."""

    alpha: float
    beta: float
    mnemonic = "hard_sigmoid"
    precision = Precision.HALF
    cost = 4

    def numpy(self, x: Array) -> Array:
        return np.asarray(np.clip(x * x.dtype.type(self.alpha) + x.dtype.type(self.beta), 0, 1))

    def slope(self, x: Value, y: Value) -> Value:
        return Clip(0.0, 1.0).slope(y, y) * self.alpha

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        z, z0 = x * self.alpha + self.beta, x0 * self.alpha + self.beta
        clip = Clip(0.0, 1.0)
        return clip.chord(z, z0, emit1(clip, z), emit1(clip, z0)) * self.alpha

    def lone_chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        z, z0 = x * self.alpha + self.beta, x0 * self.alpha + self.beta
        return Clip(0.0, 1.0).lone_chord(z, z0, y, y0) * self.alpha

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0.25, 0.5), (randn(2, 7) * 3,), (0,), (0,))
        yield Sample(cls(-0.5, 0.25), (randn(2, 7) * 2,), (0,), (0,))
