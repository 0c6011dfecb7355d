"""Softmax, its logarithm, and its limit."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.ir.dims import product
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.ops import softmax
from irshap.ops.shape import reshape

__all__: list[str] = []

_KINDS: dict[str, type[softmax.Softmax] | type[softmax.LogSoftmax] | type[softmax.Hardmax]] = {
    "Hardmax": softmax.Hardmax,
    "LogSoftmax": softmax.LogSoftmax,
    "Softmax": softmax.Softmax,
}
for _kind, _cls in _KINDS.items():
    lower_alike(_kind, _cls)


@exporter(softmax.MaskedSoftmax)
def _write_masked(e: Export, op: softmax.MaskedSoftmax) -> None:
    y = e.add("Softmax", e.inputs, axis=op.axis)
    e.result("Where", [e.add("IsNaN", [y]), e.number(0.0), y])


@importer(*_KINDS)
def _read_softmax(n: Import) -> Value:
    """Before opset 13 all axes from `axis` on count as one."""
    x, make = n.tensor(), _KINDS[n.proto.op_type]
    if n.opset >= 13:
        return n.one(make(n.axis(n.attribute("axis", -1))), x)
    given = n.attribute("axis", 1)
    axis = given + x.rank if given < 0 else given
    wide = [a for a in range(axis, x.rank) if x.shape[a] != 1]
    if len(wide) == 1:
        return n.one(make(wide[0]), x)
    flat = reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))
    return reshape(n.one(make(1), flat), x.shape)
