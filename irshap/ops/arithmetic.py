"""Arithmetic with broadcasting, Python's operators on values, and the quotients behind generic secants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import truediv

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import (
    OPERATORS,
    LinearPart,
    NoLocalRule,
    Op,
    Point,
    Precision,
    Sample,
    Value,
    require,
    tensors,
)
from irshap.ir.degrees import Degree, NotHomogeneous, fixed, joined
from irshap.ir.dims import same_shape
from irshap.ir.types import Array, DType, Type
from irshap.ops.families import Bilinear, Elementwise, Linear, ZippedElementwise, broadcast
from irshap.ops.logic import Equal, Greater, Less
from irshap.ops.parts import Chord, Parts, Sharing, curve, only, replaced
from irshap.ops.program import constant
from irshap.ops.reduce import unbroadcast
from irshap.ops.samples import randn
from irshap.ops.shape import Reshape

__all__ = ["Abs", "Add", "Div", "Max", "Min", "Mul", "Neg", "Ratio", "Share", "Sub", "Where", "apply"]
__all__ += [
    "between",
    "guarded_quotient",
    "least_size",
    "maximum",
    "minimum",
    "quadrature_chord",
    "quotient_or_zero",
    "ratio",
]
__all__ += ["share_quotient", "sized", "where"]


def apply(op: Op, *operands: Value | float) -> Value:
    """Emits `op`; a plain number becomes a scalar constant of the dtype of the operands that are values."""
    dtype = next(v.dtype for v in operands if not isinstance(v, int | float))
    values = [constant(v, dtype) if isinstance(v, int | float) else v for v in operands]
    return emit1(op, *values)


def maximum(a: Value | float, b: Value | float) -> Value:
    """max(a, b) elementwise."""
    return apply(Max(), a, b)


def minimum(a: Value | float, b: Value | float) -> Value:
    """min(a, b) elementwise."""
    return apply(Min(), a, b)


def where(condition: Value, a: Value | float, b: Value | float) -> Value:
    """A where the condition holds, b elsewhere."""
    dtype = next(v.dtype for v in (a, b) if not isinstance(v, int | float))
    values = (constant(v, dtype) if isinstance(v, int | float) else v for v in (a, b))
    return emit1(Where(), condition, *values)


def quadrature_chord(op: Elementwise, x: Value, x0: Value, y: Value, y0: Value) -> Value:
    """(y - y0) / (x - x0), and where that would cancel the slope's mean by two Gauss-Legendre points.

    For a function without a chord in closed form.  The threshold eps^(1/5) balances the quotient's rounding,
    eps / |d|, against the mean's truncation, d^4 / 4320 times the fifth derivative.
    """
    d = x - x0
    middle, reach = (x + x0) * 0.5, d * (0.5 / 3**0.5)
    ends = [middle + reach, middle - reach]
    first, second = (op.slope(u, emit1(op, u)) for u in ends)
    smallest: float = float(np.finfo(x.dtype.numpy).eps) ** (1 / 5)
    return guarded_quotient(y - y0, d, (first + second) * 0.5, smallest)


def between(op: Op, at: Point, i: int) -> Chord:
    """The chord of an op in operand `i`, elementwise, from its secant."""

    def chord(u: Value, u0: Value, y: Value, y0: Value) -> Value:
        end, end0 = (Point(replaced(at, i, v), (w,)) for v, w in ((u, y), (u0, y0)))
        (slope,) = op.secant([constant(1.0, u.dtype)], end, end0, (i,))
        return slope

    return chord


def ratio(u: Value, v: Value) -> Value:
    """u / v where |u| <= |v|."""
    return emit1(Ratio(), u, v)


def guarded_quotient(
    dy: Value,
    dx: Value,
    otherwise: Value,
    smallest: float | None = None,
    divide: Callable[[Value, Value], Value] = truediv,
) -> Value:
    """dy / dx where |dx| is at least `smallest`, and `otherwise` elsewhere.

    Without `smallest` only a dx of 0 (or below the normal numbers) is guarded: right where dy is exact, as
    the difference of two copies of operands.  `divide` is `ratio` where |dy| <= |dx|.
    """
    smallest = float(np.finfo(dx.dtype.numpy).tiny) if smallest is None else smallest
    tiny = emit1(Less(), emit1(Abs(), dx), constant(smallest, dx.dtype))
    return where(tiny, otherwise, divide(dy, where(tiny, 1.0, dx)))


def quotient_or_zero(dy: Value, dx: Value) -> Value:
    """dy / dx, and 0 where dx is 0: what doesn't change gets nothing."""
    return guarded_quotient(dy, dx, constant(0.0, dx.dtype))


