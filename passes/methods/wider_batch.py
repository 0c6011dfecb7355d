"""Programs with more rows than samples: what attribution methods run a model on, row by row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from irshap.attribution.gaps import Gap, refusal
from irshap.attribution.outputs import batch_axes, samples_first
from irshap.errors import ModelError, TargetError
from irshap.ir.builder import Builder, current, emit1
from irshap.ir.core import Graph, MixesBatch, Node, NoLocalRule, Output, Point, Role, Value
from irshap.ir.dims import Dim, N, as_dim, divide, product, same
from irshap.ir.types import TensorType
from irshap.ir.walks import ancestors, live
from irshap.ops.cast import cast
from irshap.ops.linear import matmul
from irshap.ops.program import Hold, Input, Pullback, batch_from_shape, without_tap
from irshap.ops.rows import RepeatRows
from irshap.ops.shape import from_front, reshape, zeros_like

__all__ = ["MovedBatch", "WiderBatch", "is_boundary", "known_shape", "samples_alone", "weighted"]


class WiderBatch(ABC):
    """Maps values of a graph to `times` as many rows.

    `mapped` tells where a value went, `axes` on which axis its rows are; `rows` are the graph's own axes, and
    `count` its number of explained rows, one for each (sample, class) pair.  An op without a rule is refused,
    unless there is a list `gaps` to note it in.
    """

    def __init__(self, builder: Builder, graph: Graph, times: Dim, gaps: list[Gap] | None = None) -> None:
        self.builder, self.times, self.gaps = builder, times, gaps
        self.rows = batch_axes(graph)
        self.count = graph.output(Role.TARGET).value.shape[0]
        self.told = graph.source.batch
        self.binding = {N: as_dim(N * times)}
        self.mapped: dict[Value, Value] = {}
        self.axes: dict[Value, int | None] = {}

    def rows_of(self, value: Value) -> int | None:
        """The axis with the rows of a value at the boundary."""
        if isinstance(value.node.op, Hold):
            return self.rows.axis(value)
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        return batch_from_shape(shape or ())

    def repeated(self, sample: Value, axis: int, times: Dim) -> Value:
        """Each sample `times` over; where it takes up several rows, they stay together."""
        merged = divide(sample.shape[axis], self.count)
        if merged is None or same(merged, 1):
            return emit1(RepeatRows(axis, times), sample)
        before, after = sample.shape[:axis], sample.shape[axis + 1 :]
        apart = reshape(sample, (*before, self.count, merged, *after))
        repeated = emit1(RepeatRows(axis, times), apart)
        return reshape(repeated, (*before, as_dim(sample.shape[axis] * times), *after))

    @abstractmethod
    def pullback(self, node: Node, op: Pullback) -> Sequence[Value]:
        """What stands in the place of a pullback."""

    def incomplete(
        self, node: Node, op: Pullback, cts: Sequence[Value], at: Point, reason: NoLocalRule
    ) -> tuple[Value, ...]:
        """What an op without a rule contributes, if it may: its derivative, or nothing.

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

    def node(self, node: Node) -> None:
        """Emits a node for all rows.

        Raises:
            ModelError: its rows depend on each other.
            NotDifferentiable: it has no rule.
        """
        axes = [self.axes[v] for v in node.operands]
        tensors = [v.tensor for v in node.operands if isinstance(v.type, TensorType)]
        results = [v.tensor for v in node.results if isinstance(v.type, TensorType)]
        try:
            found = node.op.batch_axes(axes, tensors, results)
        except MixesBatch as error:
            what = f"samples can't be explained independently of each other: {error}"
            if self.told:
                what += f" ({self.told})"
            mend = "Where the model's whole input is one sample, say so (batch=none)"
            raise ModelError(what, where=node.label, mend=mend) from None
        self.axes.update(zip(node.results, found, strict=True))
        if isinstance(node.op, Pullback):
            mapped: Sequence[Value] = self.pullback(node, node.op)
        else:
            mapped = self.builder.copy(node, self.mapped, self.binding)
        self.mapped.update(zip(node.results, mapped, strict=True))


