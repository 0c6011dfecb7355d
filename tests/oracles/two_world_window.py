"""Sliding windows: the geometry that convolutions and poolings share, and one loop over kernel offsets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from two_world_core import Array, Call

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Window:
    """Where a kernel lies over a padded input, per spatial axis."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    """Padding; `after` without what ceil_mode adds."""
    out: tuple[int, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """The extent that the windows reach, at least the padded input's."""
        reach = [
            s * (o - 1) + d * (k - 1) + 1
            for s, o, d, k in zip(self.strides, self.out, self.dilations, self.kernel, strict=True)
        ]
        given = [b + n + a for b, n, a in zip(self.before, self.size, self.after, strict=True)]
        return tuple(map(max, reach, given))

    @property
    def inner(self) -> Slices:
        """The input within the padded extent."""
        return tuple(slice(b, b + n) for b, n in zip(self.before, self.size, strict=True))

    def offsets(self) -> Iterator[tuple[tuple[int, ...], Slices]]:
        """Each kernel offset, in row-major order, with the padded entries it meets, one per output."""
        for at in np.ndindex(*self.kernel):
            yield (
                at,
                tuple(
                    slice(i * d, i * d + s * (o - 1) + 1, s)
                    for i, d, s, o in zip(at, self.dilations, self.strides, self.out, strict=True)
                ),
            )

    def pad(self, value: Array, fill: float = 0.0) -> Array:
        out = np.full(value.shape[:2] + self.padded, fill)
        out[(..., *self.inner)] = value
        return out


def window(call: Call, size: Sequence[int], kernel: Sequence[int]) -> Window:
    n = len(size)
    strides = tuple(call.get("strides") or [1] * n)
    dilations = tuple(call.get("dilations") or [1] * n)
    pads = call.get("pads") or [0] * (2 * n)
    auto = call.get("auto_pad", "NOTSET")
    before, after, out = [], [], []
    for i in range(n):
        extent = dilations[i] * (kernel[i] - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-size[i] // strides[i])
            total = max((count - 1) * strides[i] + extent - size[i], 0)
            low = total // 2 if auto == "SAME_UPPER" else total - total // 2
            low, high = low, total - low
        else:
            low, high = (0, 0) if auto == "VALID" else (pads[i], pads[i + n])
            room = size[i] + low + high - extent
            if call.get("ceil_mode", 0):
                count = -(-room // strides[i]) + 1
                # A window that would start in the padding behind the input is dropped.
                count -= (count - 1) * strides[i] >= size[i] + low
            else:
                count = room // strides[i] + 1
        before.append(low)
        after.append(high)
        out.append(count)
    return Window(tuple(size), tuple(kernel), strides, dilations, tuple(before), tuple(after), tuple(out))


def box_sum(w: Window, value: Array) -> Array:
    """The sum of each window."""
    padded, out = w.pad(value), np.zeros(value.shape[:2] + w.out)
    for _, at in w.offsets():
        out += padded[(..., *at)]
    return out


def box_sum_adjoint(w: Window, g: Array) -> Array:
    padded = np.zeros(g.shape[:2] + w.padded)
    for _, at in w.offsets():
        padded[(..., *at)] += g
    return padded[(..., *w.inner)]


def grouped(value: Array, groups: int) -> Array:
    """[N, C, *s] -> [N, groups, C / groups, prod(s)]"""
    n, c = value.shape[:2]
    return value.reshape(n, groups, c // groups, math.prod(value.shape[2:]))


def convolve(w: Window, x: Array, weight: Array, groups: int) -> Array:
    """y[n, m, o] = sum over c, k of weight[m, c, k] x[n, c, s o + d k - pad]"""
    padded, m = w.pad(x), weight.shape[0]
    out: Any = 0.0
    for k, at in w.offsets():
        part = weight[(..., *k)].reshape(groups, m // groups, -1)
        out = out + part @ grouped(padded[(..., *at)], groups)
    return np.asarray(out).reshape(x.shape[0], m, *w.out)


def convolve_adjoint_x(w: Window, g: Array, weight: Array, groups: int) -> Array:
    m, c = weight.shape[:2]
    padded = np.zeros((g.shape[0], c * groups, *w.padded))
    rows = grouped(g, groups)
    for k, at in w.offsets():
        part = weight[(..., *k)].reshape(groups, m // groups, c)
        padded[(..., *at)] += (part.swapaxes(1, 2) @ rows).reshape(g.shape[0], c * groups, *w.out)
    return padded[(..., *w.inner)]


def convolve_adjoint_weight(w: Window, g: Array, x: Array, shape: Sequence[int], groups: int) -> Array:
    padded, rows, out = w.pad(x), grouped(g, groups), np.zeros(shape)
    for k, at in w.offsets():
        columns = grouped(padded[(..., *at)], groups)
        out[(..., *k)] = (rows @ columns.swapaxes(2, 3)).sum(axis=0).reshape(shape[0], shape[1])
    return out
