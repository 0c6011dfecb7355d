"""Convolution, its transpose and its adjoint in the weights, over 1 to 3 spatial axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import (
    Axes,
    Layer,
    LinearPart,
    MixesBatch,
    Point,
    Precision,
    Sample,
    Value,
    require,
    tensors,
)
from irshap.ir.dims import Dim, Shape, as_dim, product, same
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.arithmetic import sized
from irshap.ops.families import Bilinear
from irshap.ops.parts import only
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.window import padded, window_count, windows

__all__ = ["Conv", "ConvTranspose", "ConvWeights"]


Geometry: TypeAlias = tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int]
"""Strides, pads, dilations and groups."""


class _Strided(Bilinear, family=True):
    """One of the three that <y, conv(x, w)> is linear in, as it follows from the other two."""

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    group: int

    @property
    def _geometry(self) -> Geometry:
        return (self.strides, self.pads, self.dilations, self.group)


class _Convolution(_Strided, family=True):
    """x [n, c, ...], weights, and a bias for each result channel."""

    precision = Precision.HALF
    layer = Layer.CONVOLUTION

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] not in (None, 0) or any(a is not None for a in axes[1:]):
            raise MixesBatch("its channels or its weights depend on the batch")
        return (axes[0],)

    def _bias(self, ct: Value) -> Value:
        return emit1(ReduceSum((0, *range(2, ct.rank)), keepdims=False), ct)

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        only(varying, frozenset({0}))
        return self, (operands[0], sized(operands[1], absolute))

    def _check(self, x: TensorType, w: TensorType, bias: Sequence[TensorType], channels: Dim) -> int:
        spatial = x.rank - 2
        given = {len(self.strides), len(self.pads), len(self.dilations)}
        require(
            spatial >= 1 and w.rank == x.rank and given == {spatial}, f"{x} and {w} don't fit the attributes"
        )
        require(len({t.dtype for t in (x, w, *bias)}) == 1, "operands have different element types")
        require(all(isinstance(d, int) for d in w.dims), "weights need a static shape")
        fits = not bias or (bias[0].rank == 1 and same(bias[0].dims[0], channels))
        require(fits and len(bias) <= 1, "the bias doesn't fit the channels")
        return spatial


@dataclass(frozen=True)
class Conv(_Convolution):
    """y[n, o] = sum over i of x[n, i] correlated with w[o, i], plus bias[o]; w is [out, in/group, ...]."""

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    group: int = 1
    mnemonic = "conv"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, w, *bias = tensors(types)
        spatial = self._check(x, w, bias, w.dims[0])
        require(same(x.dims[1], w.dims[1] * self.group), f"{x.dims[1]} channels, weights for {w.dims[1]}")
        out = [
            window_count(x.dims[2 + i], _int(w.dims[2 + i]), self.strides[i], self.pads[i], self.dilations[i])
            for i in range(spatial)
        ]
        return (x.with_shape((x.dims[0], w.dims[0], *out)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, w, *bias = arrays
        view = windows(padded(x, self.pads, 0.0), w.shape[2:], self.strides, self.dilations)
        n, g, spatial = x.shape[0], self.group, x.ndim - 2
        view = view.reshape(n, g, x.shape[1] // g, *view.shape[2:])
        kernel = w.reshape(g, w.shape[0] // g, *w.shape[1:])
        s, k = "hij"[:spatial], "klm"[:spatial]
        y = np.einsum(f"ngc{s}{k},goc{k}->ngo{s}", view, kernel, optimize=True)
        y = y.reshape(n, w.shape[0], *y.shape[3:])
        if bias:
            y = y + bias[0].reshape(-1, *[1] * spatial)
        return (np.ascontiguousarray(y.astype(x.dtype)),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return product(results[0].dims) * (2 * product(operands[1].dims[1:]) + int(len(operands) == 3))

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        x, w = at.operands[:2]
        if i == 2:
            return self._bias(ct)
        if i == 1:
            return emit1(ConvWeights(*self._geometry, tuple(map(_int, w.shape[2:]))), x, ct)
        return emit1(ConvTranspose(*self._geometry, tuple(x.shape[2:])), ct, w)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        batch = (0, None, None)
        one = ((1,), ((0, 0),), (1,))
        yield Sample(
            cls((1, 1), ((1, 1), (1, 1)), (1, 1)),
            (randn(2, 3, 5, 6), randn(4, 3, 3, 3), randn(4)),
            (0,),
            batch,
        )
        yield Sample(
            cls((2, 3), ((0, 1), (2, 0)), (2, 1), 2), (randn(2, 4, 8, 9), randn(6, 2, 3, 2)), (0,), batch[:2]
        )
        yield Sample(cls(*one), (randn(2, 3, 7), randn(5, 3, 3), randn(5)), (0, 2))
        yield Sample(
            cls((2,) * 3, ((1, 0),) * 3, (1,) * 3), (randn(1, 2, 4, 5, 4), randn(2, 2, 2, 3, 2)), (0,)
        )
        yield Sample(
            cls((2, 2), ((1, 1), (1, 1)), (1, 1), 3), (randn(2, 3, 6, 6), randn(3, 1, 3, 3)), (0,), batch[:2]
        )


@dataclass(frozen=True)
class ConvTranspose(_Convolution):
    """The adjoint of `Conv` in x, with spatial result shape `out`; w is [in, out/group, ...]."""

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    group: int
    out: Shape
    mnemonic = "conv_transpose"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, w, *bias = tensors(types)
        channels = as_dim(w.dims[1] * self.group)
        spatial = self._check(x, w, bias, channels)
        require(same(x.dims[1], w.dims[0]), f"{x.dims[1]} channels, weights for {w.dims[0]}")
        for i, rest in enumerate(self.output_padding(x, w)):
            # an unknown rest is cut off at run time; it is in range where `out` is a convolved tensor's size
            fits = not isinstance(rest, int) or 0 <= rest < max(self.strides[i], self.dilations[i])
            require(fits, f"{self.out[i]} on spatial axis {i} is no size that this convolution maps from")
        require(len(self.out) == spatial, "the result's spatial shape has the wrong rank")
        return (x.with_shape((x.dims[0], channels, *self.out)),)

    def output_padding(self, x: TensorType, w: TensorType) -> list[Dim]:
        """How far `out` exceeds the smallest size that the convolution maps to x's."""
        return [
            as_dim(
                self.out[i] + sum(self.pads[i]) - (x.dims[2 + i] - 1) * self.strides[i]
                - self.dilations[i] * (w.dims[2 + i] - 1) - 1
            )
            for i in range(x.rank - 2)
        ]  # fmt: skip

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, w, *bias = arrays
        n, g, spatial = x.shape[0], self.group, x.ndim - 2
        out = [int(d) for d in self.out]
        size = [o + sum(p) for o, p in zip(out, self.pads, strict=True)]
        y = np.zeros((n, w.shape[1] * g, *size), x.dtype)
        grouped = x.reshape(n, g, -1, *x.shape[2:])
        kernel = w.reshape(g, w.shape[0] // g, *w.shape[1:])
        s = "hij"[:spatial]
        for offset in np.ndindex(*w.shape[2:]):
            part = np.einsum(f"ngc{s},gco->ngo{s}", grouped, kernel[(..., *offset)], optimize=True)
            where = [
                slice(o * d, o * d + (m - 1) * st + 1, st)
                for o, d, st, m in zip(offset, self.dilations, self.strides, x.shape[2:], strict=True)
            ]
            y[(slice(None), slice(None), *where)] += part.reshape(n, -1, *x.shape[2:])
        cut = tuple(slice(p[0], p[0] + o) for p, o in zip(self.pads, out, strict=True))
        y = y[(slice(None), slice(None), *cut)]
        if bias:
            y = y + bias[0].reshape(-1, *[1] * spatial)
        return (np.ascontiguousarray(y.astype(x.dtype)),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        bias = product(results[0].dims) if len(operands) == 3 else 0
        return 2 * product(operands[0].dims) * product(operands[1].dims[1:]) + bias

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        if i == 2:
            return self._bias(ct)
        x, w = at.operands[:2]
        if i == 1:
            # <ct, transposed(x, w)> = <x, conv(ct, w)>: x and ct change places
            return emit1(ConvWeights(*self._geometry, tuple(map(_int, w.shape[2:]))), ct, x)
        return emit1(Conv(*self._geometry), ct, w)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        batch = (0, None, None)
        yield Sample(
            cls((1, 1), ((1, 1), (0, 2)), (1, 1), 1, (4, 5)),
            (randn(2, 3, 4, 5), randn(3, 4, 3, 3), randn(4)),
            (0,),
            batch,
        )
        yield Sample(
            cls((2, 3), ((0, 1), (1, 0)), (1, 1), 2, (8, 10)),
            (randn(2, 4, 4, 4), randn(4, 3, 3, 2)),
            (0,),
            batch[:2],
        )
        yield Sample(cls((2,), ((1, 1),), (2,), 1, (9,)), (randn(2, 3, 4), randn(3, 2, 3), randn(2)), (0, 2))


@dataclass(frozen=True)
class ConvWeights(_Strided):
    """The adjoint of `Conv` in its weights.

    g[o, i, k] = sum over n, s of y[n, o, s] x[n, i, s stride + k dilation], x being padded.  Operands x [n,
    in, ...] and y [n, out, ...]; the result is [out, in/group, *kernel].  With `Conv` and `ConvTranspose` it
    is the one trilinear form <y, conv(x, w)>, solved for w: all adjoints of each are the other two.
    """

    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    group: int
    kernel: tuple[int, ...]
    mnemonic = "conv_weights"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, y = tensors(types)
        spatial = len(self.kernel)
        given = {len(self.strides), len(self.pads), len(self.dilations)}
        fits = spatial >= 1 and given == {spatial} and x.rank == y.rank == spatial + 2 and x.dtype is y.dtype
        require(fits and same(x.dims[0], y.dims[0]), f"{x} and {y} don't fit the attributes")
        geometry = zip(x.dims[2:], self.kernel, self.strides, self.pads, self.dilations, strict=True)
        seen = [window_count(*g) for g in geometry]
        require(all(map(same, seen, y.dims[2:])), f"{y} isn't what a convolution makes of {x}")
        return (x.with_shape((y.dims[1], _int(x.dims[1]) // self.group, *self.kernel)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, y = arrays
        n, g, spatial = x.shape[0], self.group, x.ndim - 2
        view = windows(padded(x, self.pads, 0.0), self.kernel, self.strides, self.dilations)
        view = view.reshape(n, g, x.shape[1] // g, *view.shape[2:])
        s, k = "hij"[:spatial], "klm"[:spatial]
        found = np.einsum(f"ngc{s}{k},ngo{s}->goc{k}", view, y.reshape(n, g, -1, *y.shape[2:]), optimize=True)
        return (np.ascontiguousarray(found.reshape(y.shape[1], *found.shape[2:]).astype(x.dtype)),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 2 * product(operands[1].dims) * product(results[0].dims[1:])

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if any(a is not None for a in axes):
            raise MixesBatch("sums over the batch")
        return (None,)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        x, y = at.operands
        if i == 1:
            return emit1(Conv(*self._geometry), x, ct)
        return emit1(ConvTranspose(*self._geometry, tuple(x.shape[2:])), y, ct)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        pads = ((1, 1), (1, 1))
        yield Sample(
            cls((1, 1), pads, (1, 1), 1, (3, 3)), (randn(2, 3, 5, 6), randn(2, 4, 5, 6, seed=1)), (0, 1)
        )
        yield Sample(
            cls((2, 3), ((0, 1), (2, 0)), (2, 1), 2, (3, 2)),
            (randn(2, 4, 8, 9), randn(2, 6, 3, 4, seed=1)),
            (0, 1),
        )
        yield Sample(cls((1,), ((0, 0),), (1,), 3, (3,)), (randn(2, 3, 7), randn(2, 3, 5, seed=1)), (0, 1))
        yield Sample(
            cls((2,) * 3, ((1, 0),) * 3, (1,) * 3, 1, (2, 3, 2)),
            (randn(1, 2, 4, 5, 4), randn(1, 2, 2, 2, 2, seed=1)),
            (0, 1),
        )


def _int(dim: Dim) -> int:
    require(isinstance(dim, int), "needs a static kernel")
    return int(dim)
