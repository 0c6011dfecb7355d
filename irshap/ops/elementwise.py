"""Elementary functions and activations of one operand.

Chords are written without cancellation (rules.md section 2), with d = |x - r|, hi and lo the larger and the
smaller of the two, and phi(d) = (1 - e^-d)/d.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Op, Precision, Sample, Value
from irshap.ir.degrees import Degree
from irshap.ir.types import Array, DType
from irshap.ops.arithmetic import Abs, guarded_quotient, least_size, maximum, minimum, ratio, where
from irshap.ops.families import Elementwise
from irshap.ops.logic import Equal, Greater, Less
from irshap.ops.program import constant
from irshap.ops.samples import randn

__all__ = ["Elu", "Exp", "Log", "Logistic", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh"]
__all__ += ["inverse_or_zero", "least_angle", "logc", "phi", "tanhc", "unary_samples"]


def unary_samples(cls: type[Op], *shifts: float) -> Iterable[Sample]:
    """Values on both sides of zero, and around each shift."""
    for shift in shifts or (0.0,):
        yield Sample(cls(), (randn(2, 7) * 2 + shift,), (0,), (0,))


def tanhc(u: Value) -> Value:
    """tanh(u)/u, and 1 at 0.

    u is moved by the root of float32's smallest normal number, which rounds away unless u is about as small,
    and whose last digit is odd, so that no difference of numbers in use is its negative.  (ONNX Runtime drops
    an addition of what is 0 in float32.)
    """
    moved = u + least_angle(u.dtype)
    return emit1(Tanh(), moved) / moved


def least_angle(dtype: DType) -> float:
    """About the root of float32's smallest normal number, with an odd last digit."""
    kind = dtype.numpy.type
    return float(np.nextafter(kind(np.finfo(np.float32).tiny ** 0.5), kind(1)))


def _tanhc_of_half(x: Value, x0: Value) -> Value:
    """tanhc((x - r)/2): halved on either side of the pairs, where there is least to halve."""
    return tanhc(x * 0.5 - x0 * 0.5)


def phi(d: Value) -> Value:
    """(1 - e^-d)/d for d >= 0 = tanh(h) / (h (1 + tanh(h))) with h = d/2, and 1 at 0: rounded below eps/2."""
    some = maximum(d * 0.5, _eps(d) / 2)
    t = emit1(Tanh(), some)
    return t / (some * (1.0 + t))


def logc(v: Value) -> Value:
    """ln(v)/(v - 1) for v > 0, and 1 at 1.

    v - 1 is exact near 1, and the quotient barely depends on v there, so that v's own rounding does no harm
    (Kahan's way to compute ln(1 + u)).
    """
    one = emit1(Equal(), v, constant(1.0, v.dtype))
    return where(one, 1.0, emit1(Log(), v) / where(one, 1.0, v - 1.0))


def inverse_or_zero(u: Value) -> Value:
    """1/u for u >= 0, and 0 at 0."""
    nothing = emit1(Less(), u, constant(_tiny(u), u.dtype))
    return where(nothing, 0.0, 1.0 / where(nothing, 1.0, u))


def _eps(u: Value) -> float:
    return float(np.finfo(u.dtype.numpy).eps)


def _tiny(x: Value) -> float:
    return float(np.finfo(x.dtype.numpy).tiny)


@dataclass(frozen=True)
class Relu(Elementwise):
    """y = max(x, 0)."""

    mnemonic = "relu"
    precision = Precision.HALF
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def slope(self, x: Value, y: Value) -> Value:
        return where(emit1(Greater(), x, constant(0.0, x.dtype)), 1.0, constant(0.0, x.dtype))

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        # (y + y0) / (|x| + |r|): 1, 0, or the positive share of the way; no branch, no cancellation, and the
        # guard against 0/0 sits on the sample's side, which is R times smaller than the pairs
        return ratio(y + y0, maximum(emit1(Abs(), x), least_size(x.dtype)) + emit1(Abs(), x0))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Exp(Elementwise):
    """y = e^x; chord e^hi phi(d)."""

    mnemonic = "exp"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.exp(x)

    def slope(self, x: Value, y: Value) -> Value:
        return y

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return maximum(y, y0) * phi(emit1(Abs(), x - x0))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Sigmoid(Elementwise):
    """y = 1/(1 + e^-x); chord tanhc(d/2) (y (1 - y0) + y0 (1 - y))/2, which is tanh's of x/2.

    1 - y is as exact as y: to the rounding of 1.
    """

    mnemonic = "sigmoid"
    precision = Precision.HALF
    cost = 1

    def numpy(self, x: Array) -> Array:
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e))

    def slope(self, x: Value, y: Value) -> Value:
        return y * (1.0 - y)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return _tanhc_of_half(x, x0) * (y * 0.5 + y0 * (0.5 - y))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls, 0.0, 3.0)


