"""Elementwise ops: Rescale (rules.md section 2), with one secant for all of them.

A curve is f, f' and the kinks where f' jumps. Between kinks f is smooth, so its rise over a short step is the
integral of f' (Gauss-Legendre, exact to rounding for these functions on steps up to 1/2), and over a long one
f(b) - f(a), which no longer cancels. The secant is the sum of the rises over |D|. None of irshap's
cancellation-free forms is used, except for the curves with a singularity, where the quotient rule is exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from two_world_core import Array, Call, Site, define, difference, operand, ratio, unbroadcast

NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)
LONG_STEP = 0.5


@dataclass(frozen=True)
class Curve:
    f: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    kinks: Sequence[float] = ()
    closed: Callable[[Array, Array], Array] | None = None
    """The secant itself, for curves whose derivative has no common scale (log, roots, powers)."""


def rise(curve: Curve, a: Array, b: Array) -> Array:
    """f(b) - f(a) on a smooth piece, a <= b."""
    step = b - a
    short = np.zeros_like(step)
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        short += weight / 2 * curve.slope(a + step * (1 + node) / 2)
    return np.where(step < LONG_STEP, step * short, curve.f(b) - curve.f(a))


def secant(curve: Curve, x: Array, r: Array) -> Array:
    """Dy / D, and f'(x) where D = 0."""
    with np.errstate(all="ignore"):
        if curve.closed is not None:
            return curve.closed(x, r)
        lo, hi = np.minimum(x, r), np.maximum(x, r)
        edges = [-math.inf, *sorted(k for k in curve.kinks if math.isfinite(k)), math.inf]
        total = np.zeros(np.shape(lo))
        for left, right in itertools.pairwise(edges):
            total += rise(curve, np.clip(lo, left, right), np.clip(hi, left, right))
        return ratio(total, difference(hi, lo), curve.slope(x))


# Closed secants


def exp_secant(x: Array, r: Array) -> Array:
    """(e^x - e^r) / (x - r) = e^hi (1 - e^-d) / d"""
    d = np.abs(difference(x, r))
    return np.exp(np.maximum(x, r)) * ratio(-np.expm1(-d), d, 1.0)


def log_secant(x: Array, r: Array) -> Array:
    lo, d = np.minimum(x, r), np.abs(x - r)
    return ratio(np.log1p(d / lo), d, 1 / x)


def power_secant(x: Array, r: Array, p: float) -> Array:
    """(x^p - r^p) / (x - r) for constant p; the base is positive unless p is a small whole number."""
    if p < 0:
        # 1/a - 1/b = -(a - b) / (a b)
        return -power_secant(x, r, -p) / (np.power(x, -p) * np.power(r, -p))
    if float(p).is_integer() and p <= 16:
        return sum((x**i * r ** (p - 1 - i) for i in range(int(p))), np.zeros(np.broadcast(x, r).shape))
    lo, hi = np.minimum(x, r), np.maximum(x, r)
    d = hi - lo
    near = np.power(hi, p) * -np.expm1(p * np.log1p(-d / hi))
    far = np.power(hi, p) - np.power(lo, p)
    # At 0 the derivative of a root is infinite; 0 there, as `root_secant` says.
    return ratio(np.where(lo > hi / 2, near, far), d, np.where(x == 0, 0.0, p * np.power(x, p - 1)))


def root_secant(x: Array, r: Array) -> Array:
    """(sqrt x - sqrt r) / (x - r); 0 where both are 0, as a norm's parts want it."""
    return ratio(np.ones(np.broadcast(x, r).shape), np.sqrt(x) + np.sqrt(r))


# Curves

SELU = (1.67326319217681884765625, 1.05070102214813232421875)
erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1 + e)


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sech2(x: Array) -> Array:
    """tanh'"""
    e = np.exp(-2 * np.abs(x))
    return 4 * e / (1 + e) ** 2


def phi(x: Array) -> Array:
    """The normal distribution's density."""
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def leaky(slope: Any) -> Curve:
    return Curve(lambda x: np.where(x > 0, x, slope * x), lambda x: np.where(x > 0, 1.0, slope), [0])


def elu(alpha: float, gamma: float = 1.0, width: float = 1.0) -> Curve:
    """gamma x above 0, gamma alpha (e^(x / width) - 1) below."""
    return Curve(
        lambda x: gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / width)),
        lambda x: gamma * np.where(x > 0, 1.0, alpha / width * np.exp(np.minimum(x, 0) / width)),
        [0],
    )


