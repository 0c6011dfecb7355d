"""RevealCancel (rules.md section 7): every tensor's D in two parts, each with its own multiplier.

D+ + D- = D. Linear ops split by the sign of the total D and of the weights; an activation credits each part
with its mean effect over the two orders of adding them. `mixed`: Rescale for an activation that follows a
convolution, RevealCancel for one that follows a dense layer.

A map between the parts is `Parts -> Parts` forward (D+, D-) and its transpose backward (m+, m-).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from two_world import Result, TwoWorlds, Values, run
from two_world_core import GUARD, RULES, Array, Call, Site, difference, ratio, unbroadcast
from two_world_linear import (
    batch_norm_scale,
    conv_adjoint,
    conv_transpose_adjoint,
    gemm_adjoint,
    matmul_adjoint,
)
from two_world_pool import chosen, pool_window
from two_world_scalar import ELEMENTWISE, curve_of, secant

Parts = tuple[Array, Array]
Forward = Callable[[Site, list[Parts | None]], list[Parts]]
Backward = Callable[[Site, list[Parts | None], list[Parts], list[Parts]], list[Parts | None]]
"""(node, operands' D parts, results' D parts, results' multipliers) -> operands' multipliers"""

NEAR_ZERO = 1e-7


def plus(value: Any) -> Array:
    return np.maximum(value, 0)


def minus(value: Any) -> Array:
    return np.minimum(value, 0)


# Linear with weights

DENSE, CONVOLUTION = ("Gemm", "MatMul"), ("Conv", "ConvTranspose")
ADJOINT = {
    "Gemm": gemm_adjoint,
    "MatMul": matmul_adjoint,
    "Conv": conv_adjoint,
    "ConvTranspose": conv_transpose_adjoint,
}


def weighted_map(site: Site) -> tuple[Call, int, Array, Callable[[Array, Array], list[Any]]]:
    """The node without bias and factor, which operand varies, the weight, and how to put both in place."""
    call = site.call
    if sum(site.active) != 1 or any(site.active[2:]):
        raise call.refuse("RevealCancel needs constant weights and bias")
    at = site.active.index(True)
    if at == 1 and call.op in CONVOLUTION:
        raise call.refuse("RevealCancel needs constant weights and bias")
    weight = site.x[1 - at] * (call.get("alpha", 1.0) if call.op == "Gemm" else 1.0)
    plain = replace(call, attrs={k: v for k, v in call.attrs.items() if k not in ("alpha", "beta")})
    return plain, at, weight, lambda value, w: [value, w] if at == 0 else [w, value]


def weighted(site: Site, parts: list[Parts | None]) -> list[Parts]:
    """D+out = [D]+ W+ + [D]- W-, D-out = [D]+ W- + [D]- W+"""
    call, at, weight, place = weighted_map(site)
    d = difference(site.x[at], site.r[at])

    def apply(value: Array, w: Array) -> Array:
        return np.asarray(RULES[call.op].forward(call, place(value, w))[0])

    return [
        (
            apply(plus(d), plus(weight)) + apply(minus(d), minus(weight)),
            apply(plus(d), minus(weight)) + apply(minus(d), plus(weight)),
        )
    ]


def weighted_backward(
    site: Site, parts: list[Parts | None], results: list[Parts], g: list[Parts]
) -> list[Parts | None]:
    """1(D>0) (W+' m+ + W-' m-) + 1(D<0) (W-' m+ + W+' m-) + 1(D=0) W' (m+ + m-) / 2, for both parts"""
    call, at, weight, place = weighted_map(site)
    d = difference(site.x[at], site.r[at])
    up, down = g[0]

    def pull(m: Array, w: Array) -> Array:
        return ADJOINT[call.op](call, place(site.x[at], w), at, m)

    m = np.where(
        d > 0,
        pull(up, plus(weight)) + pull(down, minus(weight)),
        np.where(d < 0, pull(up, minus(weight)) + pull(down, plus(weight)), pull((up + down) / 2, weight)),
    )
    return [(m, m) if i == at else None for i in range(len(site.x))]


# Entrywise scales: a negative one swaps the parts


def scales(site: Site) -> list[Array | float]:
    """The factor with which each operand enters the result."""
    call, n = site.call, len(site.x)
    if call.op == "BatchNormalization":
        return [batch_norm_scale(call, site.x)] + [0.0] * (n - 1)
    if call.op == "Neg":
        return [-1.0]
    if call.op == "Sub":
        return [1.0, -1.0]
    if call.op == "Mean":
        return [1.0 / n] * n
    if call.op == "Mul":
        if all(site.active):
            raise call.refuse("RevealCancel has no rule for a product of two varying operands")
        return [site.x[1], site.x[0]]
    if call.op == "Div":
        if site.active[1]:
            raise call.refuse("RevealCancel has no rule for a varying divisor")
        return [1 / site.x[1], 0.0]
    return [1.0] * n


def scaled(site: Site, parts: list[Parts | None]) -> list[Parts]:
    up, down = np.zeros(site.y[0].shape), np.zeros(site.y[0].shape)
    for factor, part in zip(scales(site), parts, strict=True):
        if part is not None:
            up = up + plus(factor) * part[0] + minus(factor) * part[1]
            down = down + plus(factor) * part[1] + minus(factor) * part[0]
    return [(up, down)]


def scaled_backward(
    site: Site, parts: list[Parts | None], results: list[Parts], g: list[Parts]
) -> list[Parts | None]:
    up, down = g[0]
    return [
        (
            unbroadcast(plus(factor) * up + minus(factor) * down, part[0].shape),
            unbroadcast(plus(factor) * down + minus(factor) * up, part[0].shape),
        )
        if part is not None
        else None
        for factor, part in zip(scales(site), parts, strict=True)
    ]


# Nonnegative linear maps: on each part by itself

NONNEGATIVE = ("AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum", "Resize")


def apart(site: Site, parts: list[Parts | None]) -> list[Parts]:
    def run(which: int) -> list[Array]:
        inputs = list(site.x)
        for i, part in enumerate(parts):
            if part is not None:
                inputs[i] = part[which]
            elif RULES[site.call.op].moves and inputs[i] is not None and is_moved(site.call, i):
                inputs[i] = np.zeros(np.shape(inputs[i]))
        return list(RULES[site.call.op].forward(site.call, inputs))

    return list(zip(run(0), run(1), strict=True))


def is_moved(call: Call, index: int) -> bool:
    """Whether an operand's entries, not its numbers, matter: a constant one has no difference to give."""
    operands = RULES[call.op].operands
    return operands is None or index in operands


def apart_backward(
    site: Site, parts: list[Parts | None], results: list[Parts], g: list[Parts]
) -> list[Parts | None]:
    up = RULES[site.call.op].backward(site, [m for m, _ in g])
    down = RULES[site.call.op].backward(site, [m for _, m in g])
    return [None if a is None or b is None else (a, b) for a, b in zip(up, down, strict=True)]


def max_pooled(site: Site, parts: list[Parts | None]) -> list[Parts]:
    """Section 3 moves the share c of D at the argmax; each part of D there moves in the same proportion."""
    x, r, part = site.x[0], site.r[0], parts[0]
    assert part is not None
    w, d = pool_window(site.call, x), difference(x, r)
    (y, ax), (y0, ar) = chosen(w, x), chosen(w, r)
    top = np.maximum(y, y0)
    out = []
    for share in part:
        rate = w.pad(np.where(np.abs(d) < site.guard, 0.0, ratio(share, d)))
        total = np.zeros(y.shape)
        for number, (_, at) in enumerate(w.offsets()):
            c = np.where(ax == number, top - y0, 0.0) + np.where(ar == number, y - top, 0.0)
            total += c * rate[(..., *at)]
        out.append(total)
    return [(out[0], out[1])]


# Activations


def reveal(site: Site, parts: list[Parts | None]) -> list[Parts]:
    """y+ = ([f(r+p) - f(r)] + [f(r+n+p) - f(r+n)]) / 2, y- = ([f(r+n) - f(r)] + [f(r+p+n) - f(r+p)]) / 2"""
    assert parts[0] is not None
    f, r, (p, n) = curve_of(site.call, site.x).f, site.r[0], parts[0]
    base, with_p, with_n, both = f(r), f(r + p), f(r + n), f(r + p + n)
    return [(((with_p - base) + (both - with_n)) / 2, ((with_n - base) + (both - with_p)) / 2)]


def off_zero(value: Array) -> Array:
    return value + np.where(np.abs(value) < NEAR_ZERO / 2, np.where(value < 0, -1, 1) * NEAR_ZERO, 0)


def reveal_backward(
    site: Site, parts: list[Parts | None], results: list[Parts], g: list[Parts]
) -> list[Parts | None]:
    """m+in = (y+ / p) m+out, m-in = (y- / n) m-out"""
    assert parts[0] is not None
    pair = tuple(m * y / off_zero(d) for m, y, d in zip(g[0], results[0], parts[0], strict=True))
    return [(pair[0], pair[1]), *[None] * (len(site.x) - 1)]


def rescale(site: Site, parts: list[Parts | None]) -> list[Parts]:
    assert parts[0] is not None
    slope = secant(curve_of(site.call, site.x), site.x[0], site.r[0])
    return [(slope * parts[0][0], slope * parts[0][1])]


PART_RULES: dict[str, tuple[Forward, Backward]] = {
    **dict.fromkeys(DENSE + CONVOLUTION, (weighted, weighted_backward)),
    **dict.fromkeys(
        ("Add", "Sub", "Sum", "Mean", "Neg", "Mul", "Div", "BatchNormalization"), (scaled, scaled_backward)
    ),
    **dict.fromkeys(NONNEGATIVE, (apart, apart_backward)),
    **dict.fromkeys((op for op, rule in RULES.items() if rule.moves), (apart, apart_backward)),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), (max_pooled, apart_backward)),
    **dict.fromkeys(ELEMENTWISE, (reveal, reveal_backward)),
}
RESCALE: tuple[Forward, Backward] = (rescale, apart_backward)


