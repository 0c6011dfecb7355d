"""How ONNX ops that pick elements by index, and put them back, are lifted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, same, symbols_of
from irshap.ir.types import Array
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import gather, index, program, scatter, top_k
from irshap.ops.reduce import Expand
from irshap.ops.shape import reshape

__all__: list[str] = []


def counted_from_front(n: Import, i: int, size: Dim) -> Value:
    """Input i as indices of an axis; constant ones without negatives where the size is known."""
    value = n.tensor(i)
    op = value.node.op
    if not isinstance(op, program.Constant) or not isinstance(size, int):
        return value
    given = op.value.array.astype(np.int64)
    if given.size and not (-size <= given.min() and given.max() < size):
        raise Unmodeled(f"its indices are out of range for {size}")
    return program.constant(np.where(given < 0, given + size, given))


def for_all_rows(n: Import, value: Value, axis: int) -> Value:
    """Indices along `axis` (or updates) that were written for a batch of 1: the same for each sample."""
    dims = n.tensor(0).shape
    if not n.rebatched or value.rank != len(dims):
        return value
    target = [
        d if a != axis and same(mine, 1) and N in symbols_of([d]) else mine
        for a, (d, mine) in enumerate(zip(dims, value.shape, strict=True))
    ]
    return value if tuple(target) == value.shape else n.one(Expand(tuple(target)), value)


@importer("Gather")
def _gather(n: Import) -> Value:
    x, axis = n.tensor(0), n.axis(n.attribute("axis", 0))
    return n.one(gather.Gather(axis), x, counted_from_front(n, 1, x.shape[axis]))


@importer("Compress")
def _compress(n: Import) -> Value:
    """A selection that is known: its positions."""
    x, chosen = n.tensor(), np.flatnonzero(n.static(1))
    axis = n.attribute("axis", None)
    if axis is None:
        x, axis = reshape(x, (x.tensor.size,)), 0
    return n.one(gather.Gather(n.axis(axis, x.rank)), x, program.constant(chosen.astype(np.int64)))


@importer("GatherElements")
def _gather_elements(n: Import) -> Value:
    x, axis = n.tensor(0), n.axis(n.attribute("axis", 0))
    where = for_all_rows(n, counted_from_front(n, 1, x.shape[axis]), axis)
    return n.one(index.GatherElements(axis), scatter.leading(x, where, axis), where)


@importer("GatherND")
def _gather_nd(n: Import) -> Value:
    return n.one(gather.GatherND(n.attribute("batch_dims", 0)), n.tensor(0), n.tensor(1))


def _adds(n: Import) -> bool:
    kind = n.attribute("reduction", "none")
    if kind not in ("none", "add"):
        raise Unmodeled(f"reduction={kind!r}")
    return bool(kind == "add")


def _refuse_repeated(positions: Array) -> None:
    """Positions as rows; which of two updates of one element wins is not defined."""
    if len(np.unique(positions, axis=0)) < len(positions):
        raise Unmodeled("its indices name an element twice")


@importer("Scatter", "ScatterElements")
def _scatter_elements(n: Import) -> Value:
    x, axis, add = n.tensor(0), n.axis(n.attribute("axis", 0)), _adds(n)
    where = counted_from_front(n, 1, x.shape[axis])
    if isinstance(where.node.op, program.Constant) and not add:
        given = where.node.op.value.array
        positions = np.indices(given.shape)
        positions[axis] = given
        _refuse_repeated(positions.reshape(given.ndim, -1).T)
    updates = for_all_rows(n, n.tensor(2), axis)
    return n.one(scatter.ScatterElements(axis, add), x, for_all_rows(n, where, axis), updates)


@importer("ScatterND")
def _scatter_nd(n: Import) -> Value:
    op, where = scatter.ScatterND(_adds(n)), n.tensor(1)
    if isinstance(where.node.op, program.Constant) and not op.add:
        given = where.node.op.value.array
        _refuse_repeated(given.reshape(-1, given.shape[-1]))
    return n.one(op, n.tensor(0), where, n.tensor(2))


@importer("TopK")
def _top_k(n: Import) -> Sequence[Value]:
    axis = n.axis(n.attribute("axis", -1))
    (k,) = n.ints(1) if n.opset >= 10 else [n.attributes["k"]]
    return n.emit(top_k.TopK(axis, k, bool(n.attribute("largest", 1))), n.tensor())
