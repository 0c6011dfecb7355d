"""Infidelity: how well A tells what small changes of the sample do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irshap.metrics.measure import Measure, Measured
from irshap.metrics.subject import Subject

__all__ = ["Infidelity"]


@dataclass(frozen=True)
class Infidelity(Measure):
    """E over I of (I . A - (f(x) - f(x - I)))^2, with I normal noise of standard deviation `noise`.

    Yeh et al. 2019 (arXiv:1901.09392).  I . A takes A as a slope, as gradients are; attributions that have
    (x - r) in them are measured as they stand, as there.  The mean over `samples` draws of
    numpy.random.default_rng(seed).standard_normal((samples, *shape)), for one attributed input after the
    other; all samples get the same draws.
    """

    noise: float = 0.2
    samples: int = 50
    seed: int = 0
    name = "infidelity"
    better = "lower"

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 100_000 or self.seed < 0 or not 0 < self.noise < np.inf:
            raise ValueError("samples is 1 to 100000, seed not negative, and noise over 0 and finite")

    def measure(self, subject: Subject) -> Measured:
        inputs, rng = subject.require_floats(), np.random.default_rng(self.seed)
        draws = {n: self.noise * rng.standard_normal((self.samples, *x.shape[1:])) for n, x in inputs.items()}
        before = subject.scores({})
        squares = []
        for k in range(self.samples):
            moved = subject.moved({name: -draw[k] for name, draw in draws.items()})
            # what came out of rounding is what the model saw
            steps = [x.astype(np.float64) - moved[name] for name, x in inputs.items()]
            parts = zip(subject.attributions.values(), steps, strict=True)
            told = sum((a * step).reshape(len(a), -1).sum(axis=1) for a, step in parts)
            squares.append((told - (before - subject.scores(moved))) ** 2)
        return Measured.mean(np.mean(squares, axis=0))
