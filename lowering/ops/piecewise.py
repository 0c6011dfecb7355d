"""Functions of one number, spelled out again."""

from __future__ import annotations

from irshap.ir.core import Output
from irshap.lowering.emission import emit_into
from irshap.lowering.emitter import Export, exporter
from irshap.ops import piecewise

__all__: list[str] = []


@exporter(piecewise.Piecewise)
def _write_piecewise(e: Export, op: piecewise.Piecewise) -> None:
    """The body's nodes, where the op stands."""
    where = dict(zip(op.body.inputs, e.inputs, strict=True))
    emit_into(e.emitter, op.body.nodes, [Output(e.outputs[0], op.result)], where)
