"""Conversion between element types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import Axes, NoLocalRule, Op, Point, Precision, Sample, Stacked, Value, tensors
from irshap.ir.degrees import Degree, NotHomogeneous
from irshap.ir.dims import Dim, product
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.samples import randn

__all__ = ["HALF", "Cast", "cast", "retyped", "single"]

HALF = (DType.F16, DType.BF16)


def cast(x: Value, dtype: DType) -> Value:
    """Emits a cast, or nothing when the dtype is right already."""
    return x if x.dtype is dtype else emit1(Cast(dtype), x)


def single(x: Value) -> Value:
    """What is in half precision, in float32."""
    return cast(x, DType.F32) if x.dtype in HALF else x


def retyped(op: Op, change: Callable[[DType], DType]) -> Op:
    """`op` with the element types among its attributes changed."""
    found = {f.name: getattr(op, f.name) for f in fields(op)}  # type: ignore[arg-type]
    changes = {name: change(value) for name, value in found.items() if isinstance(value, DType)}
    return replace(op, **changes) if changes else op  # type: ignore[type-var]


@dataclass(frozen=True)
class Cast(Op):
    """The nearest value of another element type: linear between floats, a jump into integers."""

    to: DType
    mnemonic = "cast"
    precision = Precision.DATA
    nonnegative = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        return (x.with_dtype(self.to),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (arrays[0].astype(self.to.numpy),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(results[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(self, *at.operands)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return self.to.is_float

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        if not self.to.is_float:
            raise NotHomogeneous("it jumps into integers")
        return degrees[0]

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return cast(ct, at.operands[0].dtype)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        if not self.to.is_float:
            raise NoLocalRule(f"a cast to {self.to.value} jumps: no local rule is complete")
        return (self.adjoint(cts[0], at, 0),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.derivative(cts, at, wrt)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(DType.F64), (randn(2, 3, dtype=np.float32),), (0,), (0,))
        yield Sample(cls(DType.F32), (np.array([[1, 2]]),), batch=(0,))
        yield Sample(cls(DType.I64), (np.array([[1.7, -1.7]], np.float32),), batch=(0,))
        yield Sample(cls(DType.BOOL), (np.array([[0.0, 2.0]], np.float32),), batch=(0,))
