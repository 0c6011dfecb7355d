"""What is picked by positions, and put back; helpers for all that index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, same, symbols_of
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import FLOOR, Export, exporter
from irshap.lowering.importer import Failing, Import, Unmodeled, importer
from irshap.ops import index, program, scatter
from irshap.ops.reduce import Expand

__all__ = ["ADDS_SINCE", "counted_from_front", "for_all_rows", "require_in_range"]

ADDS_SINCE = 16
"""The opset from which on scattering adds."""

lower_alike("GatherElements", index.GatherElements)


def counted_from_front(n: Import, i: int, size: Dim) -> Value:
    """Input i as indices of an axis; constant ones without negatives where the size is known."""
    value = n.tensor(i)
    op = value.node.op
    if not isinstance(op, program.Constant) or not isinstance(size, int):
        return value
    given = op.value.array.astype(np.int64)
    if given.size and not (-size <= given.min() and given.max() < size):
        raise _out_of_range(int(given[(given < -size) | (given >= size)].flat[0]), size)
    return program.constant(np.where(given < 0, given + size, given))


def require_in_range(n: Import, i: int, sizes: Sequence[Dim]) -> None:
    """Refuses constant positions [..., axes] that lie beyond axes of these sizes, where these are known."""
    op = n.tensor(i).node.op
    if not isinstance(op, program.Constant) or not op.value.array.ndim:
        return
    for axis, size in zip(range(op.value.array.shape[-1]), sizes, strict=False):
        given = op.value.array[..., axis].astype(np.int64)
        if isinstance(size, int) and (beyond := given[(given < -size) | (given >= size)]).size:
            raise _out_of_range(int(beyond.flat[0]), size)


def _out_of_range(position: int, size: int) -> Failing:
    return Failing(f"its index {position} is out of range for an axis of {size} elements")


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


@importer("GatherElements")
def _read_gather_elements(n: Import) -> Value:
    x, axis = n.tensor(0), n.axis(n.attribute("axis", 0))
    where = for_all_rows(n, counted_from_front(n, 1, x.shape[axis]), axis)
    return n.one(index.GatherElements(axis), scatter.leading(x, where, axis), where)


def _adds_since(op: index.ScatterAdd) -> int:
    return FLOOR if op.distinct else ADDS_SINCE


@exporter(index.ScatterAdd, opset=_adds_since)
def _write_scatter_add(e: Export, op: index.ScatterAdd) -> None:
    # what goes to distinct places is set there, which more runtimes do; ONNX Runtime's CPU kernels add no
    # float16
    zeros = e.zeros(e.node.results[0].shape)
    reduction = None if op.distinct else "add"
    e.narrow("ScatterElements", [zeros, e.inputs[1], e.wide()], axis=op.axis, reduction=reduction)


@exporter(index.Unpool)
def _write_unpool(e: Export, op: index.Unpool) -> None:
    # windows that slide by one over a plane of `size` elements: its length follows from theirs, and is not
    # given as `output_shape`, to which ONNX Runtime and ONNX's reference refer the indices differently
    length = op.size - e.operand().shape[2] + 1
    e.narrow("MaxUnpool", [e.wide(), e.inputs[1]], kernel_shape=[length], strides=[1])


@importer("ArgMax")
def _read_argmax(n: Import) -> Value:
    if n.attribute("select_last_index", 0):
        raise Unmodeled("it selects the last of equal elements")
    axis = n.axis(n.attribute("axis", 0))
    return n.one(index.ArgMax((axis,), bool(n.attribute("keepdims", 1))), n.tensor())


@exporter(index.ArgMax)
def _write_argmax(e: Export, op: index.ArgMax) -> None:
    e.result("ArgMax", e.inputs, axis=op.axes[0], keepdims=int(op.keepdims))


@exporter(index.TopKIndices)
def _write_top_k_indices(e: Export, op: index.TopKIndices) -> None:
    values = e.emitter.fresh(e.outputs[0] + "_values")
    e.add("TopK", [e.inputs[0], e.ints([op.k])], into=[values, e.outputs[0]], axis=op.axis)
