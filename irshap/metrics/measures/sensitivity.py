"""Sensitivity: how far attributions move when the sample hardly does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irshap.errors import UserError
from irshap.metrics.measure import Measure, Measured
from irshap.metrics.subject import Subject
from irshap.runtime.arrays import Array, Arrays

__all__ = ["SensitivityMax"]


@dataclass(frozen=True)
class SensitivityMax(Measure):
    """max over y of ||A(y) - A(x)|| / ||A(x)||, with y anywhere within `radius` of x, element by element.

    Yeh et al. 2019 (arXiv:1901.09392); Euclidean norms over all elements, 1 in the place of a norm of 0.  The
    largest over `samples` draws of numpy.random.default_rng(seed).uniform(-radius, radius, (samples,
    *shape)), for one attributed input after the other; all samples get the same draws.  Where a file that
    explains the predicted class predicts another one of y, that y doesn't count.
    """

    radius: float = 0.02
    samples: int = 10
    seed: int = 0
    name = "sensitivity-max"
    better = "lower"

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 100_000 or self.seed < 0 or not 0 < self.radius <= 1e300:
            raise ValueError("samples is 1 to 100000, seed not negative, and radius over 0, up to 1e300")

    def measure(self, subject: Subject) -> Measured:
        inputs, rng = subject.require_floats(), np.random.default_rng(self.seed)
        if subject.explain is None:
            mend = "give the explained file instead of its attributions"
            raise UserError("plain attributions can't be computed again near the samples", mend=mend)
        draws = {
            n: rng.uniform(-self.radius, self.radius, (self.samples, *x.shape[1:])) for n, x in inputs.items()
        }
        size = _norm(subject.attributions)
        largest = np.full(len(subject), np.nan)
        for k in range(self.samples):
            moved = subject.moved({name: draw[k] for name, draw in draws.items()})
            found = subject.explain({**subject.inputs, **moved})
            apart = _norm({name: found.attributions[name] - a for name, a in subject.attributions.items()})
            change = apart / np.where(size == 0, 1, size)
            if found.classes is not None:
                change = np.where(found.classes == subject.classes, change, np.nan)
            largest = np.fmax(largest, change)
        return Measured(float(np.nanmean(largest)) if np.isfinite(largest).any() else np.nan, largest)


def _norm(arrays: Arrays) -> Array:
    squares = [(a.astype(np.float64) ** 2).reshape(len(a), -1).sum(axis=1) for a in arrays.values()]
    return np.asarray(np.sqrt(np.sum(squares, axis=0)))
