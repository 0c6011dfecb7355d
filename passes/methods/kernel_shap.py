"""kernel-shap: Shapley values by weighted least squares over random sets of features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb

import numpy as np

from irshap import contract
from irshap.errors import UserError
from irshap.ir.types import Array
from irshap.passes.methods.coalitions import Coalitions, ShapleyMethod

__all__ = ["KernelShap"]

_ALL = 16
"""Up to so many features every set may be taken."""

_MOST = 4096
"""The most features: a matrix of their pairs is solved, 128 MiB for so many."""


@dataclass(frozen=True)
class KernelShap(ShapleyMethod):
    """The additive function that is nearest to T over sets of replaced features (Lundberg and Lee 2017).

    phi minimizes the sum over sets S of k(S) (T(x) - T(S replaced) - sum of phi_i, i in S)^2 with sum of all
    phi = f(x) - base; k(S) = (G - 1) / (C(G, |S|) |S| (G - |S|)), so that over all sets phi are the Shapley
    values. The solution is linear in T: the file holds its matrix, and computes one product.

    `samples`: how many sets are drawn, in pairs with their complement (Covert and Lee 2021), their size with
    the probability that k gives it; where that many are all there are (16 features at most), each is taken
    once with its own k, and the result is exact.  `seed`: of numpy's default_rng.  A feature is a cell, a
    token, or with `groups` (compile(groups=...), --groups) a group of cells, each of which gets an equal
    part. `weights`: references are weighted by an input `reference_weights` [R] instead of equally.  `chunk`:
    the most sets at a time; 0: all.  `emit`: "completeness_error" adds f(x) - base - sum.
    """

    samples: int = 2048
    seed: int = 0
    name = "kernel-shap"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.samples <= 100_000 or self.seed < 0:
            raise ValueError(f"samples is {self.samples} and seed {self.seed}: 2 to 100000, not negative")

    def coalitions(self, count: int) -> Coalitions:
        if count > _MOST:
            raise UserError(
                f"{count} features are more than the {_MOST} of which the system is solved",
                mend="give groups of cells (groups), or take shapley-sampling",
            )
        sets, weights = self._drawn(count)
        every = np.concatenate([sets, np.ones((1, count), bool)])
        return Coalitions(
            [every, self._solution(sets.astype(float), weights)], lambda points: (points[0], points[1])
        )

    def _drawn(self, count: int) -> tuple[Array, Array]:
        """Sets of replaced features, neither none nor all, [S, count], and their weights [S]."""
        sizes = np.arange(1, count)
        share = 1 / (sizes * (count - sizes))
        if count <= _ALL and self.samples >= 2**count - 2:
            sets = (np.arange(1, 2**count - 1)[:, None] >> np.arange(count)) % 2 == 1
            each = np.array([0.0, *(s / comb(count, int(n)) for n, s in zip(sizes, share, strict=True))])
            return sets, each[sets.sum(axis=1)]
        rng = np.random.default_rng(self.seed)
        drawn = rng.choice(sizes, size=(self.samples + 1) // 2, p=share / share.sum())
        half = np.stack([np.isin(np.arange(count), rng.permutation(count)[:n]) for n in drawn])
        pairs = np.stack([half, ~half], axis=1).reshape(-1, count)
        sets, times = np.unique(pairs, axis=0, return_counts=True)
        return sets, times.astype(float)

    def _solution(self, sets: Array, weights: Array) -> Array:
        """What each feature gets of each set's loss, and of that of all: [S + 1, count]."""
        count = sets.shape[1]
        if count == 1:
            return np.ones((1, 1))
        normal = sets.T @ (weights[:, None] * sets) / weights.sum()
        if np.linalg.matrix_rank(normal) < count:
            raise UserError(
                f"{self.samples} sets don't determine {count} features",
                mend=f"take more samples, {4 * count} or more, or fewer groups",
            )
        ones = np.linalg.solve(normal, np.ones(count))
        to_sets = np.linalg.solve(normal, sets.T * (weights / weights.sum()))
        free = to_sets - np.outer(ones, to_sets.sum(axis=0)) / ones.sum()
        return np.concatenate([free.T, ones[None] / ones.sum()])

    @classmethod
    def cases(cls) -> Iterable[KernelShap]:
        yield cls(groups=True, emit=contract.COMPLETENESS_ERROR)
        yield cls(samples=20, groups=True, seed=1, chunk=0)
