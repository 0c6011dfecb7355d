"""Numbers as integers of few levels: rounded to them, read back, and both in one as explanations see it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import ml_dtypes
import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    MixesBatch,
    NoLocalRule,
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
from irshap.ir.dims import Dim, same_shape
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.ops.arithmetic import Max, Min, guarded_quotient, ratio, where
from irshap.ops.cast import cast
from irshap.ops.families import NonDifferentiable, broadcast, zip_axes
from irshap.ops.logic import Greater
from irshap.ops.program import constant
from irshap.ops.samples import randn

__all__ = ["Dequantize", "DynamicFakeQuantize", "DynamicQuantize", "FakeQuantize", "Quantize"]
__all__ += ["StraightThrough", "levels"]


def levels(dtype: DType) -> tuple[float, float]:
    """The least and the largest number of an element type."""
    if dtype.is_integer:
        info = ml_dtypes.iinfo(dtype.numpy)  # type: ignore[no-untyped-call]
        return int(info.min), int(info.max)
    most = float(ml_dtypes.finfo(dtype.numpy).max)  # type: ignore[no-untyped-call]
    return -most, most


def quantized(x: Array, scale: Array, zero: Array, dtype: DType) -> Array:
    """The nearest level to x / scale + zero, half to even; what is beyond the last one gets that."""
    low, high = levels(dtype)
    with np.errstate(all="ignore"):
        steps = x / scale
        steps = (np.rint(steps) if dtype.is_integer else steps) + zero.astype(x.dtype)
        return np.asarray(np.clip(steps, low, high), dtype.numpy)


def dequantized(q: Array, scale: Array, zero: Array) -> Array:
    """(q - zero) scale."""
    return np.asarray((q.astype(scale.dtype) - zero.astype(scale.dtype)) * scale)


class _Spread(Op, family=True):
    """z = f(x, scale, zero), elementwise, where the latter two broadcast to x."""

    precision = Precision.FULL

    def _spread(self, types: Sequence[Type]) -> list[TensorType]:
        x, scale, zero = tensors(types)
        shape = broadcast([x.dims, scale.dims, zero.dims])
        require(scale.dtype.is_float, f"a scale of {scale.dtype.value}")
        require(same_shape(shape, x.dims), f"{scale} and {zero} don't broadcast to {x}")
        return [x, scale, zero]

    def _rounded(self, types: Sequence[Type], dtype: DType) -> TensorType:
        """The operand's type, of which levels of `dtype` are made."""
        x, scale, zero = self._spread(types)
        require(x.dtype is scale.dtype, "operand and scale have different element types")
        require(zero.dtype is dtype, f"a zero point of {zero.dtype.value}")
        return x

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 3 * numel(results)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (zip_axes(axes, operands, results[0]),)

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        return emit(self, *at.aligned()) if at.batched[0] else None


class StraightThrough(Op, family=True):
    """An op that rounds, explained as the continuous function that it steps around."""

    REQUIRED: ClassVar[dict[str, str]] = {
        "around": "def around(self, *arrays) -> what its local map is that of, in numpy",
        "leaves_out": "what that leaves out, for the user",
    }

    @abstractmethod
    def around(self, *arrays: Array) -> tuple[Array, ...]:
        """The continuous function that its local map is that of, in numpy."""

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False


