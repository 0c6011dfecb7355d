"""Slices picked by index, and put back."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import DType, Tensor
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.index import ADDS_SINCE, counted_from_front
from irshap.lowering.symbolic import each, truth
from irshap.ops import gather, generate, program
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


@importer("NonZero")
def _read_non_zero(n: Import) -> Value:
    """Where a known tensor isn't 0: [rank, count]; ones of an open size are counted through."""
    x = n.tensor()
    if isinstance(x.node.op, program.Full) and x.rank == 1 and x.node.op.value:
        return reshape(n.one(generate.Arange(0, 1, x.shape[0])), (1, x.shape[0]))
    elements = n.facts.known(x)
    found = n.static(0) if elements is None else each(truth, DType.BOOL, elements)
    if any(e is None for e in found.ravel() if found.dtype == object):
        raise Unmodeled("where its input is 0 is only known at run time")
    return n.one(program.Constant(Tensor(np.array(np.nonzero(found.astype(bool)), np.int64))))


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
