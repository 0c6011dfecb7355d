"""Where the references are in each value: what may be computed for some of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from irshap.errors import UserError
from irshap.ir.core import Graph, MixesBatch, Node, Value
from irshap.ir.dims import Dim, R, divide, product, same, symbols_of
from irshap.ir.types import TensorType
from irshap.ops.program import Full, Input
from irshap.ops.reduce import Expand, ReduceMean, ReduceSum
from irshap.ops.rows import RepeatRows, TileRows
from irshap.ops.shape import Reshape, Split

__all__ = ["ReferenceAxes", "ReferenceAxis"]


@dataclass(frozen=True)
class ReferenceAxis:
    """`axis` counts `outer` x R x `inner` elements, in this order: rows of pairs are [N R], positions [R L].

    `uniform`: equal along the axis, so that any other order with the same `inner`, or more, is as good.
    """

    axis: int
    outer: Dim
    inner: Dim
    uniform: bool = False


class ReferenceAxes:
    """The axis of the references in each value of a graph, found before R is bound to a number.

    A value without one is the same for every number of references, or has them summed up: the nodes that
    do so are `reductions`.
    """

    def __init__(self, graph: Graph) -> None:
        self.reductions: set[Node] = set()
        self._axes: dict[Value, ReferenceAxis | None] = {}
        self._failures: dict[Value, tuple[Node, str]] = {}
        for node in graph.statements:
            self._visit(node)

    def axis(self, value: Value) -> ReferenceAxis | None:
        """Where the references are in `value`; None where they aren't.

        Raises:
            UserError: an op before it mixes references; names node, op and reason.
        """
        if value in self._failures:
            node, reason = self._failures[value]
            raise UserError(
                f"the references can't be taken one after another: {reason}",
                where=node.label,
                mend="Use the pass fold-references instead of stream",
            )
        return self._axes[value]

    def any(self, values: Iterable[Value]) -> bool:
        """Whether references are in one of these."""
        return any(self.axis(v) is not None for v in values)

    def _visit(self, node: Node) -> None:
        failed = next((self._failures[v] for v in node.operands if v in self._failures), None)
        if failed is None:
            try:
                found = self._results(node, [self._axes[v] for v in node.operands])
                self._axes.update(zip(node.results, found, strict=True))
            except MixesBatch as error:
                failed = (node, str(error))
        if failed is not None:
            self._failures.update(dict.fromkeys(node.results, failed))

    def _results(
        self, node: Node, operands: Sequence[ReferenceAxis | None]
    ) -> Sequence[ReferenceAxis | None]:
        rowed = [p for p in operands if p is not None]
        if not rowed:
            return [None if (a := _axis_with_r(v)) is None else _made(node, a) for v in node.results]
        if isinstance(node.op, ReduceSum | ReduceMean) and rowed[0].axis in node.op.axes:
            self.reductions.add(node)
            return [None]
        if isinstance(node.op, Expand):
            return [_grown(rowed[0], node.operands[0], node.results[0])]
        if isinstance(node.op, Reshape):
            return [_reshaped(rowed[0], node.operands[0], node.results[0])]
        if isinstance(node.op, Split) and rowed[0].uniform and rowed[0].axis == node.op.axis:
            return [_equal_rows(rowed[0], size) for size in node.op.sizes]
        if isinstance(node.op, RepeatRows | TileRows) and node.op.axis == rowed[0].axis:
            (along,) = rowed
            if isinstance(node.op, RepeatRows):
                if divide(along.inner, node.op.block) is None:
                    raise MixesBatch("it repeats several references together")
                return [replace(along, inner=along.inner * node.op.times)]
            return [replace(along, outer=along.outer * node.op.times)]
        return self._moved(node, operands)

    def _moved(self, node: Node, operands: Sequence[ReferenceAxis | None]) -> Sequence[ReferenceAxis | None]:
        """An op that treats rows apart: where its batch axis goes, the references go."""
        types = [v.type for v in (*node.operands, *node.results)]
        known = [t for t in types if isinstance(t, TensorType) and t.shape is not None]
        if len(known) < len(types):
            raise MixesBatch("a shape is unknown")
        count = len(operands)
        if isinstance(node.op, RepeatRows | TileRows):
            axes: tuple[int | None, ...] = (operands[0].axis if operands[0] else None,)
        else:
            given = [None if p is None else p.axis for p in operands]
            axes = node.op.batch_axes(given, known[:count], known[count:])
        joined = _joined([p for p in operands if p is not None])
        size = next(v.shape[p.axis] for v, p in zip(node.operands, operands, strict=True) if p is not None)
        for axis, value in zip(axes, node.results, strict=True):
            if axis is None or not same(value.shape[axis], size):
                raise MixesBatch("its result doesn't have the rows of its operands")
        return [replace(joined, axis=axis) for axis in axes if axis is not None]


def _axis_with_r(value: Value) -> int | None:
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    axes = [i for i, d in enumerate(shape or ()) if R in symbols_of([d])]
    if len(axes) > 1:
        raise MixesBatch("the references are on several axes")
    return axes[0] if axes else None


def _made(node: Node, axis: int) -> ReferenceAxis:
    """Where references come in: their inputs, copies of samples for each, and equal rows."""
    op, size = node.op, node.results[0].shape[axis]
    around = divide(size, R)
    if isinstance(op, Input) and same(size, R):
        return ReferenceAxis(axis, 1, 1)
    if isinstance(op, RepeatRows | TileRows) and same(op.times, R) and around is not None:
        if isinstance(op, TileRows):
            return ReferenceAxis(axis, 1, around)
        if (outer := divide(around, op.block)) is not None:
            return ReferenceAxis(axis, outer, op.block)
    spread = isinstance(op, Expand) and _is_one(node.operands[0], axis - node.results[0].rank)
    if around is not None and (isinstance(op, Full) or spread):
        return ReferenceAxis(axis, around, 1, uniform=True)
    raise MixesBatch("it isn't known to make equal rows for all references")


def _equal_rows(along: ReferenceAxis, size: Dim) -> ReferenceAxis:
    """As many equal rows as `size` says, where those of `along` were."""
    outer = divide(size, product((R, along.inner)))
    if outer is None:
        raise MixesBatch("it cuts across the references")
    return replace(along, outer=outer)


def _is_one(value: Value, from_right: int) -> bool:
    return -from_right > value.rank or same(value.shape[from_right], 1)


def _joined(axes: Sequence[ReferenceAxis]) -> ReferenceAxis:
    """The one order of rows that operands of an op agree on; equal rows take that of the others."""
    first = next((p for p in axes if not p.uniform), axes[0])
    for along in axes:
        agrees = same(along.outer, first.outer) and same(along.inner, first.inner)
        if not agrees and not (along.uniform and divide(first.inner, along.inner) is not None):
            raise MixesBatch("its operands have the references in another order")
    return first


def _grown(along: ReferenceAxis, before: Value, after: Value) -> ReferenceAxis:
    """The same axis, where others grow: those of samples may."""
    axis = along.axis + after.rank - before.rank
    if _axis_with_r(after) != axis or not same(before.shape[along.axis], after.shape[axis]):
        raise MixesBatch("it repeats the references")
    return replace(along, axis=axis)


def _reshaped(along: ReferenceAxis, before: Value, after: Value) -> ReferenceAxis:
    """The same elements before each reference, and the same for each, on the axis that has them now."""
    axis = _axis_with_r(after)
    if axis is None:
        raise MixesBatch("a reshape hides them")
    outer = divide(product((*before.shape[: along.axis], along.outer)), product(after.shape[:axis]))
    inner = divide(product((*before.shape[along.axis + 1 :], along.inner)), product(after.shape[axis + 1 :]))
    if outer is None or inner is None or not same(product((outer, R, inner)), after.shape[axis]):
        raise MixesBatch("a reshape cuts across them")
    return replace(along, axis=axis, outer=outer, inner=inner)
