"""Logic, comparisons, rounding and remainders: steps, through which no local linear map is complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.core import Precision, Sample, require, tensors
from irshap.ir.degrees import Degree, joined
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.families import NonDifferentiable, ZippedElementwise, broadcast
from irshap.ops.samples import randn

__all__ = ["And", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less"]
__all__ += ["LessOrEqual", "Mod", "Not", "Or", "Round", "Sign", "Xor"]


class Comparison(NonDifferentiable, ZippedElementwise, family=True):
    """A truth value for each pair: it jumps, so no local rule can be complete."""

    reason = "a comparison jumps: no local rule is complete"
    precision = Precision.DATA
    cost = 1

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        joined(degrees)
        return 0.0

    def infer(self, *types: Type) -> tuple[Type, ...]:
        operands = tensors(types)
        require(len(operands) == 2, "takes two operands")
        require(len({t.dtype for t in operands}) == 1, "operands have different element types")
        return (TensorType(DType.BOOL, broadcast([t.dims for t in operands])),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        a = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
        yield Sample(cls(), (a, np.array([[1, 3, 2]], np.float32)), batch=(0, None))
        yield Sample(cls(), (a.astype(np.int64), np.array([[3], [4]])), batch=(0, 0))


@dataclass(frozen=True)
class Less(Comparison):
    """a < b."""

    mnemonic = "less"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] < arrays[1])


@dataclass(frozen=True)
class Greater(Comparison):
    """a > b."""

    mnemonic = "greater"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] > arrays[1])


@dataclass(frozen=True)
class Equal(Comparison):
    """a == b."""

    mnemonic = "equal"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] == arrays[1])


@dataclass(frozen=True)
class GreaterOrEqual(Comparison):
    """a >= b."""

    mnemonic = "greater_or_equal"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] >= arrays[1])


@dataclass(frozen=True)
class LessOrEqual(Comparison):
    """a <= b."""

    mnemonic = "less_or_equal"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] <= arrays[1])


class _Logical(Comparison, family=True):
    reason = "a truth value jumps: no local rule is complete"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        require(all(t.dtype is DType.BOOL for t in tensors(types)), "takes truth values")
        return super().infer(*types)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        a = np.array([[True, False, True], [False, False, True]])
        yield Sample(cls(), (a, np.array([[True], [False]])), batch=(0, 0))
        yield Sample(cls(), (a, np.array([True, True, False])), batch=(0, None))


@dataclass(frozen=True)
class And(_Logical):
    """Both."""

    mnemonic = "and"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] & arrays[1])


@dataclass(frozen=True)
class Or(_Logical):
    """At least one."""

    mnemonic = "or"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] | arrays[1])


@dataclass(frozen=True)
class Xor(_Logical):
    """Exactly one."""

    mnemonic = "xor"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(arrays[0] ^ arrays[1])


class _Step(NonDifferentiable, ZippedElementwise, family=True):
    """A step function of one operand, with a result of the same element type."""

    reason = "a step function jumps and is flat elsewhere: no local rule is complete"
    flat = True
    precision = Precision.FULL
    cost = 1

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        return (x,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.array([[0.5, -0.5, 1.5, -1.5], [2.5, 0.0, 2.25, -2.75]]),), batch=(0,))


@dataclass(frozen=True)
class Ceil(_Step):
    """The least integer not below x."""

    mnemonic = "ceil"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.ceil(arrays[0]))


@dataclass(frozen=True)
class Floor(_Step):
    """The greatest integer not above x."""

    mnemonic = "floor"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.floor(arrays[0]))


@dataclass(frozen=True)
class Round(_Step):
    """The nearest integer; halves go to the even one."""

    mnemonic = "round"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.rint(arrays[0]), arrays[0].dtype)


@dataclass(frozen=True)
class Sign(_Step):
    """-1, 0 or 1."""

    mnemonic = "sign"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.sign(arrays[0]))

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return None if degrees[0] is None else 0.0


class _Test(_Step, family=True):
    """A truth value for each element."""

    precision = Precision.DATA

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        return (TensorType(DType.BOOL, x.shape),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(
            cls(), (np.array([[0.5, np.nan, np.inf, -np.inf], [2.5, 0.0, 2.25, -2.75]]),), batch=(0,)
        )


@dataclass(frozen=True)
class Not(_Test):
    """The opposite truth value."""

    mnemonic = "not"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(x.dtype is DType.BOOL, f"takes truth values, not {x}")
        return (x,)

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(~arrays[0])

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.array([[True], [False]]),), batch=(0,))


@dataclass(frozen=True)
class IsNaN(_Test):
    """Whether x is not a number."""

    mnemonic = "is_nan"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.isnan(arrays[0]))


@dataclass(frozen=True)
class IsInf(_Test):
    """Whether x is infinite, on the sides asked for."""

    negative: bool = True
    positive: bool = True
    mnemonic = "is_inf"

    def numpy(self, *arrays: Array) -> Array:
        (x,) = arrays
        return np.asarray(np.isposinf(x) & self.positive | np.isneginf(x) & self.negative)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x = np.array([[0.5, np.nan, np.inf, -np.inf]])
        for sides in ((True, True), (False, True), (True, False)):
            yield Sample(cls(*sides), (x,), batch=(0,))


@dataclass(frozen=True)
class Mod(NonDifferentiable, ZippedElementwise):
    """The remainder of a / b, with the sign of b, or of a when `truncated` (as C's fmod)."""

    truncated: bool
    mnemonic = "mod"
    precision = Precision.FULL
    cost = 1
    reason = "a remainder jumps: no local rule is complete"

    def numpy(self, *arrays: Array) -> Array:
        return np.asarray(np.fmod(*arrays) if self.truncated else np.mod(*arrays))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(True), (randn(2, 5) * 5, np.array([1.5, -1.5, 2, -2, 0.75])), batch=(0, None))
        numbers = np.array([[7, -7, 7, -7]]), np.array([[3, 3, -3, -3]])
        yield Sample(cls(False), numbers, batch=(0, 0))
        yield Sample(cls(True), numbers, batch=(0, 0))
