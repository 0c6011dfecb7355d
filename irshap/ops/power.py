"""Powers: x^p with a constant exponent, x^p with any two operands, and 1/x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Op, Point, Precision, Sample, Value
from irshap.ir.degrees import Degree, NotHomogeneous
from irshap.ir.types import Array
from irshap.ops.arithmetic import Abs, maximum, minimum, quotient_or_zero, where
from irshap.ops.elementwise import Log, Sqrt, inverse_or_zero, logc, phi, unary_samples
from irshap.ops.families import Elementwise, ZippedElementwise
from irshap.ops.logic import Greater
from irshap.ops.program import constant
from irshap.ops.reduce import unbroadcast
from irshap.ops.samples import randn

__all__ = ["Pow", "Power", "Reciprocal"]


def power(x: Value, exponent: float) -> Value:
    """Emits x^exponent in its simplest form."""
    if exponent == 1.0:
        return x
    return x * x if exponent == 2.0 else emit1(_ROOTS.get(exponent, Power(exponent)), x)


def positive(x: Value) -> Value:
    """Where x > 0."""
    return emit1(Greater(), x, constant(0.0, x.dtype))


def base_chord(x: Value, x0: Value, exponent: Value | float, y: Value, y0: Value) -> Value:
    """(x^p - x0^p) / (x - x0).

    For bases of one sign, with hi and lo the larger and the smaller magnitude, v = lo/hi and L = -ln v, it is
    p y/x phi(|p| L) ln(v)/(v - 1), y the larger of the two powers and x the larger of the two bases in
    magnitude.  Otherwise nothing cancels in the quotient, since the powers have different signs or one is 0
    (except in even powers, which `Power` treats apart).
    """
    alike = positive(x * x0)
    a, a0 = emit1(Abs(), x), emit1(Abs(), x0)
    hi, lo = where(alike, maximum(a, a0), 1.0), where(alike, minimum(a, a0), 1.0)
    v = maximum(lo / hi, float(np.finfo(x.dtype.numpy).tiny))
    size = emit1(Abs(), exponent) if isinstance(exponent, Value) else abs(exponent)
    sign = where(positive(x), constant(1.0, x.dtype), -1.0)
    top = where(positive(y), maximum(y, y0), minimum(y, y0))
    stable = top * exponent / (hi * sign) * phi(emit1(Log(), v) * -size) * logc(v)
    return where(alike, stable, quotient_or_zero(y - y0, x - x0))


def whole_power(x: Value, x0: Value, exponent: int) -> tuple[Value, Value, Value | float]:
    """x^n, x0^n and their chord, by products: chord(u v) = mean(v) chord(u) + mean(u) chord(v)."""
    if exponent == 1:
        return x, x0, 1.0
    if exponent % 2 == 0:
        u, u0, chord = whole_power(x, x0, exponent // 2)
        return u * u, u0 * u0, (u + u0) * chord
    u, u0, chord = whole_power(x, x0, exponent - 1)
    return u * x, u0 * x0, (x + x0) * 0.5 * chord + (u + u0) * 0.5


@dataclass(frozen=True)
class Power(Elementwise):
    """y = x^p for a constant p; chord x + r for 2, 1/(sqrt x + sqrt r) for 1/2, and so on."""

    exponent: float
    mnemonic = "power"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.asarray(np.power(x, x.dtype.type(self.exponent)))

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        if degrees[0] is None:
            raise NotHomogeneous("it is a power of zero")
        return degrees[0] * self.exponent

    def slope(self, x: Value, y: Value) -> Value:
        if self.exponent in (0.0, 1.0):
            return constant(self.exponent, x.dtype)
        return power(x, self.exponent - 1.0) * self.exponent

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        p = self.exponent
        if p in (0.0, 1.0):
            return constant(p, x.dtype)
        if p in range(2, 17):
            _, _, chord = whole_power(x, x0, int(p))
            assert isinstance(chord, Value)
            return chord
        if p == 0.5:
            return inverse_or_zero(y + y0)
        if p == -0.5:
            return -(y * y0) * (y * y0 / (y + y0))
        if p == -1.0:
            return -(y * y0)
        return base_chord(x, x0, p, y, y0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        above, any_sign = np.abs(randn(2, 7)) + 0.25, randn(2, 7)
        for p in (0.5, -0.5, 0.75, 2.5, -1.5, -3.0, 0.125):
            yield Sample(cls(p), (above,), (0,), (0,))
        for p in (0.0, 1.0, 2.0, 3.0, 5.0, 16.0, 17.0):
            yield Sample(cls(p), (any_sign,), (0,), (0,))
        for p in (-1.0, -3.0):
            yield Sample(cls(p), (any_sign + 0.5 * np.sign(any_sign),), (0,), (0,))


@dataclass(frozen=True)
class Reciprocal(Elementwise):
    """y = 1/x; chord -1/(x r)."""

    mnemonic = "reciprocal"
    precision = Precision.FULL
    cost = 1

    def numpy(self, x: Array) -> Array:
        return np.asarray(1 / x)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        if degrees[0] is None:
            raise NotHomogeneous("it divides by zero")
        return -degrees[0]

    def slope(self, x: Value, y: Value) -> Value:
        return -(y * y)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return -(y * y0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return unary_samples(cls, 7.0, -7.0)


@dataclass(frozen=True)
class Pow(ZippedElementwise):
    """z = a^b.

    Where both vary, each one's chord is the mean of its chords at the other's two values: two players, as in
    rules.md section 4.  In the exponent, b ln a is that of an exponential: ln(a) max(z, z0) phi(|Db ln a|).
    """

    mnemonic = "pow"
    precision = Precision.FULL
    cost = 1

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.power(*arrays))

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        a, b = at.operands
        found = []
        for i in wrt:
            slope = b * emit1(self, a, b - 1.0) if i == 0 else at.results[0] * self._log(a)
            found.append(unbroadcast(cts[0] * slope, at.operands[i].shape))
        return tuple(found)

    def _log(self, a: Value) -> Value:
        """ln a, and 0 where there is none."""
        real = positive(a)
        return where(real, emit1(Log(), where(real, a, 1.0)), 0.0)

    def _exponent_chord(self, a: Value, b: Value, b0: Value, z: Value, z0: Value) -> Value:
        log, db = self._log(a), b - b0
        stable = log * maximum(z, z0) * phi(emit1(Abs(), db * log))
        return where(positive(a), stable, quotient_or_zero(z - z0, db))

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (a, b), (a0, b0) = at.operands, at0.operands
        z, z0 = at.results[0], at0.results[0]
        # an operand that doesn't vary is the same in both worlds: the two chords below are one then
        only_a, only_b = emit1(self, a, b0), emit1(self, a0, b)
        found = []
        for i in wrt:
            if i == 0:
                chords = base_chord(a, a0, b, z, only_b), base_chord(a, a0, b0, only_a, z0)
            else:
                chords = (
                    self._exponent_chord(a, b, b0, z, only_a),
                    self._exponent_chord(a0, b, b0, only_b, z0),
                )
            chord = chords[0] if chords[0] is chords[1] else (chords[0] + chords[1]) * 0.5
            found.append(unbroadcast(cts[0] * chord, at.operands[i].shape))
        return tuple(found)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        bases = np.abs(randn(2, 7)) + 0.25
        yield Sample(cls(), (bases, randn(2, 7)), (0, 1), (0, 0))
        yield Sample(cls(), (bases, randn(7)), (0, 1))
        yield Sample(cls(), (bases, np.array([[0.5], [-3.0]])), (0,), (0, 0))
        yield Sample(cls(), (np.array(2.0), randn(2, 7)), (0, 1), (None, 0))
        yield Sample(cls(), (randn(2, 7) * 2, np.array([2.0, 3, 1, 0, 5, -1, -2])), (0,), (0, None))
        yield Sample(cls(), (np.array([[2, -3]]), np.array([[3, 2]])), batch=(0, 0))


_ROOTS: dict[float, Op] = {0.5: Sqrt(), -1.0: Reciprocal()}