class MovedBatch(WiderBatch):
    """Each explained row `times` over, with other values for some tensors; pullbacks are derivatives there.

    Inputs and held values keep the sample's value, and so does what is computed from them alone.
    """

    def __init__(
        self,
        graph: Graph,
        times: Dim,
        moved: Mapping[Value, Value],
        samples: Mapping[Value, Value],
        roots: Sequence[Value],
        gaps: list[Gap] | None = None,
    ) -> None:
        """Emits what `roots` need into the current builder.

        Args:
            moved: for a tensor what it is in these rows, samples first (as `samples_first` has it).
            samples: for inputs and held values what they are for the samples.
        """
        super().__init__(current(), graph, times, gaps)
        for value, rows in moved.items():
            axis = self.rows.axis(value)
            assert axis is not None
            self.axes[value], self.mapped[value] = axis, _put_back(rows, axis, value.rank)
        needed = ancestors(roots, lambda v: v in moved or is_boundary(v))
        for node in graph.statements:
            if needed.isdisjoint(node.results) or node.results[0] in moved:
                continue
            if is_boundary(node.results[0]):
                self._boundary(node.results[0], samples, times)
            else:
                self.node(node)

    def _boundary(self, value: Value, samples: Mapping[Value, Value], times: Dim) -> None:
        axis = self.axes[value] = self.rows_of(value)
        sample = samples[value]
        self.mapped[value] = sample if axis is None else self.repeated(sample, axis, times)

    def rows_first(self, value: Value) -> Value:
        """What a root is in all these rows, [rows, ...]."""
        axis = self.axes[value]
        assert axis is not None
        return samples_first(self.mapped[value], axis, as_dim(self.count * self.times))

    def pullback(self, node: Node, op: Pullback) -> Sequence[Value]:
        cts, at = op.parts([self.mapped[v] for v in node.operands])
        with self.builder.at(node.origin):
            try:
                return op.of.derivative(cts, at, op.wrt)
            except NoLocalRule as error:
                return self.incomplete(node, op, cts, at, error)


def is_boundary(value: Value) -> bool:
    """Whether a value is taken from the sample's world instead of being computed for more rows."""
    op = value.node.op
    if isinstance(op, RepeatRows):
        return isinstance(value.node.operands[0].node.op, Input)
    return isinstance(op, Input | Hold)


def samples_alone(builder: Builder, ir: Graph) -> dict[Value, Value]:
    """Emits what a program without a reverse pass needs for the samples; tells where values went."""
    sample = {v: builder.copy(v.node, {})[0] for v in ir.inputs}
    wanted = [o.value for o in ir.outputs if o.role is not Role.ADJOINT]
    return builder.extend(live(ir.nodes, wanted), sample, without_tap)


def known_shape(source: Output, rows: Value, why: str) -> tuple[int, ...]:
    """The sizes behind the samples' axis of an attributed tensor, [samples, ...].

    Raises:
        TargetError: some are known at run time only.
    """
    shape = tuple(d for d in rows.shape[1:] if isinstance(d, int))
    if len(shape) < rows.rank - 1:
        raise TargetError(
            f"the shape of {source.name!r}, {rows.type}, is only known at run time: {why}",
            mend="Export the model with fixed sizes but for the batch, or attribute a tensor with them (wrt)",
        )
    return shape


def weighted(rows: Value, weight: Value, pairs: Dim) -> Value:
    """[pairs C, ...] -> [pairs, elements]: the C points of each pair, weighted by [C] and added up."""
    count, size = weight.shape[0], product(rows.shape[1:])
    row = reshape(cast(weight, rows.dtype), (1, count))
    return reshape(matmul(row, reshape(rows, (pairs, count, size))), (pairs, size))


def _put_back(rows: Value, axis: int, rank: int) -> Value:
    """[rows, ...] with the rows on `axis` of a tensor of this rank: what undoes `samples_first`."""
    if rows.rank > rank:
        rows = reshape(rows, (as_dim(rows.shape[0] * rows.shape[1]), *rows.shape[2:]))
    return from_front(rows, axis)
