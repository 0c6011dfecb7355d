"""Numbers kept apart by their last digit."""

from __future__ import annotations

from irshap.lowering.emitter import Export, exporter
from irshap.ops import apart

__all__: list[str] = []


@exporter(apart.Even)
def _write_even(e: Export, op: apart.Even) -> None:
    e.result("Mul", _even(e))


@exporter(apart.Odd)
def _write_odd(e: Export, op: apart.Odd) -> None:
    dtype = e.operand().dtype.numpy
    least = apart.smallest(dtype)
    even = e.add("Mul", _even(e))
    moved = e.add("Add", [even, e.add("Mul", [even, e.number(apart.step(dtype))])])
    close = e.add("Less", [e.add("Abs", [even]), e.number(least)])
    e.result("Where", [close, e.number(least if op.positive else -least), moved])


def _even(e: Export) -> list[str]:
    """The two factors of an even number."""
    (x,) = e.inputs
    rest = e.add("Sub", [x, e.add("Mul", [x, e.number(0.25)])])
    return [e.add("Sub", [x, rest]), e.number(4.0)]