def clip(low: float, high: float) -> Curve:
    """At a limit, where the derivative is open, 1 (as torch's clamp)."""
    return Curve(
        lambda x: np.minimum(np.maximum(x, low), high),
        lambda x: np.where((x >= low) & (x <= high), 1.0, 0.0),
        [low, high],
    )


def hard_sigmoid(alpha: float, beta: float) -> Curve:
    return Curve(
        lambda x: np.clip(alpha * x + beta, 0, 1),
        lambda x: np.where((alpha * x + beta > 0) & (alpha * x + beta < 1), alpha, 0.0),
        [-beta / alpha, (1 - beta) / alpha],
    )


HARD_SWISH = Curve(
    lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    lambda x: np.where(x <= -3, 0.0, np.where(x < 3, x / 3 + 0.5, 1.0)),
    [-3, 3],
)
MISH = Curve(
    lambda x: x * np.tanh(softplus(x)),
    lambda x: np.tanh(softplus(x)) + x * sech2(softplus(x)) * sigmoid(x),
)
GELU = Curve(
    lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    lambda x: (1 + erf(x / math.sqrt(2))) / 2 + x * phi(x),
)
ROOT = math.sqrt(2 / math.pi)
GELU_TANH = Curve(
    lambda x: x * (1 + np.tanh(ROOT * (x + 0.044715 * x**3))) / 2,
    lambda x: (
        (1 + np.tanh(ROOT * (x + 0.044715 * x**3))) / 2
        + x * sech2(ROOT * (x + 0.044715 * x**3)) * ROOT * (1 + 3 * 0.044715 * x * x) / 2
    ),
)
ABS = Curve(np.abs, np.sign, [0])

