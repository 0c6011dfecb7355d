"""Ops with a sum inside: softmax (rules.md section 5), normalizations (section 6), norms and products.

Each is walked back through its parts, whose rules are those of sections 1, 2 and 4. Multiplied out, the parts
are the closed forms of rules.md, which the oracle's own test writes down and compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from two_world_core import (
    Array,
    Call,
    Site,
    define,
    from_rows,
    operand,
    ratio,
    reduce_axes,
    reduced_shape,
    to_rows,
)
from two_world_linear import channels
from two_world_scalar import ABS, exp_secant, log_secant, power_secant, root_secant, secant
from two_world_window import box_sum, box_sum_adjoint, window

# Softmax, LogSoftmax, ReduceLogSumExp


def row_parts(rows: Array) -> tuple[Array, Array]:
    """l = top + rest. Kept apart: x - l loses what the row has in common, (x - top) - rest doesn't."""
    top = rows.max(axis=-1, keepdims=True)
    return top, np.log(np.exp(rows - top).sum(axis=-1, keepdims=True))


def log_sum_exp(rows: Array) -> Array:
    top, rest = row_parts(rows)
    return top + rest


def log_softmax(rows: Array) -> Array:
    top, rest = row_parts(rows)
    return (rows - top) - rest


def log_sum_exp_weights(x: Array, r: Array) -> Array:
    """w: the multipliers of l = log(sum(exp(x))), through Exp, Sum and Log.

    The secant of Log is one over the secant of Exp at (l, l0). Subtracting c = max(l, l0) everywhere changes
    nothing.
    """
    (top, rest), (top0, rest0) = row_parts(x), row_parts(r)
    larger = top + rest > top0 + rest0
    top_c, rest_c = np.where(larger, top, top0), np.where(larger, rest, rest0)
    lx, lr = (top - top_c) + (rest - rest_c), (top0 - top_c) + (rest0 - rest_c)
    return exp_secant((x - top_c) - rest_c, (r - top_c) - rest_c) / exp_secant(lx, lr)


def softmax_axes(call: Call, rank: int) -> list[int]:
    if call.opset >= 13:
        return [call.get("axis", -1) % rank]
    return list(range(call.get("axis", 1) % rank, rank))  # flattened to two dimensions, up to opset 12


def softmax(call: Call, inputs: list[Any]) -> list[Any]:
    axes = softmax_axes(call, inputs[0].ndim)
    rows = to_rows(inputs[0], axes)
    y = log_softmax(rows)
    return [from_rows(y if call.op == "LogSoftmax" else np.exp(y), inputs[0].shape, axes)]


def softmax_backward(site: Site, g: list[Array]) -> list[Array | None]:
    """x -> x - l(x) [-> Exp]"""
    shape = site.x[0].shape
    axes = softmax_axes(site.call, len(shape))
    x, r, grad = (to_rows(v, axes) for v in (site.x[0], site.r[0], g[0]))
    if site.call.op == "Softmax":
        grad = grad * exp_secant(log_softmax(x), log_softmax(r))
    m = grad - log_sum_exp_weights(x, r) * grad.sum(axis=-1, keepdims=True)
    return site.only(from_rows(m, shape, axes))


define("Softmax", "LogSoftmax", forward=softmax, backward=softmax_backward)


# Reductions

RowsForward = Callable[[Array], Array]
RowsBackward = Callable[[Array, Array, Array], Array]
"""(rows of x, rows of r, multiplier of each row's result [..., 1]) -> multipliers of the rows"""


def reduction(op: str, forward: RowsForward, backward: RowsBackward) -> None:
    def run(call: Call, inputs: list[Any]) -> list[Any]:
        x = inputs[0]
        axes = reduce_axes(call, inputs, x.ndim)
        return [forward(to_rows(x, axes)).reshape(reduced_shape(call, x.shape, axes))]

    def pull(site: Site, g: list[Array]) -> list[Array | None]:
        shape = site.x[0].shape
        axes = reduce_axes(site.call, site.x, len(shape))
        x, r = to_rows(site.x[0], axes), to_rows(site.r[0], axes)
        return site.only(from_rows(backward(x, r, g[0].reshape([*x.shape[:-1], 1])), shape, axes))

    define(op, forward=run, backward=pull)


def total(rows: Array) -> Array:
    return rows.sum(axis=-1, keepdims=True)


def norm2(rows: Array) -> Array:
    return np.sqrt(total(rows * rows))


