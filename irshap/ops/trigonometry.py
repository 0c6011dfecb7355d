"""Circular and hyperbolic functions and their inverses.

Chords come from the addition theorems: the angles' difference only enters functions that are flat at 0, where
its rounding does no harm.  sinc(u) = sin(u)/u, sinhc(u) = sinh(u)/u, both 1 at 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Op, Precision, Sample, Value
from irshap.ir.types import Array
from irshap.ops.arithmetic import Abs, maximum, quotient_or_zero, where
from irshap.ops.elementwise import Exp, Sqrt, inverse_or_zero, phi, tanhc, unary_samples
from irshap.ops.families import Elementwise
from irshap.ops.logic import Less
from irshap.ops.program import constant
from irshap.ops.samples import randn

__all__ = ["Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Sin", "Sinh", "Tan"]


def over_itself(function: Op, u: Value) -> Value:
    """f(u)/u for an odd f of slope 1 at 0, and 1 there."""
    size = emit1(Abs(), u)
    flat = emit1(Less(), size, constant(float(np.finfo(u.dtype.numpy).eps) ** 0.5, u.dtype))
    safe = where(flat, 1.0, u)
    return where(flat, 1.0, emit1(function, safe) / safe)


def sinc(u: Value) -> Value:
    """sin(u)/u."""
    return over_itself(Sin(), u)


def sinhc(u: Value) -> Value:
    """sinh(u)/u = e^|u| phi(2|u|)."""
    size = emit1(Abs(), u)
    return emit1(Exp(), size) * phi(size * 2.0)


def hyperbolic_cosine(u: Value) -> Value:
    """cosh(u), of ops that have kernels for double."""
    return (emit1(Exp(), u) + emit1(Exp(), -u)) * 0.5


def inside(cls: type[Op]) -> Iterable[Sample]:
    """Values between -1 and 1."""
    yield Sample(cls(), (np.tanh(randn(2, 7)),), (0,), (0,))


@dataclass(frozen=True)
class Sin(Elementwise):
    """y = sin x; chord cos(mean) sinc(d/2)."""

    mnemonic = "sin"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.sin(x)

    def slope(self, x: Value, y: Value) -> Value:
        return emit1(Cos(), x)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return emit1(Cos(), (x + x0) * 0.5) * sinc((x - x0) * 0.5)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Cos(Elementwise):
    """y = cos x; chord -sin(mean) sinc(d/2)."""

    mnemonic = "cos"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.cos(x)

    def slope(self, x: Value, y: Value) -> Value:
        return -emit1(Sin(), x)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return -emit1(Sin(), (x + x0) * 0.5) * sinc((x - x0) * 0.5)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Tan(Elementwise):
    """y = tan x; chord sinc(d) / (cos x cos r)."""

    mnemonic = "tan"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.tan(x)

    def slope(self, x: Value, y: Value) -> Value:
        return y * y + 1.0

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return sinc(x - x0) / (emit1(Cos(), x) * emit1(Cos(), x0))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.tanh(randn(2, 7)),), (0,), (0,))


@dataclass(frozen=True)
class Asin(Elementwise):
    """y = asin x; chord 1 / (cos(mean y) sinc(Dy/2))."""

    mnemonic = "asin"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.arcsin(x)

    def slope(self, x: Value, y: Value) -> Value:
        return 1.0 / emit1(Sqrt(), (1.0 - x) * (1.0 + x))

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return inverse_or_zero(emit1(Cos(), (y + y0) * 0.5) * sinc((y - y0) * 0.5))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return inside(cls)


@dataclass(frozen=True)
class Acos(Elementwise):
    """y = acos x; chord -1 / (sin(mean y) sinc(Dy/2))."""

    mnemonic = "acos"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.arccos(x)

    def slope(self, x: Value, y: Value) -> Value:
        return -1.0 / emit1(Sqrt(), (1.0 - x) * (1.0 + x))

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return -inverse_or_zero(emit1(Sin(), (y + y0) * 0.5) * sinc((y - y0) * 0.5))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return inside(cls)


@dataclass(frozen=True)
class Atan(Elementwise):
    """y = atan x; for x r >= 0 chord atan(u)/u / (1 + x r), u = d/(1 + x r); else nothing cancels."""

    mnemonic = "atan"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.arctan(x)

    def slope(self, x: Value, y: Value) -> Value:
        return 1.0 / (x * x + 1.0)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        across = x * x0
        scale = maximum(across, 0.0) + 1.0
        stable = over_itself(self, (x - x0) / scale) / scale
        opposite = emit1(Less(), across, constant(0.0, x.dtype))
        return where(opposite, quotient_or_zero(y - y0, x - x0), stable)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls, 0.0, 100.0)


@dataclass(frozen=True)
class Sinh(Elementwise):
    """y = sinh x; chord cosh(mean) sinhc(d/2)."""

    mnemonic = "sinh"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.sinh(x)

    def slope(self, x: Value, y: Value) -> Value:
        return hyperbolic_cosine(x)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return hyperbolic_cosine((x + x0) * 0.5) * sinhc((x - x0) * 0.5)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Cosh(Elementwise):
    """y = cosh x; chord sinh(mean) sinhc(d/2)."""

    mnemonic = "cosh"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.cosh(x)

    def slope(self, x: Value, y: Value) -> Value:
        return x * sinhc(x)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        middle = (x + x0) * 0.5
        return middle * sinhc(middle) * sinhc((x - x0) * 0.5)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Asinh(Elementwise):
    """y = asinh x; chord 1 / (cosh(mean y) sinhc(Dy/2))."""

    mnemonic = "asinh"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.arcsinh(x)

    def slope(self, x: Value, y: Value) -> Value:
        return 1.0 / emit1(Sqrt(), x * x + 1.0)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return 1.0 / (hyperbolic_cosine((y + y0) * 0.5) * sinhc((y - y0) * 0.5))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls)


@dataclass(frozen=True)
class Acosh(Elementwise):
    """y = acosh x; chord 1 / (sinh(mean y) sinhc(Dy/2)), and 0 where both are 0."""

    mnemonic = "acosh"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.arccosh(x)

    def slope(self, x: Value, y: Value) -> Value:
        return 1.0 / emit1(Sqrt(), (x - 1.0) * (x + 1.0))

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        middle = (y + y0) * 0.5
        return inverse_or_zero(middle * sinhc(middle) * sinhc((y - y0) * 0.5))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.abs(randn(2, 7)) + 1.125,), (0,), (0,))


@dataclass(frozen=True)
class Atanh(Elementwise):
    """y = atanh x; chord 1 / (tanh(Dy)/Dy (1 - x r))."""

    mnemonic = "atanh"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.arctanh(x)

    def slope(self, x: Value, y: Value) -> Value:
        return 1.0 / ((1.0 - x) * (1.0 + x))

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return 1.0 / (tanhc(y - y0) * (1.0 - x * x0))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return inside(cls)
