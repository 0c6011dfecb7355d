"""Slices picked by index, and put back."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Value
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.lowering.ops.index import ADDS_SINCE, counted_from_front
from irshap.ops import gather, program
from irshap.ops.shape import reshape

__all__: list[str] = []

lower_alike("Gather", gather.Gather)
lower_alike("GatherND", gather.GatherND)


@importer("Gather")
def _read_gather(n: Import) -> Value:
    x, axis = n.tensor(0), n.axis(n.attribute("axis", 0))
    return n.one(gather.Gather(axis), x, counted_from_front(n, 1, x.shape[axis]))


@importer("Compress")
def _read_compress(n: Import) -> Value:
    """A selection that is known: its positions."""
    x, chosen = n.tensor(), np.flatnonzero(n.static(1))
    axis = n.attribute("axis", None)
    if axis is None:
        x, axis = reshape(x, (x.tensor.size,)), 0
    return n.one(gather.Gather(n.axis(axis, x.rank)), x, program.constant(chosen.astype(np.int64)))


@importer("GatherND")
def _read_gather_nd(n: Import) -> Value:
    return n.one(gather.GatherND(n.attribute("batch_dims", 0)), n.tensor(0), n.tensor(1))


@exporter(gather.ScatterRows, opset=ADDS_SINCE)
def _write_scatter_rows(e: Export, op: gather.ScatterRows) -> None:
    # ScatterND adds along the first axis: the indexed ones go there, and the result's comes back
    updates, index = e.operand(0), e.operand(1)
    behind = op.axis + index.rank
    order = [*range(op.axis, behind), *range(op.axis), *range(behind, updates.rank)]
    rows = e.wide() if not op.axis else e.add("Transpose", [e.wide()], perm=order)
    dims = e.node.results[0].shape
    empty = e.zeros([op.size, *dims[: op.axis], *dims[op.axis + 1 :]])
    where = e.add("Unsqueeze", [e.inputs[1], e.ints([index.rank])])
    if not op.axis:
        e.narrow("ScatterND", [empty, where, rows], reduction="add")
        return
    summed = e.add("ScatterND", [empty, where, rows], reduction="add")
    e.narrow("Transpose", [summed], perm=[*range(1, op.axis + 1), 0, *range(op.axis + 1, len(dims))])
