"""Rows, repeated and spaced."""

from __future__ import annotations

from irshap.ir.dims import divide, same
from irshap.lowering.emitter import Export, exporter
from irshap.ops import rows

__all__: list[str] = []


@exporter(rows.RepeatRows)
def _write_repeat_rows(e: Export, op: rows.RepeatRows) -> None:
    dims, source, at = e.operand().shape, e.inputs[0], op.axis
    if not same(op.block, 1):
        blocks = divide(dims[at], op.block)
        assert blocks is not None
        dims = (*dims[:at], blocks, op.block, *dims[at + 1 :])
        source = e.add("Reshape", [source, e.shape(dims)])
    apart = e.add("Unsqueeze", [source, e.ints([at + 1])])
    times = [1] * (len(dims) + 1)
    copies = e.add("Expand", [apart, e.shape([*times[: at + 1], op.times, *times[at + 2 :]])])
    e.result("Reshape", [copies, _merged(e, at)])


@exporter(rows.TileRows)
def _write_tile_rows(e: Export, op: rows.TileRows) -> None:
    dims = e.operand().shape
    apart = e.add("Unsqueeze", [e.inputs[0], e.ints([op.axis])])
    times = [1] * (len(dims) + 1)
    copies = e.add("Expand", [apart, e.shape([*times[: op.axis], op.times, *times[op.axis + 1 :]])])
    e.result("Reshape", [copies, _merged(e, op.axis)])


def _merged(e: Export, axis: int) -> str:
    """The shape of the result, written so that nothing has to be computed where only rows are unknown."""
    result = e.node.results[0].shape
    others = [d for i, d in enumerate(result) if i != axis]
    if all(isinstance(d, int) and d > 0 for d in others):
        return e.shape([-1 if i == axis else d for i, d in enumerate(result)])
    return e.shape(result)
