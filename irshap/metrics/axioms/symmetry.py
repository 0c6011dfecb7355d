"""Symmetry: features that f can't tell apart, and that are equal, get equal attributions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irshap.metrics.axioms.axiom import Axiom, Case, Trial, relative, vector
from irshap.metrics.axioms.functions import Tried, function, weights

__all__ = ["Symmetry"]

_PARTS = "x1, x2, x3 = Split<axis = 1, num_outputs = 3>(x)"


class Symmetry(Axiom):
    """f(.. x1 .. x2 ..) = f(.. x2 .. x1 ..), x1 = x2 and references that are as symmetric: A1 = A2.

    Sundararajan, Taly, Yan 2017 (arXiv:1703.01365).  A reference with x1 and x2 swapped is one, too.
    """

    name = "symmetry"

    def cases(self) -> Iterator[Case]:
        w, b, v = weights(51, 3, 8), weights(52, 8), weights(53, 8, 1)
        w[1] = w[0]
        x = weights(54, 4, 3)
        x[:, 1] = x[:, 0]
        references = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
        for formula, body in (
            ("v . relu(W x + b), W alike in x1 and x2", "a = Gemm(x, w, b) h = Relu(a) y = MatMul(h, v)"),
            ("v . relu(W x), W alike in x1 and x2", "a = MatMul(x, w) h = Relu(a) y = MatMul(h, v)"),
            ("tanh(x1) tanh(x2) x3", f"{_PARTS} t = Tanh(x1) u = Tanh(x2) p = Mul(t, u) y = Mul(p, x3)"),
            ("x1 (x3 x2)", f"{_PARTS} p = Mul(x3, x2) y = Mul(x1, p)"),
        ):
            yield Case(function(formula, 3, body, w=w, v=v, b=b), x, references)

    def trial(self, explain: Tried, case: Case) -> Trial:
        found = explain(case.f, case.x, case.references)
        gap = found[:, 0] - found[:, 1]
        at = int(np.abs(gap).argmax())
        told = f"f = {case.f.formula} at x = {vector(case.x[at])} gets {vector(found[at])}"
        return Trial(relative(gap, found), told)
