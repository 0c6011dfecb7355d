"""Plain definitions of ablation and Shapley values, in float64 and numpy; no code is irshap's.

A game is T of one sample with some features from a reference, averaged over the references, over the node by
node evaluation of two_world.py, each set of features by itself.

    values(model, {"x": sample}, {"x": references}, shapley)["x"]
    values(model, {"x": sample}, {"x": references}, ablated, groups={"x": numbers})["x"]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import comb, factorial

import numpy as np
import onnx
from paths import Target, chosen_seed
from two_world import TwoWorlds
from two_world_core import Array

__all__ = ["ablated", "least_squares", "ordered", "shapley", "values"]

Game = Callable[[frozenset[int]], float]
"""T with these features from the reference."""


def ablated(game: Game, count: int) -> list[float]:
    """T less T without one feature."""
    return [game(frozenset()) - game(frozenset([i])) for i in range(count)]


def shapley(game: Game, count: int) -> list[float]:
    """By the subset formula; for few features by all orders, which is the definition."""
    if count <= 5:
        return ordered(list(itertools.permutations(range(count))))(game, count)
    found = []
    for i in range(count):
        others, total = [j for j in range(count) if j != i], 0.0
        for size in range(count):
            share = factorial(size) * factorial(count - size - 1) / factorial(count)
            for kept in itertools.combinations(others, size):
                replaced = frozenset(range(count)) - set(kept)
                total += share * (game(replaced - {i}) - game(replaced))
        found.append(total)
    return found


def ordered(orders: Sequence[Sequence[int]]) -> Callable[[Game, int], list[float]]:
    """The mean over these orders of what T loses as features are replaced one by one."""

    def credited(game: Game, count: int) -> list[float]:
        found, replaced = [0.0] * count, frozenset[int]()
        for order in orders:
            replaced = frozenset()
            for i in order:
                found[i] += (game(replaced) - game(replaced | {i})) / len(orders)
                replaced |= {i}
        return found

    return credited


def least_squares(sets: Sequence[frozenset[int]] | None) -> Callable[[Game, int], list[float]]:
    """KernelSHAP's regression on these sets, each as often as it stands there, or on all with the kernel.

    The last feature is what the others leave of the sum, so that the rest is without a constraint.
    """

    def regressed(game: Game, count: int) -> list[float]:
        chosen = sets
        if chosen is None:
            sizes = range(1, count)
            chosen = [frozenset(s) for n in sizes for s in itertools.combinations(range(count), n)]
            kernel = [(count - 1) / (comb(count, len(s)) * len(s) * (count - len(s))) for s in chosen]
        else:
            kernel = [1.0] * len(chosen)
        full = game(frozenset()) - game(frozenset(range(count)))
        rows = np.array([[float(i in s) for i in range(count)] for s in chosen])
        lost = np.array([game(frozenset()) - game(s) for s in chosen]) - rows[:, -1] * full
        root = np.sqrt(kernel)[:, None]
        found = np.linalg.lstsq(root * (rows[:, :-1] - rows[:, -1:]), root[:, 0] * lost, rcond=None)[0]
        return [*found, full - found.sum()]

    return regressed


def values(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    references: Mapping[str, Array],
    rule: Callable[[Game, int], list[float]],
    *,
    groups: Mapping[str, Array] | None = None,
    target: Target = None,
    context: Iterable[str] = (),
    weights: Array | None = None,
    at: Iterable[str] = (),
    tokens: bool = False,
) -> dict[str, Array]:
    """What `rule` gives each feature, shared equally among its elements.

    Args:
        groups: a number for each cell of a tensor; None: each cell is a feature, or with `tokens` each row of
            an embedding.
    """
    worlds = TwoWorlds(model, frozenset(context), at=tuple(at))
    count, others = (len(next(iter(arrays.values()))) for arrays in (sample, references))
    weights = np.full(others, 1 / others) if weights is None else np.asarray(weights) / np.sum(weights)
    found: dict[str, list[Array]] = {name: [] for name in worlds.attributed}
    for i in range(count):
        feeds = worlds.rows(sample, i, count)
        x = worlds.world(feeds)
        seed = chosen_seed(np.asarray(x[worlds.explained]), target, i)
        rs = [worlds.reference_world(feeds, worlds.rows(references, j, others)) for j in range(others)]
        numbers = _numbers({name: np.shape(x[name])[1:] for name in found}, groups, tokens)

        game = _game(worlds, found, feeds, x, rs, weights, numbers, seed)
        features = 1 + max(n.max() for n in numbers.values())
        shares = rule(game, features)
        sizes = np.bincount(np.concatenate([n.reshape(-1) for n in numbers.values()]))
        for name, rows in found.items():
            rows.append((np.array(shares) / sizes)[numbers[name]][None])
    return {name: np.concatenate(rows) for name, rows in found.items()}


def _game(
    worlds: TwoWorlds,
    names: Iterable[str],
    feeds: Mapping[str, Array],
    x: Mapping[str, Array],
    references: Sequence[Mapping[str, Array]],
    weights: Array,
    numbers: Mapping[str, Array],
    seed: Array,
) -> Game:
    @cache
    def game(replaced: frozenset[int]) -> float:
        total = 0.0
        for r, weight in zip(references, weights, strict=True):
            boxes = {name: np.isin(numbers[name], list(replaced))[None] for name in names}
            changed = {name: np.where(boxes[name], r[name], x[name]) for name in names}
            total += weight * np.sum(seed * worlds.world({**feeds, **changed})[worlds.explained])
        return total

    return game


def _numbers(
    shapes: Mapping[str, tuple[int, ...]], groups: Mapping[str, Array] | None, tokens: bool
) -> dict[str, Array]:
    """The feature of each element: 0, 1, ..., over all tensors."""
    found, start = {}, 0
    for name, shape in shapes.items():
        cells = shape[:-1] if tokens else shape
        if groups is not None:
            numbers = np.broadcast_to(groups[name], cells)
        else:
            numbers = start + np.arange(np.prod(cells, dtype=int)).reshape(cells)
            start += numbers.size
        found[name] = np.broadcast_to(numbers[..., None], shape) if tokens else numbers
    known = sorted({int(n) for numbers in found.values() for n in numbers.reshape(-1)})
    return {name: np.searchsorted(known, numbers) for name, numbers in found.items()}