def share_quotient(share: Value, dx: Value) -> Value:
    """share / dx for a share that is 0 where dx is: dx + float32's smallest normal number, and no branch.

    That rounds away unless |dx| is about 1e-31 or less.  The number's last digit is odd, so that nothing but
    its negative cancels it.  (ONNX Runtime drops an addition of what is 0 in float32.)  In float16,
    differences do get as small, and a comparison tells them apart.
    """
    if dx.dtype is DType.F16:
        return share / where(emit1(Equal(), dx, constant(0.0, dx.dtype)), 1.0, dx)
    return emit1(Share(), share, dx + least(dx.dtype))


def least(dtype: DType) -> float:
    """About float32's smallest normal number, with an odd last digit."""
    kind = dtype.numpy.type
    return float(np.nextafter(kind(np.finfo(np.float32).tiny), kind(1)))


def least_size(dtype: DType) -> float:
    """The least size of a divisor: the smallest normal number, but none that float32 takes for 0.

    The reference's size may be this constant, and ONNX Runtime drops an addition of what is 0 in float32.
    """
    return least(dtype) if dtype is DType.F64 else float(np.finfo(dtype.numpy).tiny)


def sized(weight: Value, absolute: bool) -> Value:
    """A coefficient, or its absolute value."""
    return emit1(Abs(), weight) if absolute else weight


def _scaled(operands: Sequence[Value], i: int, absolute: bool) -> tuple[Value, ...]:
    return tuple(v if j == i else sized(v, absolute) for j, v in enumerate(operands))


def _pairs(cls: type[Op], *, varying: tuple[int, ...] = (0, 1), shift: float = 0.0) -> Iterable[Sample]:
    """Operand pairs with each kind of broadcasting."""
    a, b = randn(2, 3, 4), randn(2, 3, 4, seed=1) + shift
    yield Sample(cls(), (a, b), varying, (0, 0))
    yield Sample(cls(), (a, b[:, :1]), varying, (0, 0))
    yield Sample(cls(), (a, b[0, 0]), varying, (0, None) if 1 not in varying else None)
    yield Sample(cls(), (a[0, :1], b), varying)


