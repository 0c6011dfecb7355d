"""expected-gradients: gradients at random points between random references and the sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap import contract
from irshap.ir.builder import emit1
from irshap.ir.core import Role, Value
from irshap.ir.dims import Dim, R, as_dim
from irshap.ir.types import DType
from irshap.ops.cast import cast
from irshap.ops.gather import Gather
from irshap.ops.logic import Floor
from irshap.ops.program import Dims
from irshap.ops.shape import reshape
from irshap.passes.methods.chunks import in_chunks, summed
from irshap.passes.methods.given_places import at_given_places
from irshap.passes.methods.path import BetweenWorlds, Paths
from irshap.passes.methods.wider_batch import weighted

__all__ = ["ExpectedGradients"]


@dataclass(frozen=True)
class ExpectedGradients(BetweenWorlds):
    """Mean of (x - r) dT/dx at r + a (x - r) over draws of a reference r and of a place a in [0, 1].

    Erion et al. 2021 (arXiv:1906.10670).  `samples`: how many draws there are, each a gradient for a sample,
    whatever the number of references.  `seed`: draw k is row k of numpy's default_rng(seed).random([samples,
    2]); its first number is a, its second times R, rounded down, is the reference.  All samples get the same
    draws, and every run gives the same numbers.  Attributions sum to f(x) - base in the limit: what is left
    falls as 1/sqrt(samples), and a certificate shows it (emit=completeness_error).

    `weights`: draws are weighted by an input `reference_weights` [R] instead of equally.  `chunk`: the most
    draws at a time; 0: all.  `on_incomplete`: as in integrated-gradients.

    `places`: whoever runs the program draws, as training does anew in every step.  There is a gradient for
    each pair of a sample and a reference, at the place a that an input `<input>_places` [N, R] gives.
    """

    samples: int = 200
    seed: int = 0
    places: bool = False
    name = "expected-gradients"
    remainder = "chance, whose error falls as 1/sqrt(samples)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.samples <= 100_000:
            raise ValueError(f"samples is {self.samples}, and must be 1 to 100000")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, and must not be negative")

    def mean(self, paths: Paths) -> Sequence[Value]:
        if self.places:
            return at_given_places(paths)
        target = paths.graph.output(Role.TARGET).value
        count, kind = target.shape[0], target.dtype.numpy
        places, choices = np.random.default_rng(self.seed).random((self.samples, 2)).T
        share = np.full(self.samples, 1 / self.samples, kind)
        chunks = [in_chunks(a, self.chunk) for a in (places.astype(kind), choices)]
        adjoints = [o.value for o in paths.graph.outputs_of(Role.ADJOINT)]

        def gradients(slices: Sequence[Value]) -> list[Value]:
            """At some draws, times the way, weighted and added up: [n, elements] for each source."""
            weight, at, choice = slices
            chosen, draws = _rounded_down(choice * _number_of_references(DType.F64)), at.shape[0]
            if paths.weights is not None:
                weight = (
                    weight * _number_of_references(weight.dtype) * emit1(Gather(0), paths.weights, chosen)
                )
            starts, steps = zip(
                *([_drawn(v, chosen, count) for v in ends] for ends in paths.ends.values()), strict=True
            )
            moved = {v: _points(r, s, at) for v, r, s in zip(paths.ends, starts, steps, strict=True)}
            batch = paths.at(moved, draws)
            rows = (batch.rows_first(a) for a in adjoints)
            return [
                weighted(m * reshape(s, m.shape), weight, count) for m, s in zip(rows, steps, strict=True)
            ]

        found = summed([in_chunks(share, self.chunk, fill=0.0), *chunks], gradients)
        shapes = (start.shape[1:] for start, _ in paths.ends.values())
        return [reshape(mean, (count, *shape)) for mean, shape in zip(found, shapes, strict=True)]

    @classmethod
    def cases(cls) -> Iterable[ExpectedGradients]:
        yield cls(samples=6, chunk=4, emit=contract.COMPLETENESS_ERROR)
        yield cls(samples=5, seed=1, chunk=0)


def _number_of_references(kind: DType) -> Value:
    return cast(emit1(Dims((R,), scalar=True)), kind)


def _rounded_down(x: Value) -> Value:
    return cast(emit1(Floor(), x), DType.I64)


def _drawn(pairs: Value, chosen: Value, count: Dim) -> Value:
    """[n R, ...] -> [n, C, ...]: the pairs with the chosen references."""
    return emit1(Gather(1), reshape(pairs, (count, R, *pairs.shape[1:])), chosen)


def _points(start: Value, step: Value, at: Value) -> Value:
    """start + at * step, [n, C, ...] with a place [C] for each draw, as rows [n C, ...]."""
    count, draws, *rest = start.shape
    points = start + step * reshape(cast(at, step.dtype), (draws, *[1] * len(rest)))
    return reshape(points, (as_dim(count * draws), *rest))
