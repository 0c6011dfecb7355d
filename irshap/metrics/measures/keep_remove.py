"""Keep and remove: what the model says when the most important pixels alone are shown, or are hidden."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irshap.errors import UserError
from irshap.metrics.baselines import filled
from irshap.metrics.measure import Measure, Measured
from irshap.metrics.measures.areas import area, ranks
from irshap.metrics.subject import Subject
from irshap.runtime.arrays import Array

__all__ = ["KeepAbsolute", "KeepNegative", "KeepPositive", "RemoveAbsolute"]

SHARES = np.geomspace(0.01, 1.0, 16)
"""q: the shares of pixels at which the model is asked."""


@dataclass(frozen=True)
class _Shown(Measure, family=True):
    """With p the importance of M cells: of the k = int(min(q M, number of p > 0)) cells that are shown."""

    baseline: str = "blur"
    removes: ClassVar[bool] = False
    axis: ClassVar[str] = "share of pixels shown"

    @abstractmethod
    def importance(self, cells: Array) -> Array:
        """p of each cell, not negative, [N, M]."""

    def measure(self, subject: Subject) -> Measured:
        p = self.importance(subject.cells.of(subject.attributions))
        count = (p > 0).sum(axis=1)
        # what has p = 0 comes last either way, and k never reaches it
        place = ranks(np.where(p > 0, p, np.inf) if self.removes else -p)
        hidden = filled(self.baseline, subject)
        scores = []
        for q in SHARES:
            most = np.minimum(q * p.shape[1], count).astype(np.int64)
            shown = place < most[:, None]
            scores.append(self.score(subject, subject.outputs(subject.showing(shown, hidden))))
        return area(SHARES, np.stack(scores, axis=1), self.axis, self.says)

    says: ClassVar[str] = "f, mean"

    def score(self, subject: Subject, outputs: Array) -> Array:
        """What counts of the outputs, [N]."""
        return subject.picked(outputs)


@dataclass(frozen=True)
class KeepPositive(_Shown):
    """KPM: the area under f over the share q of pixels shown, those that speak most for it.

    p = max(A, 0); at each q of geomspace(0.01, 1, 16) the k largest p are shown, with all channels, and the
    rest is the baseline; mean of f, trapezoid area over q, not normalized.  Lundberg et al. 2020
    (doi:10.1038/s42256-019-0138-9) for images as in Hesse, Schaub-Meyer, Roth 2021 (arXiv:2111.07668).
    `baseline`: what hidden pixels hold.
    """

    name = "keep-positive"
    better = "higher"

    def importance(self, cells: Array) -> Array:
        return np.maximum(cells, 0)


@dataclass(frozen=True)
class KeepNegative(_Shown):
    """KNM: as keep-positive, with p = max(-A, 0): f falls where what speaks most against it is shown.

    `baseline`: what hidden pixels hold.
    """

    name = "keep-negative"
    better = "lower"

    def importance(self, cells: Array) -> Array:
        return np.maximum(-cells, 0)


@dataclass(frozen=True)
class KeepAbsolute(_Shown):
    """KAM: as keep-positive, with p = |A| and the accuracy (the largest output is the label's) in place of f.

    `baseline`: what hidden pixels hold.
    """

    name = "keep-absolute"
    better = "higher"
    says = "accuracy"

    def importance(self, cells: Array) -> Array:
        return np.abs(cells)

    def score(self, subject: Subject, outputs: Array) -> Array:
        if subject.classes is None or outputs.shape[1] == 1:
            what = "no class is explained, but a single number"
            raise UserError(what, mend="use keep-positive, or explain a class of several")
        if subject.labels is None:
            raise UserError("accuracy needs labels", mend="give labels, the true class of each sample")
        return np.asarray(outputs.argmax(axis=1) == subject.labels, np.float64)


@dataclass(frozen=True)
class RemoveAbsolute(KeepAbsolute):
    """RAM: as keep-absolute, but the k smallest p > 0 are shown: accuracy falls where what matters is hidden.

    `baseline`: what hidden pixels hold.
    """

    name = "remove-absolute"
    better = "lower"
    removes = True
    axis = "share of pixels shown, least important first"
