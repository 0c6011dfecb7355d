"""exact-shapley: Shapley values from every set of features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import factorial

import numpy as np

from irshap import contract
from irshap.errors import UserError
from irshap.ir.core import Value
from irshap.ops.arithmetic import where
from irshap.ops.shape import reshape
from irshap.passes.methods.coalitions import Coalitions, ShapleyMethod

__all__ = ["ExactShapley"]

_MOST = 16


@dataclass(frozen=True)
class ExactShapley(ShapleyMethod):
    """Shapley values of the game v(S) = T(x with what is outside S from a reference), mean over references.

    Feature i gets the sum over sets S without it of |S|! (G - |S| - 1)! / G! (v(S + i) - v(S)) (Shapley 1953;
    Lundberg and Lee 2017, arXiv:1705.07874, with the references as background).  A feature is a cell, a
    token, or with `groups` (compile(groups=...), --groups) a group of cells, each of which gets an equal
    part; 16 features at most: 2^16 forward passes for each sample and reference.  `weights`: references are
    weighted by an input `reference_weights` [R] instead of equally.  `chunk`: the most sets at a time; 0:
    all. `emit`: "completeness_error" adds the output f(x) - base - sum of attributions.
    """

    name = "exact-shapley"

    def coalitions(self, count: int) -> Coalitions:
        if count > _MOST:
            raise UserError(
                f"exact-shapley takes {_MOST} features at most, and there are {count}",
                mend="group them (compile(groups=...), --groups), or sample: shapley-sampling, kernel-shap",
            )
        replaced = (np.arange(1, 2**count)[:, None] >> np.arange(count)) % 2 == 1
        # T(x) - T(replaced) counts for what is replaced, as -v, and against what isn't
        orders = [factorial(s) * factorial(count - s - 1) / factorial(count) for s in range(count)]
        left = count - replaced.sum(axis=1)
        weights = np.array(orders)[left], np.array([0.0, *(-w for w in orders)])[left]

        def sets(points: Sequence[Value]) -> tuple[Value, Value]:
            box, inside, outside = points
            within, without = (reshape(w, (w.shape[0], 1)) for w in (inside, outside))
            return box, where(box, within, without)

        return Coalitions([replaced, *weights], sets)

    @classmethod
    def cases(cls) -> Iterable[ExactShapley]:
        yield cls(groups=True, emit=contract.COMPLETENESS_ERROR)
        yield cls(groups=True, chunk=0)
