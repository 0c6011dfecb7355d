"""Plain definitions of integrated gradients and occlusion, in float64 and numpy; no code is irshap's.

One sample, one reference and one point of the path at a time, or one patch after the other, over the node by
node evaluation of two_world.py.  A gradient is the multiplier between two worlds that are the same; but that
of max-pooling, whose rule then shares nothing out, comes from differences: exact, because it is linear there.

    integrated(model, {"x": sample}, {"x": references}, steps=50)["x"]
    occluded(model, {"x": sample}, window=(3, 4, 4), step=(3, 2, 2))["x"]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from two_world import TwoWorlds, chosen_target
from two_world_core import RULES, Array, Site

__all__ = ["chosen_seed", "expected", "integrated", "occluded", "quadrature", "smoothed"]

STEP = 1e-6

Target = int | Sequence[int] | None
"""A flat index into the explained output, one for each sample, or None: the largest."""


def quadrature(steps: int, rule: str) -> list[tuple[float, float]]:
    """(a, weight) on [0, 1]; Gauss-Legendre's from the Jacobi matrix (Golub and Welsch 1969)."""
    if rule == "right":
        return [(i / steps, 1 / steps) for i in range(1, steps + 1)]
    if rule == "trapezoid":
        gaps = [(i / (steps - 1), (i + 1) / (steps - 1)) for i in range(steps - 1)]
        return [(a, (b - c) / 2) for gap in gaps for a, (c, b) in zip(gap, (gap, gap), strict=True)]
    off = [k / (4 * k * k - 1) ** 0.5 for k in range(1, steps)]
    places, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    return [((a + 1) / 2, float(v) ** 2) for a, v in zip(places, vectors[0], strict=True)]


class Gradients(TwoWorlds):
    """TwoWorlds for two worlds that are the same."""

    def backward(self, site: Site, g: list[Array]) -> list[Array | None]:
        if site.call.op not in ("MaxPool", "GlobalMaxPool"):
            return super().backward(site, g)
        (x,) = site.x
        steps = STEP * np.eye(x.size).reshape(x.size, *x.shape[1:])
        (above,), (below,) = (RULES[site.call.op].forward(site.call, [x + s]) for s in (steps, -steps))
        slopes = (above - below).reshape(x.size, -1) @ g[0].reshape(-1) / (2 * STEP)
        return [slopes.reshape(x.shape)]


def integrated(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    references: Mapping[str, Array],
    *,
    steps: int = 50,
    rule: str = "gauss-legendre",
    target: Target = None,
    context: Iterable[str] = (),
    weights: Array | None = None,
    at: Iterable[str] = (),
) -> dict[str, Array]:
    """(x - r) times the mean gradient from r to x, averaged over references; arguments as of `explain`."""
    worlds = Gradients(model, frozenset(context), at=tuple(at))
    count, others = (len(next(iter(arrays.values()))) for arrays in (sample, references))
    weights = np.full(others, 1 / others) if weights is None else np.asarray(weights) / np.sum(weights)
    found: dict[str, list[Array]] = {name: [] for name in worlds.attributed}
    for i in range(count):
        feeds = worlds.rows(sample, i, count)
        x = worlds.world(feeds)
        seed = chosen_seed(np.asarray(x[worlds.explained]), target, i)
        total = {name: np.zeros(np.shape(x[name])) for name in found}
        for j in range(others):
            r = worlds.reference_world(feeds, worlds.rows(references, j, others))
            for a, weight in quadrature(steps, rule):
                between = {name: r[name] + a * (x[name] - r[name]) for name in found}
                point = worlds.world({**feeds, **between})
                slopes = worlds.multipliers(point, point, seed)
                for name in found:
                    total[name] += weights[j] * weight * slopes[name] * (x[name] - r[name])
        for name, rows in found.items():
            rows.append(total[name])
    return {name: np.concatenate(rows) for name, rows in found.items()}


