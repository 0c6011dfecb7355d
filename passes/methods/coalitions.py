"""The family of methods that replace sets of features by references: any op will do, none needs a rule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irshap.attribution.outputs import own_names, samples_first
from irshap.errors import UserError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Role, Value
from irshap.ir.dims import Dim, R, as_dim
from irshap.ir.types import Array
from irshap.ops.arithmetic import where
from irshap.ops.cast import cast
from irshap.ops.gather import Gather
from irshap.ops.linear import matmul
from irshap.ops.program import constant
from irshap.ops.shape import reshape
from irshap.passes.methods.base import Explained, Method, Sum, emits_certificate
from irshap.passes.methods.chunks import in_chunks, summed
from irshap.passes.methods.features import features
from irshap.passes.methods.joint_batch import JointBatch, mean_over_references, reference_weights, refuse_both
from irshap.passes.methods.wider_batch import MovedBatch
from irshap.pipeline.base import Context, Points

__all__ = ["CoalitionMethod", "Coalitions", "ShapleyMethod"]


@dataclass(frozen=True)
class Coalitions:
    """The sets of features that a method replaces, and what they count.

    Attributes:
        points: arrays of one length M, which say in the method's own way which sets there are.
        sets: from C of the points what is replaced, truth values [C, features], and how much of T(x) -
            T(replaced) each feature gets, [C, features]; IR.
    """

    points: Sequence[Array]
    sets: Callable[[Sequence[Value]], tuple[Value, Value]]


@dataclass(frozen=True)
class CoalitionMethod(Method, family=True):
    """What a feature gets is a weighted sum of T(x) - T(x with sets of features from a reference).

    Features are the cells of all attributed tensors, or with `groups` what is given as such
    (compile(groups=...)): their replacement counts once, and each of their cells gets an equal part.  T
    replaced is the mean over the references (with `weights` the weighted one), with `per_sample`
    over those that the sample brings, by an input `<input>_references` [N, R, ...].  Tensors that aren't
    attributed, and what is read from token ids past their embedding, keep the sample's value.  The model runs
    on `chunk` sets for each sample and reference at a time, so that memory doesn't grow with their number.
    """

    FACETS: ClassVar[dict[str, str]] = {
        "coalitions": "def coalitions(self, features) -> the Coalitions of so many features",
    }
    groups: bool = False
    weights: bool = False
    per_sample: bool = False
    chunk: int = 25
    points = Points.COALITIONS
    requires = frozenset({"target"})

    def __post_init__(self) -> None:
        refuse_both(weights=self.weights, per_sample=self.per_sample)
        if self.chunk < 0:
            raise ValueError(f"chunk is {self.chunk}, and must be a number of sets, or 0 for all at once")

    @abstractmethod
    def coalitions(self, count: int) -> Coalitions:
        """The sets of features to replace, of `count` features.

        Raises:
            UserError: there are none for so many.
        """

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        if self.groups and not context.groups:
            raise UserError(
                f"{self.name} has no groups", mend="give them: compile(groups=...), or --groups FILE.npy"
            )
        given = context.references
        joint = JointBatch(builder, ir, (Role.SOURCE,), None, given, per_sample=self.per_sample)
        target, outputs = ir.output(Role.TARGET).value, ir.outputs_of(Role.SOURCE)
        explained, count = joint.sample(target), target.shape[0]
        pairs = as_dim(count * R)
        weights = reference_weights(builder, target.dtype, own_names(ir)) if self.weights else None
        ends = {o.value: _ends(joint, o.value, pairs) for o in outputs}
        found = features(
            ir, outputs, {v: x for v, (x, _) in ends.items()}, context.groups if self.groups else None
        )
        ids = {v: constant(of.reshape(-1)) for v, of in found.of.items()}
        sets = self.coalitions(found.count)
        valid = np.ones(len(sets.points[0]), target.dtype.numpy)

        def shared(slices: Sequence[Value]) -> list[Value]:
            """What some sets give to each feature: [n, features]."""
            counts, *points = slices
            replaced, shares = sets.sets(points)
            size = counts.shape[0]
            moved = {v: _replaced(x, r, emit1(Gather(1), replaced, ids[v])) for v, (x, r) in ends.items()}
            batch = MovedBatch(ir, as_dim(R * size), moved, joint.samples, [target])
            t = mean_over_references(reshape(batch.rows_first(target), (pairs, size)), weights)
            lost = reshape(explained, (count, 1)) - t
            return [matmul(lost * counts, cast(shares, lost.dtype))]

        chunks = [in_chunks(valid, self.chunk, fill=0.0), *(in_chunks(p, self.chunk) for p in sets.points)]
        (scores,) = summed(chunks, shared)
        parts = []
        for value, of in found.of.items():
            # divided last, and by an array: a product's scalar factor is a float32 in ONNX Runtime
            sizes = found.sizes[of].astype(target.dtype.numpy)
            parts.append(reshape(emit1(Gather(1), scores, ids[value]), (count, *of.shape)) / constant(sizes))
        if self.sums_to is Sum.NOTHING:
            return Explained(joint.sample, parts)
        certified = emits_certificate(self.name, self.emit) if isinstance(self, ShapleyMethod) else False

        def base() -> tuple[Value, Value]:
            batch = MovedBatch(ir, R, {v: r for v, (_, r) in ends.items()}, joint.samples, [target])
            return explained, mean_over_references(batch.rows_first(target), weights)

        return Explained(joint.sample, parts, base, certified=certified)


@dataclass(frozen=True)
class ShapleyMethod(CoalitionMethod, family=True):
    """Shares that add up to f(x) - base, base being T with all that is attributed from the references."""

    emit: str = ""
    sums_to = Sum.DIFFERENCE


def _ends(joint: JointBatch, source: Value, pairs: Dim) -> tuple[Value, Value]:
    """x and r of an attributed tensor: [pairs, ...]."""
    axis = joint.axis(source)
    x, r = (samples_first(v, axis, pairs) for v in joint.halves(source))
    return x, r


def _replaced(x: Value, r: Value, cells: Value) -> Value:
    """Every pair [pairs, ...] with each of C sets of cells [C, elements] from r: [pairs C, ...]."""
    pairs, *rest = x.shape
    size = cells.shape[0]
    box = reshape(cells, (1, size, *rest))
    whole, other = (reshape(v, (pairs, 1, *rest)) for v in (x, r))
    return reshape(where(box, other, whole), (as_dim(pairs * size), *rest))
