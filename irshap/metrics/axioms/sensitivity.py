"""Sensitivity (a) and (b): what matters gets something, what isn't read gets nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irshap.metrics.axioms.axiom import Axiom, Case, Trial, relative, vector
from irshap.metrics.axioms.functions import BIASED, SATURATED, SCALING, SMOOTH, Tried, function, weights
from irshap.metrics.subject import Subject
from irshap.runtime.arrays import Array

__all__ = ["SensitivityA", "SensitivityB"]

_TINY = 1e-9
_MOST = 256
"""Cells of which a file is asked whether it reads them: each takes a run."""


class SensitivityA(Axiom):
    """Where a sample differs from the reference in one feature, and f does, that feature doesn't get 0.

    Sundararajan, Taly, Yan 2017 (arXiv:1703.01365).  Against it: f = 1 - relu(1 - x), flat from 1 on.
    """

    name = "sensitivity (a)"

    def cases(self) -> Iterator[Case]:
        for x in (2.0, 4.0, 8.0):
            yield Case(SATURATED, np.array([[x]]))
        for f in (BIASED, SMOOTH, SCALING):
            yield Case(f, np.concatenate([2.0 * np.eye(3), -np.eye(3)]))

    def trial(self, explain: Tried, case: Case) -> Trial:
        change = case.f(case.x) - case.f(np.zeros_like(case.x))
        place = np.abs(case.x).argmax(axis=1)
        got = explain(case.f, case.x)[np.arange(len(place)), place]
        missed = (np.abs(change) > _TINY) & ~(np.abs(got) > _TINY * np.abs(change))
        at = int(missed.argmax())
        told = (
            f"f = {case.f.formula} at x = {vector(case.x[at])} changes by {change[at]:.4g} from that feature"
        )
        return Trial(float(missed.any()), f"{told}, which gets {got[at]:.4g}")


class SensitivityB(Axiom):
    """A feature that f doesn't read gets 0.

    Sundararajan, Taly, Yan 2017 (arXiv:1703.01365), for features that no result depends on step by step: that
    contributions of a feature cancel is a matter of implementation invariance.
    """

    name = "sensitivity (b)"

    def cases(self) -> Iterator[Case]:
        w, v, b = weights(21, 3, 8), weights(22, 8, 1), weights(23, 8)
        w[2] = 0
        x, references = weights(24, 4, 3), weights(25, 2, 3)
        for formula, body in (
            ("v . relu(W x + b), W without x3", "a = Gemm(x, w, b) h = Relu(a) y = MatMul(h, v)"),
            ("v . tanh(W x + b), W without x3", "a = Gemm(x, w, b) h = Tanh(a) y = MatMul(h, v)"),
            ("v . relu(W x), W without x3", "a = MatMul(x, w) h = Relu(a) y = MatMul(h, v)"),
        ):
            yield Case(function(formula, 3, body, w=w, v=v, b=b), x, references)

    def trial(self, explain: Tried, case: Case) -> Trial:
        found = explain(case.f, case.x, case.references)
        at = int(np.abs(found[:, 2]).argmax())
        told = f"f = {case.f.formula}, at x = {vector(case.x[at])}: x3 gets {found[at, 2]:.4g}"
        return Trial(relative(found[:, 2], found), told)

    def on_file(self, subject: Subject, other: Subject | None) -> Trial | None:
        cells = subject.cells
        got = cells.of({n: np.abs(a) for n, a in subject.attributions.items()})
        unread = _unread(subject) if cells.count <= _MOST and len(subject) > 1 else []
        if not len(unread):
            return None
        at = unread[int(got[:, unread].max(axis=0).argmax())]
        told = f"cell {at}, which no output depends on, gets up to {got[:, at].max():.4g}"
        return Trial(relative(got[:, unread], got), told)


def _unread(subject: Subject) -> list[int]:
    """The cells that change no output when they are taken from the other samples."""
    plain = subject.outputs({})
    others = {name: np.roll(x, 1, axis=0) for name, x in subject.explained.items()}
    found = []
    for cell in range(subject.cells.count):
        shown: Array = np.arange(subject.cells.count)[None] != cell
        changed = subject.showing(np.repeat(shown, len(subject), axis=0), others)
        moves = any((changed[name] != x).any() for name, x in subject.explained.items())
        if moves and np.array_equal(subject.outputs(changed), plain):
            found.append(cell)
    return found
