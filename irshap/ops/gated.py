"""Activation functions y = x g(x) with a smooth or piecewise linear gate g, and Erf and Softsign.

A product of two has the exact chord mean(g) + mean(x) chord(g).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import erf, pi
from operator import truediv
from typing import ClassVar, TypeVar

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Precision, Sample, Value
from irshap.ir.types import Array, DType
from irshap.ops.activations import Clip
from irshap.ops.apart import Odd, apart, lone_quotient
from irshap.ops.arithmetic import Abs, maximum, quadrature_chord
from irshap.ops.elementwise import Exp, Relu, Sigmoid, Softplus, Tanh, unary_samples
from irshap.ops.families import Elementwise
from irshap.ops.samples import randn

__all__ = ["Erf", "Gelu", "HardSwish", "Mish", "Softsign", "Swish"]

_ERF_SLOPE: float = 2 / pi**0.5


def regularized_chord(
    x: Value, x0: Value, y: Value, y0: Value, expansion: Callable[[float], tuple[Value, Value]]
) -> Value:
    """(dy dx + h^2 t) / (dx^2 + h^2): dy/dx, going over to t = f' - f'' dx/2, its expansion, where |dx| < h.

    The expansion is short of dy/dx by dx^2/6 of the third derivative: near 0 the error is at most h^2/6 of
    it, and where |dx| > h it is the quotient's rounding.  Far away the gap dy - m dx is h^2 f''/2.
    h = eps^(5/12) keeps both near the rounding of y.  No branch: few passes over pairs, since `expansion`,
    which gives s f' and s f''/2 for a factor s, is the sample's alone.
    """
    squared: float = float(np.finfo(x.dtype.numpy).eps) ** (5 / 6)
    slope, bend = expansion(squared)
    dx = x - x0
    # h^2 t = h^2 f' - (h^2 f''/2) dx, whose second part goes into dy
    return (((y - bend) - y0) * dx + slope) / (dx * dx + squared)


@dataclass(frozen=True)
class Erf(Elementwise):
    """y = 2/sqrt(pi) times the integral of e^(-t^2) from 0 to x; no closed chord is known."""

    mnemonic = "erf"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.asarray(np.vectorize(erf, otypes=[np.float64])(x))

    def slope(self, x: Value, y: Value) -> Value:
        return emit1(Exp(), -x * x) * _ERF_SLOPE

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return quadrature_chord(self, x, x0, y, y0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Softsign(Elementwise):
    """y = x/(1 + |x|); chord (1 + 2 max(-x r, 0)/(|x| + |r|)) / ((1 + |x|)(1 + |r|))."""

    mnemonic = "softsign"
    precision = Precision.HALF
    cost = 3

    def numpy(self, x: Array) -> Array:
        return np.asarray(x / (1 + np.abs(x)))

    def slope(self, x: Value, y: Value) -> Value:
        shrunk = 1.0 / (emit1(Abs(), x) + 1.0)
        return shrunk * shrunk

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        a, a0 = emit1(Abs(), x), emit1(Abs(), x0)
        tiny = float(np.finfo(x.dtype.numpy).tiny)
        across = emit1(Relu(), -x * x0) * 2.0 / maximum(a + a0, tiny)
        return (across + 1.0) / ((a + 1.0) * (a0 + 1.0))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


class _Gated(Elementwise, family=True):
    """y = x g(x)."""

    REQUIRED: ClassVar[dict[str, str]] = {
        "gate": "def gate(self, x) -> g(x)",
        "gate_numpy": "def gate_numpy(self, x) -> g(x) in numpy",
        "gate_slope": "def gate_slope(self, x, g) -> g'(x)",
        "gate_chord": "def gate_chord(self, x, x0, g, g0) -> the chord of g",
        "cost": "flops for each element",
    }

    @abstractmethod
    def gate(self, x: Value) -> Value:
        """g(x)."""

    @abstractmethod
    def gate_numpy(self, x: Array) -> Array:
        """g(x) in numpy."""

    @abstractmethod
    def gate_slope(self, x: Value, g: Value) -> Value:
        """g'(x)."""

    @abstractmethod
    def gate_chord(self, x: Value, x0: Value, g: Value, g0: Value) -> Value:
        """(g - g0) / (x - x0)."""

    def numpy(self, x: Array) -> Array:
        return x * self.gate_numpy(x)

    def slope(self, x: Value, y: Value) -> Value:
        g = self.gate(x)
        return g + x * self.gate_slope(x, g)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        g, g0 = self.gate(x), self.gate(x0)
        return (g + g0) * 0.5 + (x + x0) * 0.5 * self.gate_chord(x, x0, g, g0)


