"""Running sums, and triangles of matrices."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.ops import cumulative

__all__: list[str] = []


@importer("CumSum")
def _read_cum_sum(n: Import) -> Value:
    (axis,) = n.ints(1)
    return n.one(
        cumulative.CumSum(n.axis(axis), bool(n.attribute("exclusive", 0)), bool(n.attribute("reverse", 0))),
        n.tensor(),
    )


@exporter(cumulative.CumSum)
def _write_cum_sum(e: Export, op: cumulative.CumSum) -> None:
    axis = e.constant(op.axis, "int64")
    e.narrow("CumSum", [e.wide(), axis], exclusive=int(op.exclusive), reverse=int(op.reverse))


@importer("Trilu")
def _read_trilu(n: Import) -> Value:
    (k,) = n.ints(1) if n.has(1) else [0]
    return n.one(cumulative.Trilu(bool(n.attribute("upper", 1)), k), n.tensor())


@exporter(cumulative.Trilu, opset=14)
def _write_trilu(e: Export, op: cumulative.Trilu) -> None:
    e.result("Trilu", [e.inputs[0], e.constant(op.k, "int64")], upper=int(op.upper))
