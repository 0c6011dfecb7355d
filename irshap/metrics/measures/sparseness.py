"""Sparseness: how few elements hold most of the attribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irshap.metrics.measure import Measure, Measured
from irshap.metrics.subject import Subject

__all__ = ["Sparseness"]


@dataclass(frozen=True)
class Sparseness(Measure):
    """The Gini index of |A| over its n elements: sum of (2 i - n - 1) |A|_(i) / (n sum of |A|), sorted up.

    0 where all are equal, (n - 1)/n where one has all; 0 where all are zero.  Chalasani et al. 2020
    (arXiv:1810.06583).
    """

    name = "sparseness"
    better = "higher"

    def measure(self, subject: Subject) -> Measured:
        parts = [np.abs(a.astype(np.float64)).reshape(len(a), -1) for a in subject.attributions.values()]
        sizes = np.sort(np.concatenate(parts, axis=1), axis=1)
        n = sizes.shape[1]
        total = sizes.sum(axis=1)
        weighted = sizes @ (2.0 * np.arange(1, n + 1) - n - 1)
        return Measured.mean(weighted / np.where(total == 0, 1, n * total))