_Real = TypeVar("_Real", Value, Array)
_SIXTH = float(np.float32(1 / 6))


@dataclass(frozen=True)
class HardSwish(_Gated):
    """y = x clip(x/6 + 1/2, 0, 1), the 1/6 being a float32 number as ONNX has it.

    With z = x/6 + 1/2, p = clip(z, 0, 1) and q = relu(z), y/6 is p (p - 3/2) + q: where z > 1, p is 1.  So
    m = ((p - p0) (p + p0 - 3/2) + q - q0) / (z - z0), whose differences are of copies.
    """

    mnemonic = "hard_swish"
    precision = Precision.HALF
    cost = 5

    def gate(self, x: Value) -> Value:
        return emit1(Clip(0.0, 1.0), self._line(x))

    def gate_numpy(self, x: Array) -> Array:
        return np.asarray(np.clip(self._line(x), 0, 1))

    def _line(self, x: _Real) -> _Real:
        return x * _SIXTH + 0.5

    def gate_slope(self, x: Value, g: Value) -> Value:
        return Clip(0.0, 1.0).slope(g, g) * _SIXTH

    def gate_chord(self, x: Value, x0: Value, g: Value, g0: Value) -> Value:
        return Clip(0.0, 1.0).chord(self._line(x), self._line(x0), g, g0) * _SIXTH

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return self._quotient(*apart(self._line(x), self._line(x0)), truediv)

    def lone_chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        z, z0 = self._line(x), emit1(Odd(positive=False), self._line(x0))
        slope = self.slope(x0, y0)
        return self._quotient(z, z0, lambda dy, dz: lone_quotient(dy, dz, slope))

    def _quotient(self, z: Value, z0: Value, divide: Callable[[Value, Value], Value]) -> Value:
        p, p0 = (emit1(Clip(0.0, 1.0), v) for v in (z, z0))
        q, q0 = (emit1(Relu(), v) for v in (z, z0))
        return divide((p - p0) * ((p - 1.5) + p0) + (q - q0), z - z0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls, 0.0, 3.0)


@dataclass(frozen=True)
class Swish(_Gated):
    """y = x sigmoid(alpha x)."""

    alpha: float
    mnemonic = "swish"
    precision = Precision.FULL
    cost = 3

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        def expansion(scale: float) -> tuple[Value, Value]:
            g = self.gate(x)
            scaled = g * scale
            first = scaled * (1.0 - g)
            second = x * self.alpha * first
            return scaled + second, (first + second * (0.5 - g)) * self.alpha

        return regularized_chord(x, x0, y, y0, expansion)

    def gate(self, x: Value) -> Value:
        return emit1(Sigmoid(), x * self.alpha)

    def gate_numpy(self, x: Array) -> Array:
        return Sigmoid().numpy(x * x.dtype.type(self.alpha))

    def gate_slope(self, x: Value, g: Value) -> Value:
        return g * (1.0 - g) * self.alpha

    def gate_chord(self, x: Value, x0: Value, g: Value, g0: Value) -> Value:
        return Sigmoid().chord(x * self.alpha, x0 * self.alpha, g, g0) * self.alpha

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1.0), (randn(2, 7) * 2,), (0,), (0,))
        yield Sample(cls(-1.5), (randn(2, 7) * 2,), (0,), (0,))


