"""Completeness: how far attributions are from summing to what they explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irshap.metrics.baselines import filled
from irshap.metrics.measure import Measure, Measured
from irshap.metrics.subject import Subject

__all__ = ["CompletenessError"]


@dataclass(frozen=True)
class CompletenessError(Measure):
    """The mean of |f(x) - base - sum of A|, in f's unit (Sundararajan, Taly, Yan 2017, arXiv:1703.01365).

    The base is what an explained file tells, f's mean over its references.  Of other attributions it is f of
    the `baseline`.
    """

    baseline: str = "constant"
    name = "completeness"
    better = "lower"

    def measure(self, subject: Subject) -> Measured:
        base = subject.base
        if base is None:
            base = subject.scores(filled(self.baseline, subject))
        sums = [a.astype(np.float64).reshape(len(a), -1).sum(axis=1) for a in subject.attributions.values()]
        return Measured.mean(np.abs(subject.scores({}) - base - np.sum(sums, axis=0)))