@dataclass(frozen=True)
class Add(Linear, ZippedElementwise):
    """z = a + b."""

    mnemonic = "add"
    precision = Precision.HALF
    nonnegative = True
    cost = 1

    def numpy(self, *arrays: Array) -> Array:
        return arrays[0] + arrays[1]

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return unbroadcast(ct, at.operands[i].shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return _pairs(cls)


@dataclass(frozen=True)
class Sub(Linear, ZippedElementwise):
    """z = a - b."""

    mnemonic = "sub"
    precision = Precision.HALF
    cost = 1

    def numpy(self, *arrays: Array) -> Array:
        return arrays[0] - arrays[1]

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return unbroadcast(ct if i == 0 else -ct, at.operands[i].shape)

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        op, given = Add().linear_part(operands, varying, absolute)
        return (op if absolute else self), given

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return _pairs(cls)


@dataclass(frozen=True)
class Mul(Bilinear, ZippedElementwise):
    """z = a * b."""

    mnemonic = "mul"
    precision = Precision.HALF
    cost = 1

    def numpy(self, *arrays: Array) -> Array:
        return arrays[0] * arrays[1]

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return unbroadcast(ct * at.operands[1 - i], at.operands[i].shape)

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        return self, _scaled(operands, only(varying, frozenset({0, 1})), absolute)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return _pairs(cls)


@dataclass(frozen=True)
class Div(ZippedElementwise):
    """z = u / v; between two worlds m_u = (1/v + 1/v0)/2, m_v = -mean(u) / (v v0) (rules.md section 4)."""

    mnemonic = "div"
    precision = Precision.FULL
    cost = 1

    def numpy(self, *arrays: Array) -> Array:
        a, b = arrays
        if a.dtype.kind not in "iu":
            return np.asarray(a / b)
        quotient = np.abs(a) // np.maximum(np.abs(b), 1)
        return np.asarray(np.sign(a) * np.sign(b) * quotient, a.dtype)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return varying == {0}

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        if i != 0:
            raise NoLocalRule("not linear in the divisor")
        return unbroadcast(ct / at.operands[1], at.operands[0].shape)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        over, under = degrees
        if under is None:
            raise NotHomogeneous("it divides by zero")
        return None if over is None else over - under

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        return self, _scaled(operands, only(varying, frozenset({0})), absolute)

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        raise NoLocalRule("RevealCancel needs the divisor to be the same in both worlds")

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        u, v = at.operands
        partial = {0: lambda: cts[0] / v, 1: lambda: -cts[0] * u / (v * v)}
        return tuple(unbroadcast(partial[i](), at.operands[i].shape) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (u, v), (u0, v0) = at.operands, at0.operands
        partial = {
            0: lambda: cts[0] * (1.0 / v + 1.0 / v0) * 0.5,
            1: lambda: -cts[0] * (u + u0) * 0.5 / (v * v0),
        }
        return tuple(unbroadcast(partial[i](), at.operands[i].shape) for i in wrt)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield from _pairs(cls, shift=5.0)
        yield Sample(cls(), (np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])))


class _Guarded(Div, family=True):
    """A division by what is 0 only where the dividend is, and then guarded by the least size of a number.

    The quotient has no limit there, and its derivative, which training follows, none: it is 0.
    """

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        v = at.operands[1]
        one, zero = (constant(number, v.dtype) for number in (1.0, 0.0))
        inverse = guarded_quotient(one, v, zero, 2.0 * least_size(v.dtype))
        partial = {0: lambda: cts[0] * inverse, 1: lambda: -cts[0] * (at.results[0] * inverse)}
        return tuple(unbroadcast(partial[i](), at.operands[i].shape) for i in wrt)


@dataclass(frozen=True)
class Share(_Guarded):
    """z = u / v, what an element gets for each of its difference v."""

    mnemonic = "share"
    precision = Precision.FULL

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return _pairs(cls, shift=5.0)


@dataclass(frozen=True)
class Ratio(_Guarded):
    """z = u / v where |u| <= |v|: the chord of a function that is nowhere steeper than 1.

    It neither over- nor underflows where its operands don't, so that half precision loses its rounding only.
    """

    mnemonic = "ratio"
    precision = Precision.HALF

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        u, v = randn(2, 3, 4), randn(2, 3, 4, seed=1)
        yield Sample(cls(), (u, np.abs(u) + np.abs(v) + 0.5), (0, 1), (0, 0))
        yield Sample(cls(), (u, np.abs(u).max((0, 2), keepdims=True) + 0.5), (0, 1), (0, None))


@dataclass(frozen=True)
class Neg(Linear, Elementwise):
    """y = -x."""

    mnemonic = "neg"
    precision = Precision.HALF
    cost = 1

    def numpy(self, x: Array) -> Array:
        return -x

    def slope(self, x: Value, y: Value) -> Value:
        return constant(-1.0, x.dtype)

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return self.slope(x, y)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return -ct

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        return (Reshape(operands[0].shape) if absolute else self), tuple(operands)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (randn(2, 3),), (0,), (0,))


