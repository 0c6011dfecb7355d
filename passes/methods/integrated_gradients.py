"""integrated-gradients: the mean gradient on the way from the reference to the sample, times the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from irshap import contract
from irshap.ir.types import Array
from irshap.passes.methods.path import PathMethod

__all__ = ["IntegratedGradients"]


@dataclass(frozen=True)
class IntegratedGradients(PathMethod):
    """(x - r) times the integral of dT/dx at r + a (x - r) over a in [0, 1] (Sundararajan et al. 2017).

    Mean over the references; with samples of a data set as references it is the expectation that expected
    gradients estimate (Erion et al. 2021), with the integral by quadrature instead of by chance.

    `steps`: how many points stand for the integral.  `rule`: where they are, and their weights;
    "gauss-legendre"; "right": a = i / steps, i = 1 ... steps, of equal weight, as in DeepExplain; or
    "trapezoid": a = i / (steps - 1), i = 0 ... steps - 1, the two ends with half the weight of the others.
    Attributions sum to f(x) - base but for the error of that quadrature, which a certificate shows
    (emit=completeness_error): with Gauss-Legendre it falls exponentially with steps where f is smooth on the
    path, as 1/steps^2 with the trapezoid there, and as 1/steps with kinks (ReLU) or the right rule.
    `chunk`: the most points of a path at a time; 0: all.  Memory grows with the number of references times
    that, not with steps.

    `weights`: references are weighted by an input `reference_weights` [R] instead of equally.
    `on_incomplete`: what no derivative adds up to (indices, conditions, activations that jump, differences
    past the attributed tensors) is an "error", or with "residual" left out, and in completeness_error.
    """

    steps: int = 50
    rule: Literal["gauss-legendre", "right", "trapezoid"] = "gauss-legendre"
    name = "integrated-gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        least = 2 if self.rule == "trapezoid" else 1
        if not least <= self.steps <= 10_000:
            raise ValueError(f"steps is {self.steps}, and must be {least} to 10000")

    def nodes(self) -> tuple[Array, Array]:
        if self.rule == "right":
            return np.arange(1, self.steps + 1) / self.steps, np.full(self.steps, 1 / self.steps)
        if self.rule == "trapezoid":
            weights = np.full(self.steps, 1 / (self.steps - 1))
            weights[[0, -1]] /= 2
            return np.linspace(0, 1, self.steps), weights
        places, weights = np.polynomial.legendre.leggauss(self.steps)
        return (places + 1) / 2, weights / 2

    @classmethod
    def cases(cls) -> Iterable[IntegratedGradients]:
        yield cls(emit=contract.COMPLETENESS_ERROR)
        yield cls(steps=7, rule="right", chunk=3)
        yield cls(steps=5, rule="trapezoid", chunk=2)
        yield cls(steps=4, chunk=0)