@dataclass(frozen=True)
class Mish(_Gated):
    """y = x tanh(softplus(x))."""

    mnemonic = "mish"
    precision = Precision.FULL
    cost = 4

    def gate(self, x: Value) -> Value:
        return emit1(Tanh(), emit1(Softplus(), x))

    def gate_numpy(self, x: Array) -> Array:
        return np.tanh(Softplus().numpy(x))

    def gate_slope(self, x: Value, g: Value) -> Value:
        return (1.0 - g * g) * emit1(Sigmoid(), x)

    def gate_chord(self, x: Value, x0: Value, g: Value, g0: Value) -> Value:
        u, u0 = emit1(Softplus(), x), emit1(Softplus(), x0)
        return Tanh().chord(u, u0, g, g0) * Softplus().chord(x, x0, u, u0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


_ROOT_HALF: float = 0.5**0.5
_TANH_SCALE: float = (2 / pi) ** 0.5
_CUBIC = 0.044715


@dataclass(frozen=True)
class Gelu(_Gated):
    """y = x P(Z < x) for a normal Z: x (1 + erf(x/sqrt 2))/2.

    With `tanh` its usual approximation x (1 + tanh u)/2, u = sqrt(2/pi) (x + 0.044715 x^3).
    """

    tanh: bool
    mnemonic = "gelu"
    precision = Precision.FULL
    cost = 5

    def gate(self, x: Value) -> Value:
        inner = emit1(Tanh(), self._cubic(x)) if self.tanh else emit1(Erf(), x * _ROOT_HALF)
        return (inner + 1.0) * 0.5

    def _cubic(self, x: _Real) -> _Real:
        return x * (x * x * _CUBIC + 1.0) * _TANH_SCALE

    def gate_numpy(self, x: Array) -> Array:
        inner = np.tanh(self._cubic(x)) if self.tanh else Erf().numpy(x * _ROOT_HALF)
        return (inner + 1) * 0.5

    def gate_slope(self, x: Value, g: Value) -> Value:
        if self.tanh:
            return g * (1.0 - g) * (x * x * (3 * _CUBIC) + 1.0) * (2 * _TANH_SCALE)
        return emit1(Exp(), x * x * -0.5) * (0.5 * _TANH_SCALE)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        if x.dtype is DType.F64:
            # whoever asks for float64 wants its digits, of which the form with few passes loses half
            return super().chord(x, x0, y, y0)

        def expansion(scale: float) -> tuple[Value, Value]:
            g = self.gate(x)
            slope = self.gate_slope(x, g) * scale
            # half of g'' over g', which is -x for the normal distribution itself
            half = x * -0.5
            if self.tanh:
                inner = (x * x * (3 * _CUBIC) + 1.0) * _TANH_SCALE
                half = x * (3 * _CUBIC * _TANH_SCALE) / inner - (g * 2.0 - 1.0) * inner
            return g * scale + x * slope, slope + x * slope * half

        return regularized_chord(x, x0, y, y0, expansion)

    def gate_chord(self, x: Value, x0: Value, g: Value, g0: Value) -> Value:
        if not self.tanh:
            u, u0 = x * _ROOT_HALF, x0 * _ROOT_HALF
            return Erf().chord(u, u0, emit1(Erf(), u), emit1(Erf(), u0)) * (0.5 * _ROOT_HALF)
        u, u0 = self._cubic(x), self._cubic(x0)
        outer = Tanh().chord(u, u0, emit1(Tanh(), u), emit1(Tanh(), u0))
        return outer * ((x * x + x * x0 + x0 * x0) * _CUBIC + 1.0) * (0.5 * _TANH_SCALE)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for tanh in (False, True):
            yield Sample(cls(tanh), (randn(2, 7) * 2,), (0,), (0,))