PLAIN: dict[str, Curve] = {
    "Relu": leaky(0.0),
    "Abs": ABS,
    "HardSwish": HARD_SWISH,
    "Mish": MISH,
    "Softplus": Curve(softplus, sigmoid),
    "Softsign": Curve(lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2, [0]),
    "Sigmoid": Curve(sigmoid, lambda x: sigmoid(x) * sigmoid(-x)),
    "Tanh": Curve(np.tanh, sech2),
    "Erf": Curve(erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
    "Exp": Curve(np.exp, np.exp, closed=exp_secant),
    "Log": Curve(np.log, lambda x: 1 / x, closed=log_secant),
    "Sqrt": Curve(np.sqrt, lambda x: 0.5 / np.sqrt(x), closed=root_secant),
    "Reciprocal": Curve(lambda x: 1 / x, lambda x: -1 / x**2, closed=lambda x, r: -1 / (x * r)),
    "Sin": Curve(np.sin, np.cos),
    "Cos": Curve(np.cos, lambda x: -np.sin(x)),
    "Atan": Curve(np.arctan, lambda x: 1 / (1 + x * x)),
}


def scalar(value: Any, default: float) -> float:
    return default if value is None else float(np.asarray(value).reshape(-1)[0])


def curve_of(call: Call, inputs: list[Any]) -> Curve:
    """The function of operand 0 that an elementwise node computes."""
    if call.op in PLAIN:
        return PLAIN[call.op]
    if call.op == "LeakyRelu":
        return leaky(call.get("alpha", 0.01))
    if call.op == "PRelu":
        return leaky(inputs[1])
    if call.op == "Elu":
        return elu(call.get("alpha", 1.0))
    if call.op == "Selu":
        return elu(call.get("alpha", SELU[0]), call.get("gamma", SELU[1]))
    if call.op == "Celu":
        return elu(call.get("alpha", 1.0), width=call.get("alpha", 1.0))
    if call.op == "HardSigmoid":
        return hard_sigmoid(call.get("alpha", 0.2), call.get("beta", 0.5))
    if call.op == "Gelu":
        return GELU_TANH if call.get("approximate", "none") == "tanh" else GELU
    if call.op == "Clip":
        low, high = (
            (operand(inputs, 1), operand(inputs, 2))
            if call.opset >= 11
            else (call.get("min"), call.get("max"))
        )
        return clip(scalar(low, -math.inf), scalar(high, math.inf))
    raise call.refuse("not an elementwise op known here")


PARAMETRIC = ("LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "HardSigmoid", "Gelu", "Clip")
ELEMENTWISE = frozenset((*PLAIN, *PARAMETRIC))


def elementwise(call: Call, inputs: list[Any]) -> list[Any]:
    with np.errstate(over="ignore", divide="ignore"):
        return [curve_of(call, inputs).f(inputs[0])]


def elementwise_backward(site: Site, g: list[Array]) -> list[Array | None]:
    return site.only(g[0] * secant(curve_of(site.call, site.x), site.x[0], site.r[0]))


define(*sorted(ELEMENTWISE), forward=elementwise, backward=elementwise_backward)


# Div, Pow, Max, Min: section 4


def div_backward(site: Site, g: list[Array]) -> list[Array | None]:
    """m_u = (1/v + 1/v0) / 2, m_v = -bar(u) / (v v0)"""
    (u, v), (u0, v0) = site.x, site.r
    out: list[Array | None] = [None, None]
    if site.active[0]:
        out[0] = unbroadcast(g[0] * (1 / v + 1 / v0) / 2, u.shape)
    if site.active[1]:
        out[1] = unbroadcast(-g[0] * (u + u0) / 2 / (v * v0), v.shape)
    return out


define("Div", forward=lambda call, v: [v[0] / v[1]], backward=div_backward, operands=(0, 1))


def base_secant(x: Array, r: Array, exponent: Array) -> Array:
    """(x^e - r^e) / (x - r), for an array of exponents."""
    x, r, exponent = np.broadcast_arrays(x, r, exponent)
    out = np.zeros(x.shape)
    for p in np.unique(exponent):
        at = exponent == p
        out[at] = root_secant(x[at], r[at]) if p == 0.5 else power_secant(x[at], r[at], float(p))
    return out


def exponent_secant(base: Array, e: Array, e0: Array) -> Array:
    """(b^e - b^e0) / (e - e0) = ln b * exp_secant(e ln b, e0 ln b); 0 for a base of 0."""
    logs = np.log(np.where(base > 0, base, 1.0))
    return logs * exp_secant(e * logs, e0 * logs)


def pow_backward(site: Site, g: list[Array]) -> list[Array | None]:
    """Two players: each one's secant, averaged over the other's two values."""
    (b, e), (b0, e0) = site.x, site.r
    out: list[Array | None] = [None, None]
    with np.errstate(all="ignore"):
        if site.active[0]:
            both = (base_secant(b, b0, e) + base_secant(b, b0, e0)) / 2
            out[0] = unbroadcast(g[0] * both, b.shape)
        if site.active[1]:
            both = (exponent_secant(b, e, e0) + exponent_secant(b0, e, e0)) / 2
            out[1] = unbroadcast(g[0] * both, e.shape)
    return out


define("Pow", forward=lambda call, v: [np.power(v[0], v[1])], backward=pow_backward, operands=(0, 1))

PICK: dict[str, Any] = {"Max": np.maximum, "Min": np.minimum}


def pick(call: Call, inputs: list[Any]) -> list[Any]:
    """Max or Min, folded from the left."""
    out = inputs[0]
    for value in inputs[1:]:
        out = PICK[call.op](out, value)
    return [np.array(out)]


def pick_pair(site: Site, a: Array, a0: Array, b: Array, b0: Array, one_varies: bool) -> Array:
    """The multiplier of a. Alone it is elementwise (a kink at b), else the two-player value over D."""
    f, d = PICK[site.call.op], difference(a, a0)
    if one_varies:
        slope = np.where(f(a, b) == a, 1.0, 0.0) * np.where(a == b, 0.0, 1.0)
        return ratio(f(a, b) - f(a0, b), d, slope)
    # Each bracket is at most |d|, also as rounded, because max and min only choose.
    value = ((f(a, b) - f(a0, b)) + (f(a, b0) - f(a0, b0))) / 2
    return np.where(np.abs(d) < site.guard, 0.0, ratio(value, d))


def pick_backward(site: Site, g: list[Array]) -> list[Array | None]:
    f, n = PICK[site.call.op], len(site.x)
    # The folds before operand i, in both worlds, and whether they vary.
    folds = [(site.x[0], site.r[0], site.active[0])]
    for i in range(1, n - 1):
        folds.append((f(folds[-1][0], site.x[i]), f(folds[-1][1], site.r[i]), folds[-1][2] or site.active[i]))
    out: list[Array | None] = [None] * n
    grad = g[0]
    for i in range(n - 1, 0, -1):
        left, left0, varies = folds[i - 1]
        right, right0 = site.x[i], site.r[i]
        alone = not (varies and site.active[i])
        if site.active[i]:
            m = pick_pair(site, right, right0, left, left0, alone)
            out[i] = unbroadcast(grad * m, right.shape)
        grad = unbroadcast(grad * pick_pair(site, left, left0, right, right0, alone), left.shape)
    if site.active[0]:
        out[0] = grad if n > 1 else g[0]
    return out


define("Max", "Min", forward=pick, backward=pick_backward, operands=None)