def norm2_backward(x: Array, r: Array, g: Array) -> Array:
    """Square, Sum, Sqrt: (x + r) / (|x| + |r|)"""
    return g * root_secant(total(x * x), total(r * r)) * (x + r)


def product_backward(x: Array, r: Array, g: Array) -> Array:
    """((x0 x1) x2) ...: each step by the midpoints of its two factors."""
    px, pr = np.cumprod(x, axis=-1), np.cumprod(r, axis=-1)
    out, grad = np.zeros(x.shape), g[..., 0]
    for k in range(x.shape[-1] - 1, 0, -1):
        out[..., k] = grad * (px[..., k - 1] + pr[..., k - 1]) / 2
        grad = grad * (x[..., k] + r[..., k]) / 2
    out[..., 0] = grad
    return out


reduction("ReduceL1", lambda v: total(np.abs(v)), lambda x, r, g: g * secant(ABS, x, r))
reduction("ReduceL2", norm2, norm2_backward)
reduction("ReduceLogSumExp", log_sum_exp, lambda x, r, g: g * log_sum_exp_weights(x, r))
reduction(
    "ReduceLogSum",
    lambda v: np.log(total(v)),
    lambda x, r, g: np.broadcast_to(g * log_secant(total(x), total(r)), x.shape),
)
reduction("ReduceProd", lambda v: v.prod(axis=-1), product_backward)


# LayerNormalization, RMSNormalization, GroupNormalization, InstanceNormalization


def standardize(rows: Array, eps: float, center: bool) -> tuple[Array, Array]:
    """a = x - mean (or x), v = (mean a^2 + eps)^(-1/2)"""
    a = rows - rows.mean(axis=-1, keepdims=True) if center else rows
    return a, 1 / np.sqrt((a * a).mean(axis=-1, keepdims=True) + eps)


def standardize_backward(x: Array, r: Array, g: Array, eps: float, center: bool) -> Array:
    """y = a v, with q = mean a^2: a product, then the secant of (q + eps)^(-1/2), then a square."""
    (a, v), (a0, v0) = standardize(x, eps, center), standardize(r, eps, center)
    m_v = total(g * (a + a0) / 2)
    # v - v0 = -(q - q0) v^2 v0^2 / (v + v0), from 1/v^2 - 1/v0^2 = q - q0
    m_q = -m_v * (v * v0) * (v * v0 / (v + v0))
    m_a = g * (v + v0) / 2 + m_q * (a + a0) / x.shape[-1]
    return m_a - m_a.mean(axis=-1, keepdims=True) if center else m_a


