"""Closed programs, spelled out again."""

from __future__ import annotations

from irshap.ir.core import Output
from irshap.lowering.emission import emit_into
from irshap.lowering.emitter import Export, exporter
from irshap.ops.by_row import ByRow
from irshap.ops.closed import Closed
from irshap.ops.piecewise import Piecewise

__all__: list[str] = []


@exporter(Piecewise, ByRow)
def _write_closed(e: Export, op: Closed) -> None:
    """The body's nodes, where the op stands."""
    where = dict(zip(op.body.inputs, e.inputs, strict=True))
    emit_into(e.emitter, op.body.nodes, [Output(e.outputs[0], op.result)], where)
