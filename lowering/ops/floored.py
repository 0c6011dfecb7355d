"""Quotients with a floor under the divisor, as their parts."""

from __future__ import annotations

from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.ops import floored

__all__: list[str] = []

lower_alike("Div", floored.PartOfSum)


@exporter(floored.FlooredDiv)
def _write_floored(e: Export, op: floored.FlooredDiv) -> None:
    floor = e.constant(op.low, e.operand().dtype.numpy)
    e.result("Div", [e.inputs[0], e.add("Max", [e.inputs[1], floor])])