@dataclass(frozen=True)
class Quantize(NonDifferentiable, _Spread):
    """The nearest level of `dtype`: round(x / scale) + zero, clipped to its range."""

    dtype: DType
    mnemonic = "quantize"
    reason = "it rounds to few levels: a step function, flat between its jumps"
    mend = "Read each as the clip to the range of its levels (--quantized, quantized=True)"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        return (self._rounded(types, self.dtype).with_dtype(self.dtype),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, scale, zero = arrays
        return (quantized(x, scale, zero, self.dtype),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for dtype, zero in ((DType.U8, 128), (DType.I8, -5), (DType.U8, 0)):
            given = (randn(3, 4) * 2, np.asarray(0.02), np.asarray(zero, dtype.numpy))
            yield Sample(cls(dtype), given, batch=(0, None, None))


@dataclass(frozen=True)
class Dequantize(NonDifferentiable, _Spread):
    """What a level stands for: (q - zero) scale."""

    mnemonic = "dequantize"
    reason = "it reads integers, which move in steps"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        q, scale, zero = self._spread(types)
        require(zero.dtype is q.dtype, f"a zero point of {zero.dtype.value} beside {q.dtype.value}")
        return (q.with_dtype(scale.dtype),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (dequantized(*arrays),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        q = np.array([[1, 2, 255], [0, 7, 128]], np.uint8)
        for dtype, zero in ((np.uint8, 128), (np.int8, 5), (np.int32, 0)):
            given = (q.astype(dtype), np.asarray(0.5), np.asarray(zero, dtype))
            yield Sample(cls(), given, batch=(0, None, None))


@dataclass(frozen=True)
class FakeQuantize(StraightThrough, _Spread):
    """What is left of x behind `quantize` and `dequantize`, explained straight through.

    Its local map is that of the clip to the range of its levels, (low - zero) scale to (high - zero) scale,
    around which it steps (the straight-through estimator, Bengio et al. 2013): what the rounding
    contributes, half a step at most on either side, is left out and stands in the certificate.
    """

    dtype: DType
    mnemonic = "fake_quantize"
    leaves_out = "it rounds to few levels, and is explained as the clip to their range"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        return (self._rounded(types, self.dtype),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, scale, zero = arrays
        return (dequantized(quantized(x, scale, zero, self.dtype), scale, zero),)

    def around(self, *arrays: Array) -> tuple[Array, ...]:
        x, scale, zero = arrays
        low, high = ((bound - zero.astype(scale.dtype)) * scale for bound in levels(self.dtype))
        return (np.clip(x, low, high),)

    def _bounds(self, at: Point) -> tuple[Value, Value]:
        _, scale, zero = at.operands
        low, high = levels(self.dtype)
        offset = cast(zero, scale.dtype)
        return (low - offset) * scale, (high - offset) * scale

    def _slope(self, at: Point) -> Value:
        x = at.operands[0]
        low, high = self._bounds(at)
        inside = where(emit1(Greater(), x, low), constant(1.0, x.dtype), 0.0)
        return where(emit1(Greater(), high, x), inside, 0.0)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self._through(cts[0] * self._slope(at), wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (low, high), x, x0 = self._bounds(at), at.operands[0], at0.operands[0]
        y, y0 = (emit1(Min(), emit1(Max(), v, low), high) for v in (x, x0))
        return self._through(cts[0] * guarded_quotient(y - y0, x - x0, self._slope(at), divide=ratio), wrt)

    def _through(self, ct: Value, wrt: Sequence[int]) -> tuple[Value, ...]:
        if tuple(wrt) != (0,):
            raise NoLocalRule("its scale varies with the sample")
        return (ct,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x = randn(3, 4) * 2
        for dtype, zero in ((DType.U8, 128), (DType.I8, -5), (DType.U8, 0)):
            given = (x, np.asarray(0.01), np.asarray(zero, dtype.numpy))
            yield Sample(cls(dtype), given, (0,), (0, None, None))
        channels = np.array([[0.5, 0.25, 0.1, 2.0]]), np.array([[1, 2, 3, 4]], np.int8)
        yield Sample(cls(DType.I8), (x, *channels), (0,), (0, None, None))
        rows = np.array([[0.5], [0.25], [0.1]]), np.array([[0], [1], [2]], np.uint8)
        yield Sample(cls(DType.U8), (x, *rows), (0,), (0, 0, 0))


class _OverAxes(Op, family=True):
    """What depends on the least and the largest number over `axes`, the sample's own."""

    axes: tuple[int, ...]
    precision = Precision.FULL

    def _checked(self, types: Sequence[Type]) -> TensorType:
        (x,) = tensors(types)
        require(all(0 <= a < x.rank for a in self.axes), f"axes {self.axes} of {x}")
        return x

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 6 * numel(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] in self.axes:
            raise MixesBatch(f"{self.mnemonic} looks for one range in all samples")
        return (axes[0],) * len(results)

    def _range(self, x: Array) -> tuple[Array, Array]:
        """Scale and zero point, as ONNX's DynamicQuantizeLinear has them."""
        low = np.minimum(x.min(self.axes, keepdims=True, initial=0.0), 0)
        high = np.maximum(x.max(self.axes, keepdims=True, initial=0.0), 0)
        scale = np.where(high == low, 1, (high - low) / x.dtype.type(255)).astype(x.dtype)
        return scale, np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(type(self)(tuple(a + 1 for a in self.axes)), *at.operands)  # type: ignore[call-arg]

    _SHAPES: ClassVar[Sequence[tuple[tuple[int, ...], tuple[int, ...]]]] = (
        ((3, 4), (1,)),
        ((2, 3, 4), (1, 2)),
        ((2, 3, 4), (0, 2)),
    )


@dataclass(frozen=True)
class DynamicQuantize(NonDifferentiable, _OverAxes):
    """uint8 levels over the range of each sample's numbers over `axes`: levels, scale, zero point."""

    axes: tuple[int, ...]
    mnemonic = "dynamic_quantize"
    reason = Quantize.reason
    mend = Quantize.mend

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x = self._checked(types)
        kept = x.with_shape(tuple(1 if a in self.axes else d for a, d in enumerate(x.dims)))
        return (x.with_dtype(DType.U8), kept, kept.with_dtype(DType.U8))

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        scale, zero = self._range(arrays[0])
        return (quantized(arrays[0], scale, zero, DType.U8), scale, zero)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for shape, axes in cls._SHAPES:
            batch = next(a for a in range(len(shape)) if a not in axes)
            yield Sample(cls(axes), (randn(*shape) * 2,), batch=(batch,))


@dataclass(frozen=True)
class DynamicFakeQuantize(StraightThrough, _OverAxes):
    """What is left of x behind `dynamic_quantize`, explained as x itself: no number is beyond the range."""

    axes: tuple[int, ...]
    mnemonic = "dynamic_fake_quantize"
    leaves_out = "it rounds to 256 levels, and is explained as the number that it rounds"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        return (self._checked(types),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        scale, zero = self._range(arrays[0])
        return (dequantized(quantized(arrays[0], scale, zero, DType.U8), scale, zero),)

    def around(self, *arrays: Array) -> tuple[Array, ...]:
        return arrays

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return (cts[0],)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.derivative(cts, at, wrt)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        for sample in DynamicQuantize.samples():
            assert isinstance(sample.op, DynamicQuantize)
            yield Sample(cls(sample.op.axes), sample.operands, (0,), sample.batch)
