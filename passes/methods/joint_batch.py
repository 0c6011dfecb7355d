"""The joint batch of samples and references, in which attribution methods compare the two worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irshap import contract
from irshap.attribution.gaps import Gap, references_needed, refusal
from irshap.attribution.outputs import batch_axes, own_names
from irshap.errors import ModelError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, MixesBatch, Node, NoLocalRule, Point, Role, Value
from irshap.ir.dims import N, R, as_dim, divide, same
from irshap.ir.types import Array, TensorType
from irshap.ir.walks import ancestors
from irshap.ops.program import Hold, Input, Pullback, batch_from_shape
from irshap.ops.reduce import Expand
from irshap.ops.rows import RepeatRows, TileRows
from irshap.ops.shape import concat, reshape, split, transpose, zeros_like

__all__ = ["JointBatch"]


class JointBatch:
    """Maps the values of a graph into the joint batch: N becomes 2 N R rows, samples before references."""

    def __init__(
        self,
        builder: Builder,
        graph: Graph,
        roles: Sequence[Role],
        gaps: list[Gap] | None = None,
        references: Mapping[str, Array] | None = None,
    ) -> None:
        """Brings what the outputs with these roles need into the joint batch.

        An op without a complete rule is refused, unless there is a list `gaps` to note it in.  `references`
        are those that will be bound, by input: one of size 1 on an open axis stands for any size.
        """
        self.builder, self.gaps, self.given = builder, gaps, references or {}
        self.taken = own_names(graph)
        self.rows = batch_axes(graph)
        self.count = graph.output(Role.TARGET).value.shape[0]
        self.binding = {N: as_dim(2 * N * R)}
        self.samples: dict[Value, Value] = {v: builder.copy(v.node, {})[0] for v in graph.inputs}
        self.joint: dict[Value, Value] = {}
        self.axes: dict[Value, int | None] = {}
        self.varied = set(references_needed(graph))
        self._walk(graph, roles)

    def _walk(self, graph: Graph, roles: Sequence[Role]) -> None:
        """Fills both worlds in program order, so that no deep recursion is needed."""
        told = (Role.MODEL, Role.TARGET_INDEX, Role.VALUES)
        in_sample = ancestors([o.value for o in graph.outputs if o.role in told])
        roots = [o.value for o in graph.outputs if o.role in roles]
        in_joint = ancestors(roots, _is_boundary)
        in_sample |= ancestors([v for v in in_joint if _is_boundary(v)])
        for value in graph.inputs:
            if value in in_joint:
                self._boundary(value)
        for node in graph.nodes:
            if node.results[0] in in_sample or any(v in in_sample for v in node.results):
                self.builder.extend([node], self.samples)
            if any(v in in_joint for v in node.results):
                if _is_boundary(node.results[0]):
                    self._boundary(node.results[0])
                else:
                    self._node(node)

    def sample(self, value: Value) -> Value:
        """The value in the sample's world, with N rows."""
        return self.samples[value]

    def halves(self, value: Value) -> tuple[Value, Value]:
        """The samples' and the references' rows of a joint value; the same twice where it has no rows."""
        whole, axis = self.joint[value], self.axes[value]
        if axis is None:
            return whole, whole
        half = divide(whole.shape[axis], 2)
        assert half is not None
        first, second = split(whole, axis, (half, half))
        return first, second

    def _boundary(self, value: Value) -> None:
        """A value that enters the joint batch from outside: an input, repeated samples, or a held value."""
        sample = self.samples[value]
        axis = self._rows_of(value)
        self.axes[value] = axis
        if axis is None:
            self.joint[value] = sample
            return
        repeated = self._repeated(sample, axis)
        other = repeated
        source = value.node.operands[0] if isinstance(value.node.op, RepeatRows) else value
        if source in self.varied:
            tiled = emit1(TileRows(0, sample.shape[axis]), self._references(source, axis))
            other = transpose(tiled, [*range(1, axis + 1), 0, *range(axis + 1, source.rank)])
        self.joint[value] = concat([repeated, other], axis)

    def _references(self, source: Value, axis: int) -> Value:
        """The references of an input whose batch is on `axis`, [R, ...]."""
        name = str(source.name)
        op = Input(contract.free(contract.references(name), self.taken), "references", source.name)
        dims = tuple(d for i, d in enumerate(source.shape) if i != axis)
        sizes = self.given[name].shape[1:] if name in self.given else dims
        stored = tuple(1 if size == 1 else d for size, d in zip(sizes, dims, strict=True))
        type = source.tensor.with_shape((R, *stored))
        references = self.builder.emit(op, types=(type,), names=(op.name,))[0]
        return references if stored == dims else emit1(Expand((R, *dims)), references)

    def _rows_of(self, value: Value) -> int | None:
        """The axis with the rows of a value at the boundary."""
        if isinstance(value.node.op, Hold):
            return self.rows.axis(value)
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        return batch_from_shape(shape or ())

    def _repeated(self, sample: Value, axis: int) -> Value:
        """Each sample once for each reference; where a sample takes up several rows, they stay together."""
        merged = divide(sample.shape[axis], self.count)
        if merged is None or same(merged, 1):
            return emit1(RepeatRows(axis, R), sample)
        before, after = sample.shape[:axis], sample.shape[axis + 1 :]
        apart = reshape(sample, (*before, self.count, merged, *after))
        repeated = emit1(RepeatRows(axis, R), apart)
        return reshape(repeated, (*before, sample.shape[axis] * R, *after))

    def _node(self, node: Node) -> None:
        axes = [self.axes[v] for v in node.operands]
        tensors = [v.tensor for v in node.operands if isinstance(v.type, TensorType)]
        results = [v.tensor for v in node.results if isinstance(v.type, TensorType)]
        try:
            found = node.op.batch_axes(axes, tensors, results)
        except MixesBatch as error:
            what = f"samples can't be explained independently of each other: {error}"
            mend = "Where the model's whole input is one sample, say so (batch=none)"
            raise ModelError(what, where=node.label, mend=mend) from None
        self.axes.update(zip(node.results, found, strict=True))
        if isinstance(node.op, Pullback):
            mapped: Sequence[Value] = self._secant(node, node.op)
        else:
            mapped = self.builder.copy(node, self.joint, self.binding)
        self.joint.update(zip(node.results, mapped, strict=True))

    def _secant(self, node: Node, op: Pullback) -> list[Value]:
        """One multiplier for both halves of the joint batch, as SHAP uses it."""
        worlds = list(zip(*(self.halves(v) for v in node.operands), strict=True))
        (cts, at), (cts0, at0) = (op.parts(world) for world in worlds)
        with self.builder.at(node.origin):
            try:
                pair = [op.of.secant(c, at, at0, op.wrt) for c in (cts, cts0)]
            except NoLocalRule as error:
                pair = [self._incomplete(node, op, c, at, error) for c in (cts, cts0)]
            return [
                a if axis is None else concat([a, b], axis)
                for a, b, axis in zip(*pair, (self.axes[v] for v in node.results), strict=True)
            ]

    def _incomplete(
        self, node: Node, op: Pullback, cts: Sequence[Value], at: Point, reason: NoLocalRule
    ) -> tuple[Value, ...]:
        """What an op without a complete rule contributes, if it may: its derivative, or nothing.

        Its gap is what the derivative misses: 0 for a `where` with the same condition in both worlds, say.
        """
        gap = Gap(Node(op.of, (), (), node.origin).label, str(reason))
        if self.gaps is None:
            raise refusal(gap) from None
        self.gaps.append(gap)
        try:
            return op.of.derivative(cts, at, op.wrt)
        except NoLocalRule:
            return tuple(zeros_like(at.operands[i]) for i in op.wrt)


def _is_boundary(value: Value) -> bool:
    """Whether a value is taken from the sample's world instead of being computed in the joint batch."""
    op = value.node.op
    if isinstance(op, RepeatRows):
        return isinstance(value.node.operands[0].node.op, Input)
    return isinstance(op, Input | Hold)
