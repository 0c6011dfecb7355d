"""Ops that choose an entry: max-pooling and its kin (rules.md section 3), and TopK.

One window has outputs y, y0 and M = max(y, y0). The share c+ = g (M - y0) goes to the argmax of x, the share
c- = g (y - M) to the argmax of r; shares of overlapping windows add up in C, and m = C / D at the end.
Of tied entries the first one counts.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from two_world_core import (
    Array,
    Call,
    Site,
    define,
    difference,
    from_rows,
    ratio,
    reduce_axes,
    reduced_shape,
    to_rows,
)
from two_world_window import Window, window


def shares_to_multiplier(site: Site, shares: Array) -> Array:
    """m = C / D, and 0 where |D| is below the guard."""
    d = difference(site.x[0], site.r[0])
    return np.where(np.abs(d) < site.guard, 0.0, ratio(shares, d))


def pool_window(call: Call, x: Array) -> Window:
    if call.op == "GlobalMaxPool":
        return window(Call(call.name, call.op, call.opset, {}, 1), x.shape[2:], x.shape[2:])
    return window(call, x.shape[2:], call.get("kernel_shape"))


def chosen(w: Window, value: Array) -> tuple[Array, Array]:
    """The maximum of each window and the number of the kernel offset where it stands."""
    padded = w.pad(value, -np.inf)
    stack = np.stack([padded[(..., *at)] for _, at in w.offsets()])
    return stack.max(axis=0), stack.argmax(axis=0)


def max_pool(call: Call, inputs: list[Any]) -> list[Any]:
    x = inputs[0]
    w = pool_window(call, x)
    y, which = chosen(w, x)
    if call.outputs == 1:
        return [y]
    padded = w.pad(np.arange(x.size, dtype=float).reshape(x.shape), -1)
    flat = np.stack([padded[(..., *at)] for _, at in w.offsets()])
    return [y, np.take_along_axis(flat, which[None], 0)[0].astype(np.int64)]


def pool_shares(w: Window, x: Array, r: Array, g: Array) -> Array:
    """C of section 3, for the multiplier g of the windows' maxima."""
    (y, ax), (y0, ar) = chosen(w, x), chosen(w, r)
    top = np.maximum(y, y0)
    plus, minus = g * (top - y0), g * (y - top)
    shares = np.zeros(x.shape[:2] + w.padded)
    for number, (_, at) in enumerate(w.offsets()):
        shares[(..., *at)] += np.where(ax == number, plus, 0.0) + np.where(ar == number, minus, 0.0)
    return shares[(..., *w.inner)]


def max_pool_backward(site: Site, g: list[Array]) -> list[Array | None]:
    w = pool_window(site.call, site.x[0])
    return site.only(shares_to_multiplier(site, pool_shares(w, site.x[0], site.r[0], g[0])))


define("MaxPool", "GlobalMaxPool", forward=max_pool, backward=max_pool_backward)


def row_shares(x: Array, r: Array, g: Array) -> Array:
    """C for rows [..., n] that are one window each."""
    y, y0 = x.max(axis=-1), r.max(axis=-1)
    top, shares = np.maximum(y, y0), np.zeros(x.shape)
    for value, share in ((x, g * (top - y0)), (r, g * (y - top))):
        at = np.expand_dims(value.argmax(axis=-1), -1)
        kept = np.take_along_axis(shares, at, -1)
        np.put_along_axis(shares, at, kept + share[..., None], -1)
    return shares


def reduce_max(call: Call, inputs: list[Any]) -> list[Any]:
    x = inputs[0]
    axes = reduce_axes(call, inputs, x.ndim)
    rows = to_rows(x, axes)
    y = rows.max(axis=-1) if call.op == "ReduceMax" else rows.min(axis=-1)
    return [y.reshape(reduced_shape(call, x.shape, axes))]


def reduce_max_backward(site: Site, g: list[Array]) -> list[Array | None]:
    """min(x) = -max(-x), and the two signs cancel in the multiplier."""
    sign = 1.0 if site.call.op == "ReduceMax" else -1.0
    shape = site.x[0].shape
    axes = reduce_axes(site.call, site.x, len(shape))
    x, r = to_rows(sign * site.x[0], axes), to_rows(sign * site.r[0], axes)
    shares = row_shares(x, r, g[0].reshape(x.shape[:-1]))
    return site.only(shares_to_multiplier(site, sign * from_rows(shares, shape, axes)))


define("ReduceMax", "ReduceMin", forward=reduce_max, backward=reduce_max_backward)


# TopK


def top_order(call: Call, rows: Array) -> Array:
    """The positions of the best entries first; ties by position."""
    return np.argsort(-rows if call.get("largest", 1) else rows, axis=-1, kind="stable")


def top_k_size(call: Call, inputs: list[Any]) -> int:
    return int(np.asarray(inputs[1]).reshape(-1)[0]) if call.opset >= 10 else int(call.get("k"))


def top_k(call: Call, inputs: list[Any]) -> list[Any]:
    axis = call.get("axis", -1)
    rows = np.moveaxis(inputs[0], axis, -1)
    order = top_order(call, rows)[..., : top_k_size(call, inputs)]
    values = np.take_along_axis(rows, order, -1)
    return [np.moveaxis(values, -1, axis), np.moveaxis(order, -1, axis)]


def top_k_row(call: Call, x: Array, r: Array, g: Array) -> Array:
    """The mean over the straight path of the gather's transposed map.

    rules.md has no rule for ranks that move. On the path r + t (x - r) the order changes only where two
    entries meet, so the mean is a finite sum, complete, without a division by D, and between 0 and 1.
    """
    d = x - r
    gaps, slopes = r[None, :] - r[:, None], d[:, None] - d[None, :]
    meet = ratio(gaps, slopes, -1.0).reshape(-1)
    times = np.unique(np.concatenate([[0.0], meet[(meet > 0) & (meet < 1)], [1.0]]))
    out = np.zeros(x.shape)
    for start, end in itertools.pairwise(times):
        order = top_order(call, r + (start + end) / 2 * d)[: g.size]
        out[order] += (end - start) * g
    return out


def top_k_backward(site: Site, g: list[Array]) -> list[Array | None]:
    call, axis = site.call, site.call.get("axis", -1)
    x, r, grad = (np.moveaxis(v, axis, -1) for v in (site.x[0], site.r[0], g[0]))
    if grad.shape[-1] == 1:
        # One value is a ReduceMax (or ReduceMin): section 3.
        sign = 1.0 if call.get("largest", 1) else -1.0
        shares = sign * row_shares(sign * x, sign * r, grad[..., 0])
        return site.only(shares_to_multiplier(site, np.moveaxis(shares, -1, axis)))
    out = np.zeros(x.shape)
    for at in np.ndindex(*x.shape[:-1]):
        out[at] = top_k_row(call, x[at], r[at], grad[at])
    return site.only(np.moveaxis(out, -1, axis))


define("TopK", forward=top_k, backward=top_k_backward)
