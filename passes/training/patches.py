"""Convolutions with the samples on the last axis, as one matrix product over patches (im2col)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import as_dim
from irshap.ir.types import Array, DType
from irshap.ops.conv import Conv, ConvTranspose, ConvWeights
from irshap.ops.gather import Gather
from irshap.ops.linear import Gemm
from irshap.ops.program import constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.shape import Pad, concat, reshape, split, transpose

__all__ = ["Convolution", "convolved", "numbers"]

NARROWER = 2
"""How many times fewer channels a result must have for its parts to be picked, not the operand's patches."""

PARTS = 8
"""Into how many parts patches are cut at most: each is two nodes, which have their price."""

TOGETHER = 1152
"""How many of a sample's patches' numbers a part has: of 64 samples a quarter of a megabyte, which stays in a
core's cache until a product reads it."""

Convolution = Conv | ConvTranspose | ConvWeights


def convolved(op: Convolution, x: Value, w: Value, bias: Sequence[Value], sizes: Sequence[int]) -> Value:
    """The convolution of x [c, ..., n], or, of `ConvWeights`, the gradient [out, c, *kernel] of its weights.

    Args:
        w: the weights as they are, or for `ConvWeights` the other operand, [out, ..., n].
        sizes: the result's spatial shape, or for `ConvWeights` that of w.
    """
    kernel = op.kernel if isinstance(op, ConvWeights) else tuple(map(int, w.shape[2:]))
    c, spatial, n = int(x.shape[0]), tuple(map(int, x.shape[1:-1])), x.shape[-1]
    axes = places(op, kernel, spatial, sizes)
    if isinstance(op, ConvWeights):
        out = int(w.shape[0])
        # those of the convolution: picked again they would take less memory, and the step longer
        patches = _patches(x, axes)
        others = split(reshape(w, (out, as_dim(prod(sizes) * n))), 1, [p.shape[1] for p in patches])
        before: list[Value] = []
        for picked, part in zip(patches, others, strict=True):
            # [c k, s n] by [out, s n]: the way round that ONNX Runtime is faster at
            before = [emit1(Gemm(trans_b=True), picked, part, *before)]
        # transposed behind the reshape, or ONNX Runtime would turn the product round again
        apart = reshape(before[0], (c, *kernel, out))
        return transpose(apart, (apart.rank - 1, *range(apart.rank - 1)))
    rows = transpose(w, (1, 0, *range(2, w.rank))) if isinstance(op, ConvTranspose) else w
    out = int(rows.shape[0])
    if isinstance(op, ConvTranspose) and NARROWER * out <= c:
        # fewer numbers are picked behind it; a convolution's patches are needed for its weights anyway
        turned = transpose(rows, (0, *range(2, rows.rank), 1))
        each = reshape(turned, (out * prod(kernel), c))
        products = emit1(Gemm(), each, reshape(x, (c, as_dim(prod(spatial) * n))))
        flat = reshape(products, (out, prod(kernel) * prod(spatial), n))
        found = [
            emit1(ReduceSum((1,), keepdims=False), picked)
            for picked in _picked(flat, _index(axes, spatial, True))
        ]
    else:
        matrix = reshape(rows, (out, c * prod(kernel)))
        found = [emit1(Gemm(), matrix, picked) for picked in _patches(x, axes)]
    y = reshape(concat(found, 1), (out, *sizes, n))
    for b in bias:
        y = y + reshape(b, (out, *(1 for _ in sizes), 1))
    return y


def numbers(op: Convolution, kernel: Sequence[int], channels: int, sizes: Sequence[int]) -> int:
    """How many numbers the patches of a sample are; 0 where they are the tensor itself."""
    plain = prod(kernel) == 1 and set(op.strides) == {1} and not any(map(any, op.pads))
    return 0 if plain else channels * prod(kernel) * prod(sizes)


def places(
    op: Convolution, kernel: Sequence[int], spatial: Sequence[int], sizes: Sequence[int]
) -> list[Array]:
    """For each axis [k, s]: where offset k of the window at place s lies, -1 outside.

    Of a convolution s stride + k dilation - pad, and of its adjoint the place that this leads from.
    """
    found = []
    geometry = zip(op.strides, op.pads, op.dilations, kernel, spatial, sizes, strict=True)
    for stride, (pad, _), dilation, k, size, count in geometry:
        offset, s = dilation * np.arange(k)[:, None], np.arange(count)[None]
        if isinstance(op, ConvTranspose):
            at, rest = np.divmod(s + pad - offset, stride)
        else:
            at, rest = s * stride + offset - pad, np.zeros((1, 1), int)
        found.append(np.where((rest == 0) & (at >= 0) & (at < size), at, -1))
    return found


def _patches(x: Value, axes: Sequence[Array]) -> list[Value]:
    """[c, ..., n] -> [c k, s n], in parts along s."""
    c, n = int(x.shape[0]), x.shape[-1]
    spatial = tuple(map(int, x.shape[1:-1]))
    parts = _picked(reshape(x, (c, prod(spatial), n)), _index(axes, spatial, False))
    return [reshape(picked, (as_dim(c * picked.shape[1]), picked.shape[2])) for picked in parts]


def _index(axes: Sequence[Array], spatial: Sequence[int], apart: bool) -> Array:
    """[k, s]: the row of each place, -1 outside; `apart`: each offset has rows of its own, [k, *spatial]."""
    rank = len(axes)
    index, outside = np.zeros((1,) * 2 * rank, int), np.zeros((1,) * 2 * rank, bool)
    for i, at in enumerate(axes):
        shape = [1] * 2 * rank
        shape[i], shape[rank + i] = at.shape
        placed = at.reshape(shape)
        index, outside = index * spatial[i] + placed, outside | (placed < 0)
    kernel = tuple(at.shape[0] for at in axes)
    if apart:
        starts = np.arange(prod(kernel)) * prod(spatial)
        index = index + starts.reshape(*kernel, *(1 for _ in spatial))
    return np.where(outside, -1, index).reshape(prod(kernel), -1)


def _picked(flat: Value, index: Array) -> list[Value]:
    """[c, rows, n] -> [c, k, s n] by an index [k, s], in parts along s; a row of zeros is what is outside."""
    c, rows, n = int(flat.shape[0]), int(flat.shape[1]), flat.shape[2]
    count, seen = index.shape
    if np.array_equal(index.ravel(), np.arange(rows)):
        return [reshape(flat, (c, count, as_dim(seen * n)))]
    if (index < 0).any():
        flat = emit1(Pad((0, 0, 0), (0, 1, 0), 0.0), flat)
        index = np.where(index < 0, rows, index)
    found = []
    for part in np.array_split(index, _parts(c * count, seen), axis=1):
        picked = emit1(Gather(1), flat, constant(part.ravel(), DType.I32))
        found.append(reshape(picked, (c, count, as_dim(part.shape[1] * n))))
    return found


def _parts(each: int, seen: int) -> int:
    """Into how many parts `seen` places of `each` numbers go.

    Equal ones where that takes less than twice as many: a buffer is used again by what is as large.
    """
    least = min(-(-each * seen // TOGETHER), PARTS, seen)
    return next((parts for parts in range(least, min(2 * least, PARTS + 1)) if seen % parts == 0), least)
