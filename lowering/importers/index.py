"""How ONNX ops that pick elements by index, and put them back, are lifted."""

from __future__ import annotations

import numpy as np

from irshap.dims import Dim, same
from irshap.graph import Value
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import index, program
from irshap.ops.shape import Slice

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
    return program.constant(np.where(given < 0, given + size, given))  # type: ignore[no-any-return]


@importer("GatherElements")
def _gather_elements(n: Import) -> Value:
    x, axis = n.tensor(0), n.axis(n.attribute("axis", 0))
    where = counted_from_front(n, 1, x.shape[axis])
    # indices may have fewer positions on the other axes: the first ones are meant
    short = [a for a in range(x.rank) if a != axis and not same(x.shape[a], where.shape[a])]
    if short:
        stops = tuple(where.shape[a] for a in short)
        x = n.one(Slice(tuple(short), (0,) * len(short), stops, (1,) * len(short)), x)
    return n.one(index.GatherElements(axis), x, where)