def normalized(
    call: Call, x: Array, inputs: list[Any]
) -> tuple[tuple[int, ...], Array | float, Array | float, bool]:
    """The shape of the rows that are normalized alone, scale and shift of the result, centred or not."""
    rank = x.ndim
    if call.op in ("LayerNormalization", "RMSNormalization"):
        axis = call.get("axis", -1) % rank
        bias = operand(inputs, 2)
        return (*x.shape[:axis], -1), inputs[1], 0.0 if bias is None else bias, call.op[0] == "L"
    if call.op == "InstanceNormalization":
        return (*x.shape[:2], -1), channels(inputs[1], rank), channels(inputs[2], rank), True
    groups, count = call.get("num_groups"), x.shape[1]
    scale, bias = (np.repeat(v, count // v.size) for v in inputs[1:3])  # per group until opset 20
    return (x.shape[0], groups, -1), channels(scale, rank), channels(bias, rank), True


def norm(call: Call, inputs: list[Any]) -> list[Any]:
    x = inputs[0]
    rows, scale, bias, center = normalized(call, x, inputs)
    a, v = standardize(x.reshape(rows), call.get("epsilon", 1e-5), center)
    y = (a * v).reshape(x.shape) * scale + bias
    if call.outputs == 1:
        return [y]
    # Mean and InvStdDev, for outputs of the model: nothing is attributed through them.
    lead = rows[:-1]
    shape = [*lead, *[1] * (x.ndim - len(lead))]
    return [y, x.reshape(rows).mean(axis=-1).reshape(shape), v.reshape(shape)][: call.outputs]


def norm_backward(site: Site, g: list[Array]) -> list[Array | None]:
    call, x, r = site.call, site.x[0], site.r[0]
    rows, scale, _, center = normalized(call, x, site.x)
    grad = (g[0] * scale).reshape(rows)
    m = standardize_backward(x.reshape(rows), r.reshape(rows), grad, call.get("epsilon", 1e-5), center)
    return site.only(m.reshape(x.shape))


define(
    "LayerNormalization",
    "RMSNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    forward=norm,
    backward=norm_backward,
)


# LpNormalization, LpPool, LRN


def lp_norm(call: Call, rows: Array) -> Array:
    return total(np.abs(rows)) if call.get("p", 2) == 1 else norm2(rows)


def lp_normalization(call: Call, inputs: list[Any]) -> list[Any]:
    axis = [call.get("axis", -1) % inputs[0].ndim]
    rows = to_rows(inputs[0], axis)
    return [from_rows(ratio(rows, lp_norm(call, rows)), inputs[0].shape, axis)]


def lp_normalization_backward(site: Site, g: list[Array]) -> list[Array | None]:
    """y = x i, i = 1 / n(x). Where a norm is 0, so is the result: i counts as 0 there, and the secant of i
    over n is the plain quotient."""
    shape = site.x[0].shape
    axis = [site.call.get("axis", -1) % len(shape)]
    x, r, grad = (to_rows(v, axis) for v in (site.x[0], site.r[0], g[0]))
    n, n0 = lp_norm(site.call, x), lp_norm(site.call, r)
    i, i0 = ratio(np.ones_like(n), n), ratio(np.ones_like(n0), n0)
    slope = np.where((n == 0) | (n0 == 0), ratio(i - i0, n - n0), -i * i0)
    m_n = total(grad * (x + r) / 2) * slope
    one = site.call.get("p", 2) == 1
    m = grad * (i + i0) / 2 + (m_n * secant(ABS, x, r) if one else norm2_backward(x, r, m_n))
    return site.only(from_rows(m, shape, axis))


define("LpNormalization", forward=lp_normalization, backward=lp_normalization_backward)


def lp_pool(call: Call, inputs: list[Any]) -> list[Any]:
    x, p = inputs[0], call.get("p", 2)
    w = window(call, x.shape[2:], call.get("kernel_shape"))
    return [box_sum(w, np.abs(x) ** p) ** (1 / p)]


def lp_pool_backward(site: Site, g: list[Array]) -> list[Array | None]:
    """Abs, power, sum over the window, root."""
    x, r, p = np.abs(site.x[0]), np.abs(site.r[0]), site.call.get("p", 2)
    w = window(site.call, x.shape[2:], site.call.get("kernel_shape"))
    with np.errstate(all="ignore"):
        sums = g[0] * power_secant(box_sum(w, x**p), box_sum(w, r**p), 1 / p)
        m = box_sum_adjoint(w, sums) * power_secant(x, r, float(p))
    return site.only(m * secant(ABS, site.x[0], site.r[0]))


define("LpPool", forward=lp_pool, backward=lp_pool_backward)


def lrn_band(call: Call, count: int) -> Array:
    """[C, C]: 1 where channel j is in channel i's window."""
    size = call.get("size")
    shift = np.arange(count)[None, :] - np.arange(count)[:, None]
    return ((shift >= -((size - 1) // 2)) & (shift <= size // 2)).astype(float)


def lrn_parts(call: Call, x: Array) -> tuple[Array, float]:
    """s = bias + alpha / size * (sum of squares over near channels), and the exponent -beta."""
    sums = np.tensordot(lrn_band(call, x.shape[1]), x * x, (1, 1)).swapaxes(0, 1)
    return call.get("bias", 1.0) + call.get("alpha", 1e-4) / call.get("size") * sums, -call.get("beta", 0.75)


def lrn(call: Call, inputs: list[Any]) -> list[Any]:
    s, power = lrn_parts(call, inputs[0])
    return [inputs[0] * s**power]


def lrn_backward(site: Site, g: list[Array]) -> list[Array | None]:
    """y = x s^(-beta): a product, the power's secant, the band's adjoint, a square."""
    call, x, r = site.call, site.x[0], site.r[0]
    (s, power), (s0, _) = lrn_parts(call, x), lrn_parts(call, r)
    m_s = g[0] * (x + r) / 2 * power_secant(s, s0, power)
    band = np.tensordot(lrn_band(call, x.shape[1]).T, m_s, (1, 1)).swapaxes(0, 1)
    m = g[0] * (s**power + s0**power) / 2
    return site.only(m + band * call.get("alpha", 1e-4) / call.get("size") * (x + r))


define("LRN", forward=lrn, backward=lrn_backward)