def expected(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    references: Mapping[str, Array],
    draws: Sequence[tuple[float, int, float]],
    *,
    target: Target = None,
    context: Iterable[str] = (),
    at: Iterable[str] = (),
) -> dict[str, Array]:
    """Sum over draws (a, reference, weight) of weight (x - r) times the gradient at r + a (x - r)."""
    worlds = Gradients(model, frozenset(context), at=tuple(at))
    count, others = (len(next(iter(arrays.values()))) for arrays in (sample, references))
    found: dict[str, list[Array]] = {name: [] for name in worlds.attributed}
    for i in range(count):
        feeds = worlds.rows(sample, i, count)
        x = worlds.world(feeds)
        seed = chosen_seed(np.asarray(x[worlds.explained]), target, i)
        total = {name: np.zeros(np.shape(x[name])) for name in found}
        for a, j, weight in draws:
            r = worlds.reference_world(feeds, worlds.rows(references, j, others))
            point = worlds.world({**feeds, **{n: r[n] + a * (x[n] - r[n]) for n in found}})
            slopes = worlds.multipliers(point, point, seed)
            for name in found:
                total[name] += weight * slopes[name] * (x[name] - r[name])
        for name, rows in found.items():
            rows.append(total[name])
    return {name: np.concatenate(rows) for name, rows in found.items()}


def smoothed(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    *,
    samples: int,
    noise: float,
    seed: int,
    target: Target = None,
    context: Iterable[str] = (),
    at: Iterable[str] = (),
) -> dict[str, Array]:
    """The mean gradient at x + e, e normal and drawn for one attributed tensor after the other."""
    worlds = Gradients(model, frozenset(context), at=tuple(at))
    count = len(next(iter(sample.values())))
    found: dict[str, list[Array]] = {name: [] for name in worlds.attributed}
    for i in range(count):
        feeds = worlds.rows(sample, i, count)
        x = worlds.world(feeds)
        ones = chosen_seed(np.asarray(x[worlds.explained]), target, i)
        rng = np.random.default_rng(seed)
        drawn = {name: noise * rng.standard_normal((samples, *np.shape(x[name])[1:])) for name in found}
        slopes = []
        for k in range(samples):
            point = worlds.world({**feeds, **{name: x[name] + e[k] for name, e in drawn.items()}})
            slopes.append(worlds.multipliers(point, point, ones))
        for name, rows in found.items():
            rows.append(np.mean([s[name] for s in slopes], axis=0))
    return {name: np.concatenate(rows) for name, rows in found.items()}


def occluded(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    *,
    window: Sequence[int],
    step: Sequence[int],
    value: float = 0.0,
    target: Target = None,
    context: Iterable[str] = (),
    at: Iterable[str] = (),
) -> dict[str, Array]:
    """Mean over covering patches of (T(x) - T(patch replaced)) / |patch|; 0 where there is none.

    `window` and `step` are for all axes behind the samples', and for every attributed tensor.
    """
    worlds = TwoWorlds(model, frozenset(context), at=tuple(at))
    count = len(next(iter(sample.values())))
    found: dict[str, list[Array]] = {name: [] for name in worlds.attributed}
    for i in range(count):
        feeds = worlds.rows(sample, i, count)
        x = worlds.world(feeds)
        seed = chosen_seed(np.asarray(x[worlds.explained]), target, i)
        for name, rows in found.items():
            shape = np.shape(x[name])[1:]
            heat, covers = np.zeros(shape), np.zeros(shape)
            starts = (range(0, d - w + 1, s) for d, w, s in zip(shape, window, step, strict=True))
            for start in itertools.product(*starts):
                patch = tuple(slice(a, a + w) for a, w in zip(start, window, strict=True))
                masked = np.array(x[name])
                masked[(0, *patch)] = value
                changed = {n: x[n] for n in found} | {name: masked}
                lost = x[worlds.explained] - worlds.world({**feeds, **changed})[worlds.explained]
                heat[patch] += np.sum(seed * lost) / heat[patch].size
                covers[patch] += 1
            rows.append((heat / np.maximum(covers, 1))[None])
    return {name: np.concatenate(rows) for name, rows in found.items()}


def chosen_seed(row: Array, target: Target, i: int) -> Array:
    """1 at the explained number of sample i."""
    seed = np.zeros(row.shape)
    index = target if target is None or isinstance(target, int) else int(target[i])
    seed.reshape(-1)[chosen_target(row, index)] = 1.0
    return seed
