"""Logic, tests and rounding."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.lowering.alike import alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.ops import logic

__all__: list[str] = []

alike("And", logic.And)
alike("Ceil", logic.Ceil)
alike("Equal", logic.Equal)
alike("Floor", logic.Floor)
alike("Greater", logic.Greater)
alike("GreaterOrEqual", logic.GreaterOrEqual)
alike("IsNaN", logic.IsNaN)
alike("Less", logic.Less)
alike("LessOrEqual", logic.LessOrEqual)
alike("Not", logic.Not)
alike("Or", logic.Or)
alike("Round", logic.Round)
alike("Sign", logic.Sign)
alike("Xor", logic.Xor)


@importer("IsInf")
def _read_is_inf(n: Import) -> Value:
    sides = (bool(n.attribute(f"detect_{side}", 1)) for side in ("negative", "positive"))
    return n.one(logic.IsInf(*sides), n.tensor())


@exporter(logic.IsInf)
def _write_is_inf(e: Export, op: logic.IsInf) -> None:
    e.result("IsInf", [e.wide()], detect_negative=int(op.negative), detect_positive=int(op.positive))


@importer("Mod")
def _read_mod(n: Import) -> Value:
    return n.one(logic.Mod(bool(n.attribute("fmod", 0))), n.tensor(0), n.tensor(1))


@exporter(logic.Mod)
def _write_mod(e: Export, op: logic.Mod) -> None:
    e.result("Mod", e.inputs, fmod=int(op.truncated))
