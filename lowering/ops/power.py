"""Powers."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.lowering.alike import alike, lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import power
from irshap.ops.cast import cast
from irshap.ops.program import Constant

__all__: list[str] = []

alike("Reciprocal", power.Reciprocal)
lower_alike("Pow", power.Pow)


@importer("Pow")
def _read_pow(n: Import) -> Value:
    """One constant exponent for all elements is an attribute; others have the base's element type."""
    base, exponent = n.tensor(0), n.tensor(1)
    if base.dtype.is_float:
        constant = exponent.node.op
        if isinstance(constant, Constant) and constant.value.array.size == 1 and exponent.rank <= base.rank:
            return n.one(power.Power(float(constant.value.array.item())), base)
        return n.one(power.Pow(), base, cast(exponent, base.dtype))
    if base.dtype is not exponent.dtype:
        raise Unmodeled(f"a power of {base.dtype.value} with an exponent in {exponent.dtype.value}")
    return n.one(power.Pow(), base, exponent)


@exporter(power.Power)
def _write_power(e: Export, op: power.Power) -> None:
    e.result("Pow", [*e.inputs, e.number(op.exponent)])
