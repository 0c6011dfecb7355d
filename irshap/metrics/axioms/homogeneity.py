"""Nonnegative homogeneity: a sample that is scaled has its attributions scaled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irshap.errors import UserError
from irshap.metrics.axioms.axiom import EQUAL, Axiom, Case, Trial, relative, vector
from irshap.metrics.axioms.functions import BIASED, SCALING, Tried, weights
from irshap.metrics.subject import Subject

__all__ = ["NonnegativeHomogeneity"]

_FACTOR = 2.5


class NonnegativeHomogeneity(Axiom):
    """A(a x) = a A(x) for a >= 0, against zeros (Hesse, Schaub-Meyer, Roth 2021, arXiv:2111.07668)."""

    name = "nonnegative homogeneity"

    def cases(self) -> Iterator[Case]:
        for f in (BIASED, SCALING):
            yield Case(f, weights(61, 4, 3))

    def trial(self, explain: Tried, case: Case) -> Trial:
        found = explain(case.f, np.concatenate([case.x, _FACTOR * case.x]))
        plain, scaled = np.split(found, 2)
        gap = scaled - _FACTOR * plain
        at = int(np.abs(gap).max(axis=1).argmax())
        told = f"f = {case.f.formula} at x = {vector(case.x[at])} gets {vector(plain[at])}"
        return Trial(relative(gap, plain), f"{told}, at {_FACTOR:g} x {vector(scaled[at])}")

    def on_file(self, subject: Subject, other: Subject | None) -> Trial | None:
        assert subject.explain is not None
        if subject.base is not None:
            zeros = subject.scores({n: np.zeros_like(x) for n, x in subject.require_floats().items()})
            if relative(subject.base - zeros, subject.scores({})) > EQUAL:
                mend = "compile with one reference of zeros"
                raise UserError("the file compares with other references than zeros", mend=mend)
        scaled = {n: (_FACTOR * x).astype(x.dtype) for n, x in subject.require_floats().items()}
        found = subject.explain({**subject.inputs, **scaled})
        same = np.ones(len(subject), bool) if found.classes is None else found.classes == subject.classes
        if not same.any():
            return None
        one, two = (subject.cells.of(a)[same] for a in (subject.attributions, found.attributions))
        gap = two - _FACTOR * one
        at = int(np.abs(gap).max(axis=1).argmax())
        told = f"sample {np.flatnonzero(same)[at]} gets {vector(one[at])}, {_FACTOR:g} x it {vector(two[at])}"
        return Trial(relative(gap, one), told)
