"""Insertion and deletion: the class's probability while the most important cells come, or go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from irshap.metrics.baselines import filled
from irshap.metrics.measure import Measure, Measured
from irshap.metrics.measures.areas import area, ranks
from irshap.metrics.subject import Subject
from irshap.runtime.arrays import Array

__all__ = ["Deletion", "Insertion"]


@dataclass(frozen=True)
class _Game(Measure, family=True):
    """Both: the j M / `steps` cells with the largest A, j = 0 ... `steps`, are inserted, or deleted."""

    baseline: str = "constant"
    steps: int = 50
    score: Literal["probability", "output"] = "probability"
    inserts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 100_000:
            raise ValueError(f"steps is {self.steps}, and must be 1 to 100000")

    def measure(self, subject: Subject) -> Measured:
        cells = subject.cells.of(subject.attributions)
        place, hidden = ranks(-cells), filled(self.baseline, subject)
        steps = min(self.steps, cells.shape[1])
        counts = np.round(np.arange(steps + 1) * cells.shape[1] / steps).astype(np.int64)
        before = subject.outputs({})
        # of a single number the softmax is 1, whatever it is
        alone = subject.classes is None or before.shape[1] == 1
        plain = self.score == "output" or alone or _are_shares(before)
        scores = []
        for count in counts:
            shown = (place < count) if self.inserts else (place >= count)
            outputs = subject.outputs(subject.showing(shown, hidden))
            scores.append(subject.picked(outputs if plain else _softmax(outputs)))
        says = "f, mean" if self.score == "output" or alone else "probability, mean"
        return area(
            counts / cells.shape[1], np.stack(scores, axis=1), f"share of cells {self.name[:-3]}ed", says
        )


def _softmax(outputs: Array) -> Array:
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _are_shares(outputs: Array) -> bool:
    """Whether all rows are probabilities already."""
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3))


@dataclass(frozen=True)
class Insertion(_Game):
    """The area under the probability of the explained class while cells come into a blur, largest A first.

    Petsiuk, Das, Saenko 2018 (arXiv:1806.07421); their blur, 11 x 11 of standard deviation 5, is the default.
    `baseline`: what cells hold before they come.  `steps`: in how many equal parts, at most one a cell.
    `score`: the softmax's probability, where outputs aren't probabilities already; or the output itself.
    """

    baseline: str = "blur{size=11,sigma=3.5355339}"
    name = "insertion"
    better = "higher"


@dataclass(frozen=True)
class Deletion(_Game):
    """The area under the probability of the explained class while cells go, largest A first.

    Petsiuk, Das, Saenko 2018 (arXiv:1806.07421).  `baseline`: what they hold then.  `steps`: in how many
    equal parts, at most one a cell.  `score`: as for insertion.
    """

    name = "deletion"
    better = "lower"
    inserts = False
