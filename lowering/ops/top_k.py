"""The largest and the smallest."""

from __future__ import annotations

from collections.abc import Sequence

from irshap.ir.core import Value
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.ops import top_k

__all__: list[str] = []


@importer("TopK")
def _read_top_k(n: Import) -> Sequence[Value]:
    axis = n.axis(n.attribute("axis", -1))
    (k,) = n.ints(1) if n.opset >= 10 else [n.attributes["k"]]
    return n.emit(top_k.TopK(axis, k, bool(n.attribute("largest", 1))), n.tensor())


@exporter(top_k.TopK)
def _write_top_k(e: Export, op: top_k.TopK) -> None:
    e.result("TopK", [e.inputs[0], e.ints([op.k])], axis=op.axis, largest=int(op.largest))
