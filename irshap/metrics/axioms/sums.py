"""Completeness and linearity: attributions add up, over features and over functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from irshap.metrics.axioms.axiom import Axiom, Case, Trial, relative, vector
from irshap.metrics.axioms.functions import (
    BIASED,
    SATURATED,
    SCALING,
    SMOOTH,
    Function,
    Tried,
    function,
    weights,
)
from irshap.metrics.subject import Subject

__all__ = ["Completeness", "Linearity"]


class Completeness(Axiom):
    """Attributions sum to f(x) - f(r), or its mean over references (Sundararajan et al. 2017)."""

    name = "completeness"

    def cases(self) -> Iterator[Case]:
        yield Case(SATURATED, np.array([[0.5], [2.0], [4.0]]))
        for f in (BIASED, SMOOTH, SCALING):
            yield Case(f, weights(31, 4, 3))

    def trial(self, explain: Tried, case: Case) -> Trial:
        change = case.f(case.x) - case.f(np.zeros_like(case.x))
        gap = change - explain(case.f, case.x).sum(axis=1)
        at = int(np.abs(gap).argmax())
        told = f"f = {case.f.formula} at x = {vector(case.x[at])}: f(x) - f(0) = {change[at]:.4g}"
        return Trial(relative(gap, change), f"{told}, attributions sum to {change[at] - gap[at]:.4g}")

    def on_file(self, subject: Subject, other: Subject | None) -> Trial | None:
        at_x = subject.scores({})
        # a method without base values sums to f(x) - f(0), or to nothing
        base = subject.base
        if base is None:
            base = subject.scores({n: np.zeros_like(x) for n, x in subject.explained.items()})
        total = np.sum([a.reshape(len(a), -1).sum(axis=1) for a in subject.attributions.values()], axis=0)
        gap = at_x - base - total
        at = int(np.abs(gap).argmax())
        told = f"sample {at}: f(x) - base = {at_x[at] - base[at]:.4g}, attributions sum to {total[at]:.4g}"
        return Trial(relative(gap, at_x - base), told)


@dataclass(frozen=True, eq=False)
class _Sum(Case):
    parts: tuple[Function, Function] | None = None


class Linearity(Axiom):
    """A(a f + b g) = a A(f) + b A(g), feature by feature (Sundararajan et al. 2017)."""

    name = "linearity"

    def cases(self) -> Iterator[Case]:
        layers = {"w": weights(41, 3, 6), "c": weights(42, 6), "u": weights(43, 6, 1)}
        second = {"w2": weights(44, 3, 5), "c2": weights(45, 5), "u2": weights(46, 5, 1)}
        both = {**layers, **second, "two": 2.0, "three": 3.0}
        for title, act, bias in (
            ("relu(W x + c)", "Relu", True),
            ("tanh(W x + c)", "Tanh", True),
            ("relu(W x)", "Relu", False),
        ):

            def net(i: str, y: str, act: str = act, bias: bool = bias) -> str:
                layer = f"Gemm(x, w{i}, c{i})" if bias else f"MatMul(x, w{i})"
                return f"a{i} = {layer} h{i} = {act}(a{i}) {y} = MatMul(h{i}, u{i})"

            f = function(f"u . {title}", 3, net("", "y"), **layers)
            g = function(f"u' . {title}'", 3, net("2", "y"), **second)
            body = f"{net('', 'p')} {net('2', 'q')} s = Mul(p, two) t = Mul(q, three) y = Sub(s, t)"
            yield _Sum(
                function(f"2 u . {title} - 3 u' . {title}'", 3, body, **both), weights(47, 4, 3), None, (f, g)
            )

    def trial(self, explain: Tried, case: Case) -> Trial:
        assert isinstance(case, _Sum)
        assert case.parts is not None
        f, g = (explain(part, case.x) for part in case.parts)
        wanted, found = 2 * f - 3 * g, explain(case.f, case.x)
        at = int(np.abs(wanted - found).max(axis=1).argmax())
        told = f"{case.f.formula} at x = {vector(case.x[at])} gets {vector(found[at])}"
        return Trial(relative(wanted - found, wanted), f"{told}, its parts {vector(wanted[at])} together")
