"""Implementation invariance: equal functions are explained alike, however they are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from irshap.errors import UserError
from irshap.metrics.axioms.axiom import EQUAL, Axiom, Case, Trial, relative, vector
from irshap.metrics.axioms.functions import Function, Tried, function
from irshap.metrics.subject import Subject

__all__ = ["ImplementationInvariance", "require_comparable"]


@dataclass(frozen=True, eq=False)
class _Pair(Case):
    g: Function | None = None


_THRESHOLDS = (
    function(
        "relu(relu(x1) - 1 - relu(x2))",
        2,
        "h = Relu(x) a, b = Split<axis = 1, num_outputs = 2>(h) c = Sub(a, one) d = Sub(c, b) y = Relu(d)",
        one=1.0,
    ),
    function(
        "relu(relu(x1 - 1) - relu(x2))",
        2,
        "s = Sub(x, ones) h = Relu(s) a, b = Split<axis = 1, num_outputs = 2>(h) d = Sub(a, b) y = Relu(d)",
        ones=np.array([1.0, 0.0]),
    ),
)
_MINIMA = (
    function(
        "x1 - relu(x1 - x2)",
        2,
        "a, b = Split<axis = 1, num_outputs = 2>(x) d = Sub(a, b) h = Relu(d) y = Sub(a, h)",
    ),
    function("min(x1, x2)", 2, "a, b = Split<axis = 1, num_outputs = 2>(x) y = Min(a, b)"),
)
_SIGMOIDS = (
    function("tanh(x1 + 2 x2)", 2, "a = MatMul(x, w) y = Tanh(a)", w=np.array([[1.0], [2.0]])),
    function(
        "2 sigmoid(2 x1 + 4 x2) - 1",
        2,
        "a = MatMul(x, w) b = Sigmoid(a) c = Mul(b, two) y = Sub(c, one)",
        w=np.array([[2.0], [4.0]]),
        two=2.0,
        one=1.0,
    ),
)


class ImplementationInvariance(Axiom):
    """Two programs of the same function get the same attributions.

    Sundararajan, Taly, Yan 2017 (arXiv:1703.01365), whose own pair is among the cases.
    """

    name = "implementation invariance"

    def cases(self) -> Iterator[Case]:
        x = np.array([[3.0, 1.0], [2.0, 0.25], [1.0, 2.0], [-1.0, 0.5]])
        for f, g in (_THRESHOLDS, _MINIMA, _SIGMOIDS):
            yield _Pair(f, x / 4 if f is _SIGMOIDS[0] else x, None, g)

    def trial(self, explain: Tried, case: Case) -> Trial:
        assert isinstance(case, _Pair)
        assert case.g is not None
        one, other = explain(case.f, case.x), explain(case.g, case.x)
        at = int(np.abs(one - other).max(axis=1).argmax())
        told = f"at x = {vector(case.x[at])}: f = {case.f.formula} gets {vector(one[at])}"
        return Trial(relative(one - other, one), f"{told}, f = {case.g.formula} gets {vector(other[at])}")

    def on_file(self, subject: Subject, other: Subject | None) -> Trial | None:
        if other is None:
            return None
        one, two = (s.cells.of(s.attributions) for s in (subject, other))
        at = int(np.abs(one - two).max(axis=1).argmax())
        told = f"sample {at} gets {vector(one[at])} in one file, {vector(two[at])} in the other"
        return Trial(relative(one - two, one), told)


def require_comparable(subject: Subject, other: Subject) -> None:
    """Refuses two files whose attributions may differ whatever their method keeps.

    Raises:
        UserError: they compute other functions, attribute other tensors, or compare with other references.
    """
    ours, theirs = (s.scores({}) for s in (subject, other))
    if relative(ours - theirs, ours) > EQUAL:
        gap = np.abs(ours - theirs).max()
        what = f"the two files compute different functions: f(x) differs by up to {gap:.4g}"
        raise UserError(what, mend="give explained files of the same model, for the same target")
    shapes = [{n: a.shape for n, a in s.attributions.items()} for s in (subject, other)]
    if shapes[0] != shapes[1]:
        told = " and ".join(", ".join(f"{n} {list(s)}" for n, s in found.items()) for found in shapes)
        mend = "compile both for the same inputs (wrt, context)"
        raise UserError(f"the two files attribute to different tensors: {told}", mend=mend)
    if subject.base is not None and other.base is not None:
        gap = np.abs(subject.base - other.base)
        if relative(gap, ours) > EQUAL:
            told = f"base values differ by up to {gap.max():.4g}"
            what = f"the two files compare with different references: {told}"
            raise UserError(what, mend="compile both with the same")
