"""smooth-grad: the mean gradient over noisy copies of the sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.attribution.outputs import samples_first, source_axes
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, NoLocalRule, Point, Role, Value
from irshap.ir.dims import as_dim
from irshap.ops.program import Pullback
from irshap.ops.shape import reshape
from irshap.passes.methods.base import Explained, Method, Sum, refuse
from irshap.passes.methods.chunks import in_chunks, summed
from irshap.passes.methods.wider_batch import MovedBatch, known_shape, samples_alone, weighted
from irshap.pipeline.base import Context, Points

__all__ = ["SmoothGrad"]


@dataclass(frozen=True)
class SmoothGrad(Method):
    """Mean of dT/dx at x + e_k, k = 1 ... samples, e_k normal (Smilkov et al. 2017, arXiv:1706.03825).

    `samples`: how many noisy copies of each sample there are.  `noise`: the standard deviation of e in the
    units of the attributed tensor (the paper takes 10 to 20 % of its largest value less the smallest).
    `seed`: the noise is numpy's default_rng(seed).standard_normal([samples, ...]) for each attributed tensor
    in turn, the same for all samples, and stands in the file; so every run gives the same numbers.
    `chunk`: the most copies at a time; 0: all.
    """

    samples: int = 50
    noise: float = 0.15
    seed: int = 0
    chunk: int = 10
    name = "smooth-grad"
    points = Points.NEARBY
    sums_to = Sum.NOTHING
    tokens = False

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= 10_000:
            raise ValueError(f"samples is {self.samples}, and must be 1 to 10000")
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise is {self.noise}, and must be a standard deviation")
        if min(self.seed, self.chunk) < 0:
            raise ValueError(f"seed is {self.seed} and chunk {self.chunk}: neither may be negative")

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        sample = samples_alone(builder, ir)
        count = ir.output(Role.TARGET).value.shape[0]
        sources = ir.outputs_of(Role.SOURCE)
        rows = [
            samples_first(sample[o.value], a, count) for o, a in zip(sources, source_axes(ir), strict=True)
        ]
        adjoints = [o.value for o in ir.outputs_of(Role.ADJOINT)]
        rng, chunks = np.random.default_rng(self.seed), []
        for output, value in zip(sources, rows, strict=True):
            drawn = rng.standard_normal((self.samples, *known_shape(output, value, "noise has no shape yet")))
            chunks.append(in_chunks((self.noise * drawn).astype(value.dtype.numpy), self.chunk))
        share = np.full(self.samples, 1 / self.samples, rows[0].dtype.numpy)

        def gradients(slices: Sequence[Value]) -> list[Value]:
            """At some copies, weighted and added up: [n, elements] for each source."""
            weight, *noises = slices
            places = zip(sources, rows, noises, strict=True)
            moved = {o.value: _noisy(value, noise) for o, value, noise in places}
            batch = _Nearby(ir, weight.shape[0], moved, sample, adjoints)
            return [weighted(batch.rows_first(v), weight, count) for v in adjoints]

        means = summed([in_chunks(share, self.chunk, fill=0.0), *chunks], gradients)
        scores = [reshape(mean, value.shape) for mean, value in zip(means, rows, strict=True)]
        return Explained(sample.__getitem__, scores)

    @classmethod
    def cases(cls) -> Iterable[SmoothGrad]:
        yield cls(samples=7, chunk=3)


def _noisy(rows: Value, noise: Value) -> Value:
    """Every row [n, ...] with each of the noises [C, ...] added: [n C, ...], those of a row together."""
    n, *rest = rows.shape
    every = reshape(rows, (n, 1, *rest)) + noise
    return reshape(every, (as_dim(n * noise.shape[0]), *rest))


class _Nearby(MovedBatch):
    """An op without a derivative is refused as by `gradient`."""

    def incomplete(
        self, node: Node, op: Pullback, cts: Sequence[Value], at: Point, reason: NoLocalRule
    ) -> tuple[Value, ...]:
        raise refuse(node, reason)
