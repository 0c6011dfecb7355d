"""feature-ablation: what the target loses when one feature is taken from a reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ops.logic import Equal
from irshap.ops.program import constant
from irshap.ops.shape import reshape
from irshap.passes.methods.base import Sum
from irshap.passes.methods.coalitions import CoalitionMethod, Coalitions

__all__ = ["FeatureAblation"]


@dataclass(frozen=True)
class FeatureAblation(CoalitionMethod):
    """T(x) - T(x with one feature from a reference), mean over the references.

    A feature is a cell, a token, or with `groups` (compile(groups=...), --groups) a group of cells, each of
    which gets an equal part; Captum's FeatureAblation gives the whole to each.  `weights`: references are
    weighted by an input `reference_weights` [R] instead of equally.  `chunk`: the most features at a time; 0:
    all.
    """

    name = "feature-ablation"
    sums_to = Sum.NOTHING

    def coalitions(self, count: int) -> Coalitions:
        def sets(points: Sequence[Value]) -> tuple[Value, Value]:
            (which,) = points
            one = emit1(Equal(), reshape(which, (which.shape[0], 1)), constant(np.arange(count)))
            return one, one

        return Coalitions([np.arange(count)], sets)

    @classmethod
    def cases(cls) -> Iterable[FeatureAblation]:
        yield cls(chunk=4)
        yield cls(groups=True, chunk=0)