@dataclass(frozen=True)
class Where(ZippedElementwise):
    """z = a where the condition holds, else b: linear in a and b where the condition doesn't vary."""

    mnemonic = "where"
    precision = Precision.DATA
    nonnegative = True
    cost = 1

    def numpy(self, *arrays: Array) -> Array:
        return np.where(arrays[0], arrays[1], arrays[2])

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        if not fixed(degrees[0]):
            raise NotHomogeneous("its condition changes with scale")
        return joined(degrees[1:])

    def infer(self, *types: Type) -> tuple[Type, ...]:
        operands = tensors(types)
        require(len(operands) == 3 and operands[0].dtype is DType.BOOL, "takes a condition and two tensors")
        require(operands[1].dtype is operands[2].dtype, "operands have different element types")
        return (operands[1].with_shape(broadcast([t.dims for t in operands])),)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return 0 not in varying

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        condition = at.operands[0]
        kept = where(condition, ct, 0.0) if i == 1 else where(condition, 0.0, ct)
        return unbroadcast(kept, at.operands[i].shape)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return tuple(self.adjoint(cts[0], at, i) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule("its condition varies between sample and reference: no local rule is complete")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        condition = np.array([[True, False, True], [False, False, True]])
        yield Sample(cls(), (condition, randn(2, 3), randn(2, 3, seed=1)), (1, 2), (0, 0, 0))
        yield Sample(cls(), (condition, randn(2, 3), randn()), (1,), (0, 0, None))


class _Extremum(ZippedElementwise, family=True):
    """max or min of two operands.

    Between two worlds by the two-player Shapley form (rules.md section 4):
    m_a = (f(a,b) - f(a0,b) + f(a,b0) - f(a0,b0)) / (2 Da), and 0 where Da is.  Each difference is one of two
    operands with at most |Da|, so that nothing cancels and a small Da needs no threshold.
    """

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return joined(degrees)

    cost = 1

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        a, b = at.operands
        z = at.results[0]
        # ties share the cotangent equally, as torch.maximum does
        ones = {i: where(emit1(Equal(), v, z), 1.0, constant(0.0, z.dtype)) for i, v in enumerate((a, b))}
        total = ones[0] + ones[1]
        return tuple(unbroadcast(cts[0] * ones[i] / total, at.operands[i].shape) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (a, b), (a0, b0) = at.operands, at0.operands
        both, none = at.results[0], at0.results[0]
        only_a, only_b = emit1(self, a, b0), emit1(self, a0, b)
        gains = {0: (both - only_b) + (only_a - none), 1: (both - only_a) + (only_b - none)}
        result = []
        for i in wrt:
            delta = at.operands[i] - at0.operands[i]
            share = quotient_or_zero(gains[i] * 0.5, delta)
            result.append(unbroadcast(cts[0] * share, at.operands[i].shape))
        return tuple(result)

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        i = only(frozenset(parts), frozenset({0, 1}))
        if not same_shape(at.operands[i].shape, at.results[0].shape):
            raise NoLocalRule("RevealCancel has no rule for an operand that is broadcast here")
        return curve(self, between(self, at, i), at, at0, i, parts[i], reveal)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return _pairs(cls)


@dataclass(frozen=True)
class Max(_Extremum):
    """z = max(a, b)."""

    mnemonic = "max"
    precision = Precision.HALF

    def numpy(self, *arrays: Array) -> Array:
        return np.maximum(arrays[0], arrays[1])


@dataclass(frozen=True)
class Min(_Extremum):
    """z = min(a, b)."""

    mnemonic = "min"
    precision = Precision.HALF

    def numpy(self, *arrays: Array) -> Array:
        return np.minimum(arrays[0], arrays[1])


@dataclass(frozen=True)
class Abs(Elementwise):
    """y = |x|; its chord (|x| - |r|)/(x - r) = (x + r)/(|x| + |r|) has no cancellation for equal signs."""

    mnemonic = "abs"
    precision = Precision.HALF
    cost = 1

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return degrees[0]

    def numpy(self, x: Array) -> Array:
        return np.abs(x)

    def slope(self, x: Value, y: Value) -> Value:
        zero = constant(0.0, x.dtype)
        return where(emit1(Greater(), x, zero), 1.0, where(emit1(Less(), x, zero), -1.0, zero))

    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        return ratio(x + x0, maximum(y, least_size(x.dtype)) + y0)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (randn(2, 5),), (0,), (0,))


OPERATORS.update({op.mnemonic: partial(apply, op) for op in (Add(), Sub(), Mul(), Div(), Neg())})
