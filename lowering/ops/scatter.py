"""Updates put at indices."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, as_dim, same, same_shape, symbols_of
from irshap.ir.types import Array
from irshap.lowering.boxes import Span, box
from irshap.lowering.emitter import FLOOR, Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.index import ADDS_SINCE, counted_from_front, for_all_rows, require_in_range
from irshap.ops import program, scatter
from irshap.ops.reduce import Expand
from irshap.ops.shape import Slice, concat, reshape, transpose

__all__: list[str] = []


def _adds(n: Import) -> bool:
    kind = n.attribute("reduction", "none")
    if kind not in ("none", "add"):
        raise Unmodeled(f"reduction={kind!r}")
    return bool(kind == "add")


def _refuse_repeated(positions: Array) -> None:
    """Positions as rows; which of two updates of one element wins is not defined."""
    if len(np.unique(positions, axis=0)) < len(positions):
        raise Unmodeled("its indices name an element twice")


def _refuse_repeated_unless(adds: bool, places: Array) -> None:
    if not adds:
        _refuse_repeated(places.reshape(-1, places.shape[-1]))


def _scatter_opset(op: scatter.ScatterElements | scatter.ScatterND) -> int:
    return ADDS_SINCE if op.add else FLOOR


@importer("Scatter", "ScatterElements")
def _read_scatter_elements(n: Import) -> Value:
    x, axis, add = n.tensor(0), n.axis(n.attribute("axis", 0)), _adds(n)
    where = counted_from_front(n, 1, x.shape[axis])
    if isinstance(where.node.op, program.Constant) and not add:
        given = where.node.op.value.array
        positions = np.indices(given.shape)
        positions[axis] = given
        _refuse_repeated(positions.reshape(given.ndim, -1).T)
    updates = for_all_rows(n, n.tensor(2), axis)
    return n.one(scatter.ScatterElements(axis, add), x, for_all_rows(n, where, axis), updates)


@exporter(scatter.ScatterElements, opset=_scatter_opset)
def _write_scatter_elements(e: Export, op: scatter.ScatterElements) -> None:
    if op.add:
        e.narrow("ScatterElements", [e.wide(0), e.inputs[1], e.wide(2)], axis=op.axis, reduction="add")
    else:
        e.result("ScatterElements", e.inputs, axis=op.axis)


@importer("ScatterND")
def _read_scatter_nd(n: Import) -> Value:
    op, where = scatter.ScatterND(_adds(n)), n.tensor(1)
    require_in_range(n, 1, n.tensor(0).shape)
    if (in_box := _in_box(n, op)) is not None:
        return in_box
    if (in_each := _in_each_row(n, op)) is not None:
        return in_each
    if isinstance(where.node.op, program.Constant):
        _refuse_repeated_unless(op.add, where.node.op.value.array)
    x, updates = _for_all_blocks(n, where)
    return n.one(op, x, where, updates)


def _in_box(n: Import, op: scatter.ScatterND) -> Value | None:
    """Slices of the tensor beside the updates, where the indices name a box of it."""
    x, where, updates = (n.tensor(i) for i in range(3))
    spans = box(where)
    if spans is None or updates.rank - where.rank + 1 != x.rank - len(spans):
        return None
    if where.rank - 1 != len(spans):
        if not same_shape(updates.shape[: where.rank - 1], where.shape[:-1]):
            return None
        updates = reshape(updates, (*(s.length for s in spans), *updates.shape[where.rank - 1 :]))
    spans += [Span(0, d) for d in x.shape[len(spans) :]]
    if n.rebatched:
        for axis, (span, size, new) in enumerate(zip(spans, x.shape, updates.shape, strict=True)):
            if same(span.start, 0) and _are_rows(span.length, size, new):
                x, updates = (_repeated(n, v, axis) for v in (x, updates))
                spans[axis] = Span(0, N)
    cuts = [_cut(span, size) for span, size in zip(spans, x.shape, strict=True)]
    if None in cuts or not same_shape(updates.shape, tuple(s.length for s in spans)):
        return None
    return _placed(x, updates, {a: cut for a, cut in enumerate(cuts) if cut}, op.add)


def _are_rows(*counts: Dim) -> bool:
    """Whether these, written for a batch of 1, count samples, or what is one for all of them."""
    return any(same(d, N) for d in counts) and all(same(d, N) or same(d, 1) for d in counts)


def _repeated(n: Import, value: Value, axis: int) -> Value:
    whole = (*value.shape[:axis], N, *value.shape[axis + 1 :])
    return value if same(value.shape[axis], N) else n.one(Expand(whole), value)


def _cut(span: Span, size: Dim) -> tuple[Dim, Dim] | tuple[()] | None:
    """Start and stop on an axis of this size; nothing for all of it, None where it may lie beyond."""
    start, length = span
    if isinstance(start, int) and start < 0:
        if isinstance(length, int) and start + length > 0:
            return None  # from the last to the first
        start = as_dim(size + start)
    stop = as_dim(start + length)
    if same(start, 0) and same(stop, size):
        return ()
    if isinstance(start, int) and isinstance(stop, int) and isinstance(size, int):
        return (start, stop) if start >= 0 and stop <= size else None
    return (start, stop) if isinstance(start, int) and same(stop, size) else None


def _placed(x: Value, updates: Value, cuts: Mapping[int, tuple[Dim, Dim]], add: bool) -> Value:
    """`x` with the updates at (or added to) what is cut out of it, one axis after the other."""
    if not cuts:
        return x + updates if add else updates
    axis, (start, stop) = next(iter(cuts.items()))
    before, inside, behind = (
        emit1(Slice((axis,), (a,), (b,), (1,)), x)
        for a, b in ((0, start), (start, stop), (stop, x.shape[axis]))
    )
    placed = _placed(inside, updates, {a: cut for a, cut in cuts.items() if a != axis}, add)
    return concat([v for v in (before, placed, behind) if not same(v.shape[axis], 0)], axis)


def _for_all_blocks(n: Import, where: Value) -> tuple[Value, Value]:
    """Tensor and updates whose blocks agree: where only one of them has the batch, the other is for all."""
    x, updates = n.tensor(0), n.tensor(2)
    depth = where.shape[-1] if where.rank else None
    if not n.rebatched or not isinstance(depth, int) or updates.rank - where.rank + 1 != x.rank - depth:
        return x, updates
    made = []
    for value, start, other, shift in (
        (x, depth, updates, where.rank - 1),
        (updates, where.rank - 1, x, depth),
    ):
        paired = zip(value.shape[start:], other.shape[shift:], strict=True)
        block = [b if same(a, 1) and N in symbols_of([b]) else a for a, b in paired]
        whole = (*value.shape[:start], *block)
        made.append(value if whole == value.shape else n.one(Expand(whole), value))
    return made[0], made[1]


def _in_each_row(n: Import, op: scatter.ScatterND) -> Value | None:
    """Places in the only row of a batch of 1, for each sample: behind the batch they say where in a row."""
    x, where, updates = (n.tensor(i) for i in range(3))
    if not n.rebatched or not isinstance(where.node.op, program.Constant) or not (x.rank and updates.rank):
        return None
    given, count = where.node.op.value.array, N
    batched = [d for d in (x.shape[0], updates.shape[0]) if N in symbols_of([d])]
    alone = given.ndim > 1 and given.shape[0] == 1 and not given[..., 0].any()
    if not batched or not alone or given.shape[-1] < 2:
        return None
    if not all(same(d, 1) or same(d, count) for d in (x.shape[0], updates.shape[0])):
        return None
    rows, new = (_behind(n, v, count) for v in (x, updates))
    places = program.constant(given[0, ..., 1:])
    _refuse_repeated_unless(op.add, given[0, ..., 1:])
    placed = n.one(op, rows, places, new)
    return transpose(placed, [placed.rank - 1, *range(placed.rank - 1)])


def _behind(n: Import, value: Value, count: Dim) -> Value:
    """[samples, ...] (or one for all) -> [..., samples]."""
    whole = (count, *value.shape[1:])
    value = value if same_shape(value.shape, whole) else n.one(Expand(whole), value)
    return transpose(value, [*range(1, value.rank), 0])


@exporter(scatter.ScatterND, opset=_scatter_opset)
def _write_scatter_nd(e: Export, op: scatter.ScatterND) -> None:
    if op.add:
        e.narrow("ScatterND", [e.wide(0), e.inputs[1], e.wide(2)], reduction="add")
    else:
        e.result("ScatterND", e.inputs)
