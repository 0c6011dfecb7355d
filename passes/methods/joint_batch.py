"""The joint batch of samples and references, in which attribution methods compare the two worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from irshap import contract
from irshap.attribution.gaps import Gap, references_needed
from irshap.attribution.outputs import own_names
from irshap.errors import ModelError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, NoLocalRule, Role, Value
from irshap.ir.dims import Dim, R, Shape, as_dim, divide, same
from irshap.ir.types import Array, DType, TensorType
from irshap.ir.walks import ancestors
from irshap.ops.program import Pullback, new_input
from irshap.ops.reduce import Expand, ReduceMean, ReduceSum
from irshap.ops.rows import RepeatRows, TileRows
from irshap.ops.shape import concat, from_front, reshape, split
from irshap.passes.methods.wider_batch import WiderBatch, is_boundary

__all__ = ["JointBatch", "mean_over_references", "reference_weights", "refuse_both"]


class JointBatch(WiderBatch):
    """Maps the values of a graph into the joint batch: N becomes 2 N R rows, samples before references."""

    def __init__(
        self,
        builder: Builder,
        graph: Graph,
        roles: Sequence[Role],
        gaps: list[Gap] | None = None,
        references: Mapping[str, Array] | None = None,
        *,
        per_sample: bool = False,
        alone: bool = False,
    ) -> None:
        """Brings what the outputs with these roles need into the joint batch.

        `references` are those that will be bound, by input: one of size 1 on an open axis serves any size.
        With `per_sample` each sample has references of its own.  `alone`: there is one, for all samples.
        """
        super().__init__(builder, graph, 2 * R, gaps)
        self.per_sample, self.alone = per_sample, alone and not per_sample
        self.graph, self.taken, self.given = graph, own_names(graph), references or {}
        self.samples: dict[Value, Value] = {v: builder.copy(v.node, {})[0] for v in graph.inputs}
        self.varied = set(references_needed(graph))
        self._walk(graph, roles)

    def _walk(self, graph: Graph, roles: Sequence[Role]) -> None:
        """Fills both worlds in program order, so that no deep recursion is needed."""
        told = (Role.MODEL, Role.TARGET_INDEX, Role.VALUES)
        in_sample = ancestors([o.value for o in graph.outputs if o.role in told])
        roots = [o.value for o in graph.outputs if o.role in roles]
        in_joint = ancestors(roots, is_boundary)
        in_sample |= ancestors([v for v in in_joint if is_boundary(v)])
        for value in graph.inputs:
            if value in in_joint:
                self._boundary(value)
        for node in graph.nodes:
            if node.results[0] in in_sample or any(v in in_sample for v in node.results):
                self.builder.extend([node], self.samples)
            if any(v in in_joint for v in node.results):
                if is_boundary(node.results[0]):
                    self._boundary(node.results[0])
                else:
                    self.node(node)

    def sample(self, value: Value) -> Value:
        """The value in the sample's world, with N rows."""
        if value not in self.samples:
            needed = {v.node for v in ancestors([value])}
            self.builder.extend([n for n in self.graph.nodes if n in needed], self.samples)
        return self.samples[value]

    def halves(self, value: Value) -> tuple[Value, Value]:
        """The samples' and the references' rows of a joint value; the same twice where it has no rows."""
        whole, axis = self.mapped[value], self.axes[value]
        if axis is None:
            return whole, whole
        half = divide(whole.shape[axis], 2)
        assert half is not None
        first, second = split(whole, axis, (half, half))
        return first, second

    def axis(self, value: Value) -> int:
        """On which axis a joint value has its rows."""
        axis = self.axes[value]
        if axis is None:
            what = f"{value.name or value.node.label!r} has no axis that counts samples"
            raise ModelError(what, mend="fix their number behind the method, not before: fix-batch")
        return axis

    def _boundary(self, value: Value) -> None:
        """A value that enters the joint batch from outside: an input, repeated samples, or a held value."""
        sample = self.samples[value]
        axis = self.rows_of(value)
        self.axes[value] = axis
        if axis is None:
            self.mapped[value] = sample
            return
        repeated = self.repeated(sample, axis, R)
        other = repeated
        source = value.node.operands[0] if isinstance(value.node.op, RepeatRows) else value
        if source in self.varied:
            own = self._own_references if self.per_sample else self._shared_references
            other = from_front(own(source, axis, sample.shape[axis]), axis)
        self.mapped[value] = concat([repeated, other], axis)

    def _shared_references(self, source: Value, axis: int, rows: Dim) -> Value:
        """The set of references [R, ...] of an input whose batch is on `axis`, once for each of its rows."""
        name = str(source.name)
        dims = tuple(d for i, d in enumerate(source.shape) if i != axis)
        sizes = self.given[name].shape[1:] if name in self.given else dims
        stored = tuple(1 if size == 1 else d for size, d in zip(sizes, dims, strict=True))
        references = self._input(source, (R, *stored))
        whole = references if stored == dims else emit1(Expand((R, *dims)), references)
        return emit1(TileRows(0, rows), whole)

    def _own_references(self, source: Value, axis: int, rows: Dim) -> Value:
        """The references [N, R, ...] that samples bring along, beside each of their rows (one a class)."""
        count = source.shape[axis]
        dims = tuple(d for i, d in enumerate(source.shape) if i != axis)
        references = self._input(source, (count, R, *dims))
        classes = divide(rows, count)
        assert classes is not None
        if not same(classes, 1):
            references = emit1(RepeatRows(0, classes), references)
        return reshape(references, (as_dim(rows * R), *dims))

    def _input(self, source: Value, shape: Shape) -> Value:
        """The input for the references of an input."""
        name = contract.free(contract.references(str(source.name)), self.taken)
        kind = source.tensor.with_shape(shape)
        return new_input(name, kind, "references", source.name, self.builder)

    def pullback(self, node: Node, op: Pullback) -> list[Value]:
        """One multiplier for both halves of the joint batch, as SHAP uses it."""
        worlds = list(zip(*(self.halves(v) for v in node.operands), strict=True))
        (cts, at), (cts0, at0) = (op.parts(world) for world in worlds)
        at0 = replace(at0, alone=self.alone)
        with self.builder.at(node.origin):
            try:
                pair = [op.of.secant(c, at, at0, op.wrt) for c in (cts, cts0)]
            except NoLocalRule as error:
                pair = [self.incomplete(node, op, c, at, error) for c in (cts, cts0)]
            return [
                a if axis is None else concat([a, b], axis)
                for a, b, axis in zip(*pair, (self.axes[v] for v in node.results), strict=True)
            ]


def refuse_both(*, weights: bool, per_sample: bool) -> None:
    """Weights are those of a set of references that all samples share.

    Raises:
        ValueError: they are asked for where each sample has its own.
    """
    if weights and per_sample:
        raise ValueError("weights are for references that all samples share, and per_sample says they don't")


def reference_weights(builder: Builder, dtype: DType, taken: Set[str]) -> Value:
    """A run-time input [R], which `bind-references` makes a constant."""
    name = contract.free(contract.REFERENCE_WEIGHTS, taken)
    return new_input(name, TensorType(dtype, (R,)), "weights", builder=builder)


def mean_over_references(rows: Value, weights: Value | None) -> Value:
    """[n R, ...] -> [n, ...]: the mean over each sample's rows, weighted if weights [R] are given."""
    count = divide(rows.shape[0], R)
    assert count is not None
    apart = reshape(rows, (count, R, *rows.shape[1:]))
    if weights is None:
        return emit1(ReduceMean((1,), keepdims=False), apart)
    column = reshape(weights, (R, *[1] * (rows.rank - 1)))
    return emit1(ReduceSum((1,), keepdims=False), apart * column)
