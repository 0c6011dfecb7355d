"""Sliding windows in numpy: what convolutions and pooling share in their evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import require
from irshap.ir.dims import Dim, as_dim, floor_div, minimum
from irshap.ir.types import Array

__all__ = ["padded", "window_count", "windows"]


def window_count(
    size: Dim, kernel: int, stride: int, pads: tuple[int, int], dilation: int, ceil: bool = False
) -> Dim:
    """How many windows fit: floor (or ceil) of (size + pads - dilation (kernel - 1) - 1) / stride, plus 1.

    Raises:
        TypeMismatch: none fits, or there are no such windows.
    """
    require(min(kernel, stride, dilation) > 0, f"no window has {kernel=}, {stride=}, {dilation=}")
    count = _count(size, kernel, stride, pads, dilation, ceil)
    require(not isinstance(count, int) or count > 0, f"no window of {kernel} elements fits into {size}")
    return count


def _count(size: Dim, kernel: int, stride: int, pads: tuple[int, int], dilation: int, ceil: bool) -> Dim:
    span = as_dim(size + pads[0] + pads[1] - dilation * (kernel - 1) - 1)
    if not ceil:
        return as_dim(floor_div(span, stride) + 1)
    count = as_dim(floor_div(as_dim(span + stride - 1), stride) + 1)
    # a window that would start in the padding after the end is dropped (as ONNX and torch do)
    return minimum(count, as_dim(floor_div(as_dim(size + pads[0] - 1), stride) + 1))


def padded(x: Array, pads: Sequence[tuple[int, int]], value: float) -> Array:
    """`x` with its spatial axes (from 2) padded."""
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value) if any(map(any, pads)) else x


def windows(x: Array, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """All windows of the spatial axes: [n, c, out..., kernel...], a view."""
    axes = tuple(range(2, x.ndim))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    take = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    return np.asarray(view[(*take, *(slice(None, None, d) for d in dilations))])
