"""Arithmetic, comparisons and choices, element by element."""

from __future__ import annotations

from irshap.ir.core import Op, Value
from irshap.lowering.alike import alike, lower_alike
from irshap.lowering.importer import Import, importer
from irshap.ops import arithmetic

__all__: list[str] = []

alike("Abs", arithmetic.Abs)
alike("Add", arithmetic.Add)
alike("Div", arithmetic.Div)
alike("Mul", arithmetic.Mul)
alike("Neg", arithmetic.Neg)
alike("Sub", arithmetic.Sub)
alike("Where", arithmetic.Where)
lower_alike("Div", arithmetic.Ratio)
lower_alike("Max", arithmetic.Max)
lower_alike("Min", arithmetic.Min)
lower_alike("Div", arithmetic.Share)


_FOLDED: dict[str, Op] = {
    "Max": arithmetic.Max(),
    "Mean": arithmetic.Add(),
    "Min": arithmetic.Min(),
    "Sum": arithmetic.Add(),
}


@importer(*_FOLDED)
def _read_folded(n: Import) -> Value:
    """Several operands, two at a time from the left: the order that rules of two operands depend on."""
    first, *rest = n.given()
    for value in rest:
        first = n.one(_FOLDED[n.proto.op_type], first, value)
    return first / float(len(rest) + 1) if n.proto.op_type == "Mean" else first
