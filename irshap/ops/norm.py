"""Normalizations over the axes of a sample: layer, RMS, group and instance (rules.md section 6)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

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
from irshap.ir.dims import Dim, Shape, divide, product, same, same_shape
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.elementwise import Sqrt
from irshap.ops.families import broadcast
from irshap.ops.reduce import ReduceMean, unbroadcast
from irshap.ops.samples import randn
from irshap.ops.shape import reshape

__all__ = ["GroupNorm", "InstanceNorm", "LayerNorm", "Normalization", "RMSNorm"]


def mean_of(a: Value, b: Value) -> Value:
    """The mean of a value's two worlds."""
    return a if a is b else (a + b) * 0.5


class Normalization(Op, family=True):
    """y = a v scale [+ bias], with a = x - mean x (or x itself) and v = (mean a^2 + epsilon)^(-1/2).

    Between two worlds, with G the multiplier of a v and means over what is normalized together:
    m = (v + v0)/2 (G - mean G) - v v0 v v0/(v + v0) (a + a0)/2 mean(G (a + a0)), without "- mean G" where
    nothing is subtracted from x.  Nothing is divided by a difference; at one point it is the derivative.
    Where the scale varies too, it and a v are the factors of a product, each at the mean of the other.
    """

    REQUIRED: ClassVar[dict[str, str]] = {
        "rows": "def rows(self, shape) -> shape and axes under which elements are normalized together",
        "parameter_shape": "def parameter_shape(self, p, x) -> shape under which scale and bias meet x",
        "holds_batch": "def holds_batch(self, axis) -> whether an axis of x may be the batch",
    }
    epsilon: float
    centered: ClassVar[bool] = True
    precision = Precision.FULL

    @abstractmethod
    def rows(self, shape: Shape) -> tuple[Shape, tuple[int, ...]]:
        """The shape, and its axes, under which elements are normalized together."""

    @abstractmethod
    def parameter_shape(self, parameter: Shape, x: Shape) -> Shape:
        """The shape under which scale and bias broadcast against x."""

    @abstractmethod
    def holds_batch(self, axis: int) -> bool:
        """Whether this axis of x may be the batch."""

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, *parameters = tensors(types)
        require(x.dtype.is_float, lambda: f"takes floats, not {x}")
        require(1 <= len(parameters) <= (2 if self.centered else 1), "takes x, a scale and maybe a bias")
        self.rows(x.dims)
        for p in parameters:
            shape = self.parameter_shape(p.dims, x.dims)
            fits = p.dtype is x.dtype and same_shape(broadcast([shape, x.dims]), x.dims)
            require(fits, f"{p} doesn't broadcast to what is normalized in {x}")
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, *parameters = arrays
        shape, axes = self.rows(x.shape)
        a = x.reshape(shape)
        if self.centered:
            a = a - a.mean(axes, keepdims=True)
        y = (a / np.sqrt((a * a).mean(axes, keepdims=True) + x.dtype.type(self.epsilon))).reshape(x.shape)
        scale, *bias = (p.reshape(self.parameter_shape(p.shape, x.shape)) for p in parameters)
        return (y * scale + bias[0] if bias else y * scale,)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 8 * numel(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if any(a is not None for a in axes[1:]) or (axes[0] is not None and not self.holds_batch(axes[0])):
            raise MixesBatch("normalizes over the batch, or its scale varies with it")
        return (axes[0],)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return 0 not in varying

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return self.secant([ct], at, at, [i])[0]

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.secant(cts, at, at, wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        (x, scale, *_), (x0, scale0, *_) = at.operands, at0.operands
        shape, axes = self.rows(x.shape)
        (a, v), (a0, v0) = self._standard(x, shape, axes), self._standard(x0, shape, axes)
        found = []
        for i in wrt:
            if i == 0:
                factor = reshape(mean_of(scale, scale0), self.parameter_shape(scale.shape, x.shape))
                g = reshape(cts[0] * factor, shape)
                found.append(reshape(self._through(g, a, v, a0, v0, axes), x.shape))
                continue
            own = reshape(mean_of(a * v, a0 * v0), x.shape)
            parameter = at.operands[i].shape
            summed = unbroadcast(cts[0] * own if i == 1 else cts[0], self.parameter_shape(parameter, x.shape))
            found.append(reshape(summed, parameter))
        return tuple(found)

    def _standard(self, x: Value, shape: Shape, axes: tuple[int, ...]) -> tuple[Value, Value]:
        """a and v."""
        a = reshape(x, shape)
        if self.centered:
            a = a - emit1(ReduceMean(axes, keepdims=True), a)
        return a, 1.0 / emit1(Sqrt(), emit1(ReduceMean(axes, keepdims=True), a * a) + self.epsilon)

    def _through(self, g: Value, a: Value, v: Value, a0: Value, v0: Value, axes: tuple[int, ...]) -> Value:
        """The multipliers of x from those of a v."""
        straight = g - emit1(ReduceMean(axes, keepdims=True), g) if self.centered else g
        both, vv = a + a0, v * v0
        bend = vv * (vv / (v + v0)) * 0.5 * emit1(ReduceMean(axes, keepdims=True), g * both)
        return mean_of(v, v0) * straight - both * bend


class _FromAxis(Normalization, family=True):
    """Scale and bias are those of elements, from `axis` on."""

    axis: int

    def rows(self, shape: Shape) -> tuple[Shape, tuple[int, ...]]:
        require(0 <= self.axis < len(shape), f"axis {self.axis} is not one of {shape}")
        return shape, tuple(range(self.axis, len(shape)))

    def parameter_shape(self, parameter: Shape, x: Shape) -> Shape:
        require(len(parameter) <= len(x) - self.axis, f"{parameter} has more axes than are normalized")
        return parameter

    def holds_batch(self, axis: int) -> bool:
        return axis < self.axis

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        if any(at.batched[1:]):
            return None
        return emit(replace(self, axis=self.axis + 1), *at.operands)  # type: ignore[type-var]


@dataclass(frozen=True)
class LayerNorm(_FromAxis):
    """Over all axes from `axis` on."""

    axis: int
    epsilon: float
    mnemonic = "layer_norm"

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        batch, rest = (0, None, None), (randn(4), randn(4, seed=1))
        yield Sample(cls(2, 2.0**-17), (randn(2, 3, 4), *rest), (0, 1, 2), batch)
        yield Sample(cls(1, 2.0**-10), (randn(2, 3, 4), randn(3, 4, seed=1)), (0, 1), batch[:2])
        yield Sample(cls(0, 2.0**-10), (randn(5), randn(5, seed=1)), (0, 1))
        # rows without any spread
        yield Sample(cls(1, 2.0**-10), (np.array([[3.0] * 4, [-1.0] * 4]), *rest), (0,), batch)
        yield Sample(cls(1, 2.0**-10), (np.array([[3.0] * 4, [1, 2, 3, 5]]), *rest), (0,), batch)


@dataclass(frozen=True)
class RMSNorm(_FromAxis):
    """Over all axes from `axis` on, without subtracting the mean."""

    axis: int
    epsilon: float
    mnemonic = "rms_norm"
    centered = False

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(2, 2.0**-17), (randn(2, 3, 4), randn(4)), (0, 1), (0, None))
        yield Sample(cls(1, 2.0**-10), (randn(2, 3, 4), randn(3, 4, seed=1)), (0, 1), (0, None))
        yield Sample(cls(1, 2.0**-10), (np.array([[0.0] * 4, [1, 2, 3, 5]]), randn(4)), (0,), (0, None))


class _Channels(Normalization, family=True):
    """Scale and bias are those of channels, on axis 1."""

    def parameter_shape(self, parameter: Shape, x: Shape) -> Shape:
        fits = len(parameter) == 1 and len(x) >= 2 and same(parameter[0], x[1])
        require(fits, f"{parameter} is no vector over the channels of {x}")
        return (parameter[0], *[1] * (len(x) - 2))

    def holds_batch(self, axis: int) -> bool:
        return axis == 0


@dataclass(frozen=True)
class GroupNorm(_Channels):
    """Over groups of consecutive channels, with their spatial axes."""

    groups: int
    epsilon: float
    mnemonic = "group_norm"

    def rows(self, shape: Shape) -> tuple[Shape, tuple[int, ...]]:
        require(len(shape) >= 2, "takes at least [n, channels]")
        channels = divide(shape[1], self.groups)
        require(channels is not None, f"{shape[1]} channels don't make {self.groups} groups")
        return (shape[0], self.groups, product([channels or 0, *shape[2:]])), (2,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        batch, channels = (0, None, None), (randn(6), randn(6, seed=1))
        yield Sample(cls(2, 2.0**-17), (randn(2, 6, 2, 3), *channels), (0, 1, 2), batch)
        yield Sample(cls(3, 2.0**-10), (randn(2, 6), *channels), (0, 1, 2), batch)


@dataclass(frozen=True)
class InstanceNorm(_Channels):
    """Over the spatial axes."""

    epsilon: float
    mnemonic = "instance_norm"

    def rows(self, shape: Shape) -> tuple[Shape, tuple[int, ...]]:
        require(len(shape) >= 3, "takes [n, channels, ...]")
        return shape, tuple(range(2, len(shape)))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        batch, channels = (0, None, None), (randn(3), randn(3, seed=1))
        yield Sample(cls(2.0**-17), (randn(2, 3, 2, 4), *channels), (0, 1, 2), batch)
        yield Sample(cls(2.0**-10), (randn(2, 3, 5), *channels), (0, 1, 2), batch)
