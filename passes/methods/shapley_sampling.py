"""shapley-sampling: Shapley values from random orders of the features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap import contract
from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.types import DType
from irshap.ops.arithmetic import where
from irshap.ops.gather import Gather
from irshap.ops.logic import Equal, LessOrEqual
from irshap.ops.program import constant
from irshap.ops.shape import reshape
from irshap.passes.methods.coalitions import Coalitions, ShapleyMethod

__all__ = ["ShapleySampling"]


@dataclass(frozen=True)
class ShapleySampling(ShapleyMethod):
    """What T loses when features are replaced by the reference one by one, mean over random orders.

    Castro, Gomez, Tejada 2009, as in DeepExplain (Ancona et al. 2018): feature i gets T before less T after
    its replacement.  Every order sums to f(x) - base, and the error falls as 1/sqrt(samples).  `samples`: how
    many orders.  `seed`: order k is the k-th permutation of numpy's default_rng(seed), the same for all
    samples and references.  A feature is a cell, a token, or with `groups` (compile(groups=...), --groups) a
    group of cells, each of which gets an equal part.  A sample costs samples x features forward passes for
    each reference.  `weights`: references are weighted by an input `reference_weights` [R] instead of
    equally. `chunk`: the most sets at a time; 0: all.  `emit`: "completeness_error" adds f(x) - base - sum.
    """

    samples: int = 25
    seed: int = 0
    name = "shapley-sampling"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.samples <= 100_000 or self.seed < 0:
            raise ValueError(f"samples is {self.samples} and seed {self.seed}: 1 to 100000, not negative")

    def coalitions(self, count: int) -> Coalitions:
        rng = np.random.default_rng(self.seed)
        orders = np.stack([rng.permutation(count) for _ in range(self.samples)])
        ranks = np.argsort(orders, axis=1) + 1
        which, step = (a.reshape(-1) for a in np.indices((self.samples, count)))

        def sets(points: Sequence[Value]) -> tuple[Value, Value]:
            order, steps = points
            rank = emit1(Gather(0), constant(ranks), order)
            last = reshape(steps, (steps.shape[0], 1))
            # T(x) - T(replaced) counts for the feature that was replaced last, and against the next one; a
            # quotient by `samples` would become a float32 factor of the product behind it in ONNX Runtime
            share = constant(1 / self.samples, DType.F64)
            gains = where(emit1(Equal(), rank, last), share, constant(0.0, DType.F64))
            costs = where(emit1(Equal(), rank, last + constant(1)), share, constant(0.0, DType.F64))
            return emit1(LessOrEqual(), rank, last), gains - costs

        return Coalitions([which, step + 1], sets)

    @classmethod
    def cases(cls) -> Iterable[ShapleySampling]:
        yield cls(samples=3, chunk=7, emit=contract.COMPLETENESS_ERROR)
        yield cls(samples=2, seed=5, groups=True, chunk=0)