@dataclass(frozen=True)
class Logistic(Sigmoid):
    """sigmoid(x) written out as 1/(1 + e^-x), which keeps its digits where it is small.

    ONNX Runtime's Sigmoid is right to 1e-7 of 1: 7 % off at x = -14, and 0 below -18, which is too far for
    what divides by a sum of several (one-versus-rest probabilities).
    """

    mnemonic = "logistic"
    precision = Precision.FULL
    cost = 3

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        rest, rest0 = emit1(self, -x), emit1(self, -x0)
        return _tanhc_of_half(x, x0) * (y * rest0 + y0 * rest) * 0.5


@dataclass(frozen=True)
class Tanh(Elementwise):
    """y = tanh x; chord tanh(d)/d (1 - tanh x tanh r)."""

    mnemonic = "tanh"
    precision = Precision.HALF
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.tanh(x)

    def slope(self, x: Value, y: Value) -> Value:
        return 1.0 - y * y

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return tanhc(x - x0) * (1.0 - y * y0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Softplus(Elementwise):
    """y = ln(1 + e^x), slope sigmoid(x).

    With v = e^(y0 - y) = sig(-hi) + sig(hi) e^-d in worlds ordered by x: chord sig(hi) phi(d) ln(v)/(v - 1).
    Where d is large v may underflow, and the quotient loses nothing.
    """

    mnemonic = "softplus"
    precision = Precision.FULL
    cost = 2

    def numpy(self, x: Array) -> Array:
        return np.logaddexp(x, np.zeros_like(x))

    def slope(self, x: Value, y: Value) -> Value:
        return emit1(Sigmoid(), x)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        d, hi = emit1(Abs(), x - x0), maximum(x, x0)
        up, down = emit1(Sigmoid(), hi), emit1(Sigmoid(), -hi)
        v = maximum(down + up * emit1(Exp(), -d), 0.25)
        return guarded_quotient(y - y0, x - x0, up * phi(d) * logc(v), 1.0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Elu(Elementwise):
    """y = x for x > 0, alpha (e^x - 1) otherwise."""

    alpha: float = 1.0
    mnemonic = "elu"
    precision = Precision.FULL
    cost = 3

    def numpy(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def slope(self, x: Value, y: Value) -> Value:
        return where(emit1(Greater(), x, constant(0.0, x.dtype)), 1.0, y + self.alpha)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        # the linear part has relu's chord, the exponential part that of exp on min(x, 0)
        low, low0 = minimum(x, 0.0), minimum(x0, 0.0)
        relu = Relu().chord(x, x0, emit1(Relu(), x), emit1(Relu(), x0))
        below = Exp().chord(low, low0, emit1(Exp(), low), emit1(Exp(), low0))
        return relu + (1.0 - relu) * self.alpha * below

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield from unary_samples(cls)
        yield Sample(cls(0.75), (randn(2, 7),), (0,), (0,))


@dataclass(frozen=True)
class Sqrt(Elementwise):
    """y = sqrt x; chord 1/(sqrt x + sqrt r), and 0 where both are 0."""

    mnemonic = "sqrt"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.sqrt(x)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return None if degrees[0] is None else degrees[0] / 2

    def slope(self, x: Value, y: Value) -> Value:
        return 0.5 / y

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return inverse_or_zero(y + y0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.abs(randn(2, 7)) + 0.1,), (0,), (0,))


@dataclass(frozen=True)
class Log(Elementwise):
    """y = ln x, slope 1/x; with v = lo/hi chord (1/hi) ln(v)/(v - 1)."""

    mnemonic = "log"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.log(x)

    def slope(self, x: Value, y: Value) -> Value:
        return 1.0 / x

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        hi = maximum(x, x0)
        return logc(maximum(minimum(x, x0) / hi, _tiny(x))) / hi

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.abs(randn(2, 7)) + 0.5,), (0,), (0,))
