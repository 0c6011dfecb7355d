"""Slices picked by index, and put back."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Node, Value
from irshap.ir.dims import Dim, same
from irshap.ir.types import DType, Tensor
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.index import ADDS_SINCE, counted_from_front, require_in_range
from irshap.lowering.symbolic import each, truth
from irshap.ops import gather, generate, program
from irshap.ops.cast import cast
from irshap.ops.index import ArgMax
from irshap.ops.shape import Reshape, Transpose, reshape

__all__: list[str] = []

lower_alike("Gather", gather.Gather)
lower_alike("GatherND", gather.GatherND)


@importer("Gather")
def _read_gather(n: Import) -> Value:
    x, axis = n.tensor(0), n.axis(n.attribute("axis", 0))
    if axis == 1 and (last := _last_chosen(n)) is not None:
        return last
    return n.one(gather.Gather(axis), x, counted_from_front(n, 1, x.shape[axis]))


def _last_chosen(n: Import) -> Value | None:
    """x[mask].view(samples, -1, ...)[:, -1]: of each sample the last position that a mask chooses.

    So sequence classifiers take the state at the end-of-sequence token.  How many positions are chosen is
    only known at run time, but the last one of each sample is there whatever the others choose.
    """
    index = n.facts.numbers(n.tensor(1))
    rows = n.tensor(0).node
    if index is None or index.shape != () or index != -1 or not rows.operands:
        return None
    picked = rows.operands[0].node
    wanted = _reshaped_to(n, rows)
    if wanted is None or not isinstance(picked.op, gather.GatherND) or picked.op.batch_dims:
        return None
    x, positions = picked.operands
    mask = _mask_of(positions)
    if mask is None or mask.rank != 2 or x.rank < 3 or not all(map(same, mask.shape, x.shape)):
        return None
    samples, size, *rest = x.shape
    # of a model for a batch of 1, the leading 1 is the sample's
    leads = wanted[0] is not None and (same(wanted[0], samples) or (n.rebatched and same(wanted[0], 1)))
    if len(wanted) != x.rank or not leads or any(d is None for d in wanted[2:]):
        return None
    if not all(same(a, b) for a, b in zip(wanted[2:], rest, strict=True) if a is not None):
        return None
    counted = cast(mask, DType.I64) * n.one(generate.Arange(1, 1, size))
    return n.one(gather.GatherND(1), x, n.one(ArgMax((1,), keepdims=True), counted))


def _reshaped_to(n: Import, node: Node) -> list[Dim | None] | None:
    """The shape that a node reshapes to, None for what isn't known of it."""
    if isinstance(node.op, Reshape):
        return list(node.op.shape)
    if isinstance(node.op, program.Opaque) and node.op.kind == "Reshape" and len(node.operands) == 2:
        found = n.facts.of(node.operands[1])
        return None if found is None else [None if d is None or same(d, -1) else d for d in found.ravel()]
    return None


def _mask_of(positions: Value) -> Value | None:
    """The mask whose true positions these are, a row for each."""
    turned = positions.node
    if not isinstance(turned.op, Transpose) or turned.op.perm != (1, 0):
        return None
    found = turned.operands[0].node
    chosen = isinstance(found.op, program.Opaque) and found.op.kind == "NonZero"
    mask = found.operands[0] if chosen else None
    return mask if mask is not None and getattr(mask.type, "shape", None) is not None else None


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
    batch = n.attribute("batch_dims", 0)
    require_in_range(n, 1, n.tensor(0).shape[batch:])
    return n.one(gather.GatherND(batch), n.tensor(0), n.tensor(1))


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
