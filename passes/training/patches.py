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
from irshap.ops.shape import Pad, reshape, transpose

__all__ = ["Convolution", "convolved", "numbers"]

NARROWER = 2
"""How many times fewer channels a result must have for its parts to be picked, not the operand's patches."""

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
        flat = reshape(w, (out, as_dim(prod(sizes) * n)))
        # [c k, s n] by [out, s n]: the way round that ONNX Runtime is faster at
        found = emit1(Gemm(trans_b=True), _patches(x, axes), flat)
        # transposed behind the reshape, or ONNX Runtime would turn the product round again
        apart = reshape(found, (c, *kernel, out))
        return transpose(apart, (apart.rank - 1, *range(apart.rank - 1)))
    rows = transpose(w, (1, 0, *range(2, w.rank))) if isinstance(op, ConvTranspose) else w
    out = int(rows.shape[0])
    if isinstance(op, ConvTranspose) and NARROWER * out <= c:
        # fewer numbers are picked behind it; a convolution's patches are needed for its weights anyway
        turned = transpose(rows, (0, *range(2, rows.rank), 1))
        each = reshape(turned, (out * prod(kernel), c))
        products = emit1(Gemm(), each, reshape(x, (c, as_dim(prod(spatial) * n))))
        picked = _picked(
            reshape(products, (out, prod(kernel) * prod(spatial), n)), _index(axes, spatial, True)
        )
        parts = reshape(picked, (out, prod(kernel), as_dim(prod(sizes) * n)))
        y = reshape(emit1(ReduceSum((1,), keepdims=False), parts), (out, *sizes, n))
    else:
        y = emit1(Gemm(), reshape(rows, (out, c * prod(kernel))), _patches(x, axes))
        y = reshape(y, (out, *sizes, n))
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


def _patches(x: Value, axes: Sequence[Array]) -> Value:
    """[c, ..., n] -> [c k, s n]."""
    c, n = int(x.shape[0]), x.shape[-1]
    spatial = tuple(map(int, x.shape[1:-1]))
    picked = _picked(reshape(x, (c, prod(spatial), n)), _index(axes, spatial, False))
    count, seen = (prod(at.shape[i] for at in axes) for i in (0, 1))
    return reshape(picked, (c * count, as_dim(seen * n)))


def _index(axes: Sequence[Array], spatial: Sequence[int], apart: bool) -> Array:
    """[k s]: the row of each place, -1 outside; `apart`: each offset has rows of its own, [k, *spatial]."""
    rank = len(axes)
    index, outside = np.zeros((1,) * 2 * rank, int), np.zeros((1,) * 2 * rank, bool)
    for i, at in enumerate(axes):
        shape = [1] * 2 * rank
        shape[i], shape[rank + i] = at.shape
        placed = at.reshape(shape)
        index, outside = index * spatial[i] + placed, outside | (placed < 0)
    if apart:
        kernel = tuple(at.shape[0] for at in axes)
        starts = np.arange(prod(kernel)) * prod(spatial)
        index = index + starts.reshape(*kernel, *(1 for _ in spatial))
    return np.where(outside, -1, index).ravel()


def _picked(flat: Value, index: Array) -> Value:
    """[c, rows, n] -> [c, index, n]; a row of zeros stands for what is outside."""
    rows = int(flat.shape[1])
    if np.array_equal(index, np.arange(rows)):
        return flat
    if (index < 0).any():
        flat = emit1(Pad((0, 0, 0), (0, 1, 0), 0.0), flat)
    return emit1(Gather(1), flat, constant(np.where(index < 0, rows, index), DType.I32))