@dataclass
class RevealWorlds(TwoWorlds):
    mixed: bool = False

    def rule_of(self, node: onnx.NodeProto, call: Call) -> tuple[Forward, Backward]:
        if call.op not in PART_RULES:
            raise call.refuse("RevealCancel has no rule for it")
        if self.mixed and call.op in ELEMENTWISE and not self.follows_dense(node):
            return RESCALE
        return PART_RULES[call.op]

    def follows_dense(self, node: onnx.NodeProto) -> bool:
        """Whether the nearest layers with weights above are all dense."""
        producer = {name: n for n, _ in self.path for name in n.output}
        found, todo = set(), [name for name in node.input if name in self.active]
        while todo:
            above = producer.get(todo.pop())
            if above is not None and above.op_type in DENSE + CONVOLUTION:
                found.add(above.op_type)
            elif above is not None:
                todo += [name for name in above.input if name in self.active]
        return bool(found) and found.isdisjoint(CONVOLUTION)

    def pull(self, x: Values, r: Values, seed: Array) -> dict[str, Array]:
        parts: dict[str, Parts] = {}
        for name in self.attributed:
            d = difference(x[name], r[name])
            parts[name] = (plus(d), minus(d))
        done = []
        for node, call in self.path:
            site, (forward, backward) = self.site(node, call, x, r), self.rule_of(node, call)
            operands = [parts[name] if active else None for name, active in zip_names(node, site)]
            results = forward(site, operands)
            parts.update(zip(node.output, results, strict=False))
            done.append((node, site, backward, operands, results))
        multipliers: dict[str, Parts] = {self.explained: (seed, seed)}
        for node, site, backward, operands, results in reversed(done):
            zeros = [(np.zeros(p.shape), np.zeros(n.shape)) for p, n in results]
            g = [multipliers.get(name, zero) for name, zero in zip(node.output, zeros, strict=False)]
            pulled = backward(site, operands, results, g)
            left, right = (
                [],
                [m * d for pair in zip(g, results, strict=True) for m, d in zip(*pair, strict=True)],
            )
            for (name, active), part, m in zip(zip_names(node, site), operands, pulled, strict=True):
                if active:
                    assert part is not None and m is not None
                    old = multipliers.get(name, (0.0, 0.0))
                    multipliers[name] = (old[0] + m[0], old[1] + m[1])
                    left += [m[0] * part[0], m[1] * part[1]]
            self.note_gap(site.call.name, left, right)
        out = {}
        for name in self.attributed:
            m = multipliers.get(name, (0.0, 0.0))
            out[name] = m[0] * parts[name][0] + m[1] * parts[name][1]
        return out


def zip_names(node: onnx.NodeProto, site: Site) -> list[tuple[str, bool]]:
    return list(zip(node.input, site.active, strict=True))


def reveal_cancel(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    references: Mapping[str, Array],
    *,
    output: int | str = 0,
    target: int | None = None,
    context: Iterable[str] = (),
    rule: str = "reveal-cancel",
    weights: Array | None = None,
    guard: float = GUARD,
    at: Iterable[str] = (),
) -> Result:
    """`explain` with rule `reveal-cancel` (every activation) or `mixed`."""
    if rule not in ("reveal-cancel", "mixed"):
        raise ValueError(f"rule {rule!r}: reveal-cancel or mixed")
    worlds = RevealWorlds(model, frozenset(context), output, guard, tuple(at), mixed=rule == "mixed")
    return run(worlds, sample, references, target, weights)
