"""The families of methods that average gradients at points between a reference and the sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from irshap import contract
from irshap.attribution.gaps import Gap, gaps_of, to_text
from irshap.attribution.jumps import jump_gaps
from irshap.attribution.outputs import own_names, samples_first
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Role, Value
from irshap.ir.dims import Dim, R, as_dim
from irshap.ir.types import Array
from irshap.ops.cast import cast
from irshap.ops.shape import reshape
from irshap.passes.methods.base import Explained, Method, Sum, emits_certificate
from irshap.passes.methods.chunks import in_chunks, summed
from irshap.passes.methods.joint_batch import JointBatch, mean_over_references, reference_weights, refuse_both
from irshap.passes.methods.wider_batch import MovedBatch, weighted
from irshap.pipeline.base import Context, Points

__all__ = ["BetweenWorlds", "PathMethod", "Paths"]


@dataclass(frozen=True)
class Paths:
    """What a method that averages gradients between references and samples works with.

    Attributes:
        graph: the program, with a target and its adjoints.
        joint: its values for samples and references.
        ends: r and x - r of each attributed tensor, [pairs, ...].
        weights: those of the references [R]; None: equal ones.
        gaps: where ops without a rule are noted; None: they are refused.
    """

    graph: Graph
    joint: JointBatch
    ends: Mapping[Value, tuple[Value, Value]]
    weights: Value | None
    gaps: list[Gap] | None

    def at(self, moved: Mapping[Value, Value], times: Dim) -> MovedBatch:
        """The reverse program for every sample `times` over, with the attributed tensors at some points."""
        adjoints = [o.value for o in self.graph.outputs_of(Role.ADJOINT)]
        return MovedBatch(self.graph, times, moved, self.joint.samples, adjoints, self.gaps)


@dataclass(frozen=True)
class BetweenWorlds(Method, family=True):
    """What methods share that average gradients at points between references and samples.

    x and r are the attributed tensors: what is above them is computed for samples and for references, what is
    behind them at `chunk` points of each path at a time, so that memory doesn't grow with the number of
    points.  With `per_sample` every sample brings its own references, by an input `<input>_references`
    [N, R, ...].  Inputs that aren't attributed, and held values, keep the sample's value.
    """

    FACETS: ClassVar[dict[str, str]] = {
        "mean": "def mean(self, paths) -> what each source gets: [n, ...], IR",
    }
    weights: bool = False
    per_sample: bool = False
    emit: str = ""
    on_incomplete: Literal["error", "residual"] = "error"
    chunk: int = 10
    points = Points.PATH
    sums_to = Sum.DIFFERENCE

    def __post_init__(self) -> None:
        refuse_both(weights=self.weights, per_sample=self.per_sample)
        if self.chunk < 0:
            raise ValueError(f"chunk is {self.chunk}, and must be a number of points, or 0 for all at once")

    @abstractmethod
    def mean(self, paths: Paths) -> Sequence[Value]:
        """What each source gets of its gradients on the way: [n, ...]."""

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        certified = emits_certificate(self.name, self.emit)
        missing = gaps_of(ir, residual=self.on_incomplete == "residual", more=jump_gaps(ir))
        roles = (Role.SOURCE, Role.TARGET)
        joint = JointBatch(builder, ir, roles, None, context.references, per_sample=self.per_sample)
        target = ir.output(Role.TARGET).value
        weights = reference_weights(builder, target.dtype, own_names(ir)) if self.weights else None
        pairs = as_dim(target.shape[0] * R)
        ends_of = {o.value: _path(joint, o.value, pairs) for o in ir.outputs_of(Role.SOURCE)}
        scores = self.mean(Paths(ir, joint, ends_of, weights, missing))
        if missing:
            context.metadata[contract.Metadata.GAPS] = to_text(missing)
            context.count("incomplete", len(missing))

        def ends() -> tuple[Value, Value]:
            explained, base = (mean_over_references(v, weights) for v in joint.halves(target))
            return explained, base

        return Explained(joint.sample, scores, ends, certified=certified or bool(missing))


@dataclass(frozen=True)
class PathMethod(BetweenWorlds, family=True):
    """(x - r) times a weighted sum of gradients at r + a_k (x - r), mean over the references."""

    FACETS: ClassVar[dict[str, str]] = {
        "nodes": "def nodes(self) -> where on the path from 0 to 1, and the weights there: [K] each",
    }
    remainder = "its quadrature, whose error falls with the number of points (steps)"

    @abstractmethod
    def nodes(self) -> tuple[Array, Array]:
        """Where gradients are taken, between 0 (reference) and 1 (sample), and their weights: [K] each."""

    def mean(self, paths: Paths) -> Sequence[Value]:
        target = paths.graph.output(Role.TARGET).value
        pairs = as_dim(target.shape[0] * R)

        def gradients(slices: Sequence[Value]) -> list[Value]:
            """At some points, weighted and added up: [pairs, elements] for each source."""
            at, weight = slices
            moved = {v: _between(*ends, at) for v, ends in paths.ends.items()}
            batch = paths.at(moved, as_dim(R * at.shape[0]))
            return [
                weighted(batch.rows_first(o.value), weight, pairs)
                for o in paths.graph.outputs_of(Role.ADJOINT)
            ]

        places, shares = (a.astype(target.dtype.numpy) for a in self.nodes())
        chunks = (in_chunks(places, self.chunk), in_chunks(shares, self.chunk, fill=0.0))
        found = zip(paths.ends.values(), summed(chunks, gradients), strict=True)
        return [
            mean_over_references(reshape(mean, step.shape) * step, paths.weights) for (_, step), mean in found
        ]


def _path(joint: JointBatch, source: Value, pairs: Dim) -> tuple[Value, Value]:
    """r and x - r of an attributed tensor: [pairs, ...]."""
    axis = joint.axis(source)
    x, r = joint.halves(source)
    return samples_first(r, axis, pairs), samples_first(x - r, axis, pairs)


def _between(start: Value, step: Value, at: Value) -> Value:
    """start + at * step for every place in `at` [C]: [pairs C, ...], the points of a pair together."""
    pairs, *rest = start.shape
    column = reshape(cast(at, start.dtype), (*at.shape, *[1] * len(rest)))
    first, whole = (reshape(v, (pairs, 1, *rest)) for v in (start, step))
    points = first + column * whole
    return reshape(points, (as_dim(pairs * at.shape[0]), *rest))
