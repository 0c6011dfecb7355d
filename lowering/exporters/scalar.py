"""How powers, trigonometry, logic and rounding are written in ONNX."""

from __future__ import annotations

from irshap.lowering.emitter import Export, exporter
from irshap.ops import logic, power, trigonometry

__all__: list[str] = []

_PLAIN: dict[type, str] = {
    logic.And: "And",
    logic.Ceil: "Ceil",
    logic.Floor: "Floor",
    logic.GreaterOrEqual: "GreaterOrEqual",
    logic.IsNaN: "IsNaN",
    logic.LessOrEqual: "LessOrEqual",
    logic.Not: "Not",
    logic.Or: "Or",
    logic.Round: "Round",
    logic.Sign: "Sign",
    logic.Xor: "Xor",
    power.Pow: "Pow",
    power.Reciprocal: "Reciprocal",
    trigonometry.Acos: "Acos",
    trigonometry.Acosh: "Acosh",
    trigonometry.Asin: "Asin",
    trigonometry.Asinh: "Asinh",
    trigonometry.Atan: "Atan",
    trigonometry.Atanh: "Atanh",
    trigonometry.Cos: "Cos",
    trigonometry.Cosh: "Cosh",
    trigonometry.Sin: "Sin",
    trigonometry.Sinh: "Sinh",
    trigonometry.Tan: "Tan",
}


@exporter(*_PLAIN)
def _plain(e: Export, op: object) -> None:
    e.result(_PLAIN[type(op)], e.inputs)


@exporter(power.Power)
def _power(e: Export, op: power.Power) -> None:
    e.result("Pow", [*e.inputs, e.constant(op.exponent, e.operand().dtype.numpy)])


@exporter(logic.IsInf)
def _is_inf(e: Export, op: logic.IsInf) -> None:
    e.result("IsInf", [e.wide()], detect_negative=int(op.negative), detect_positive=int(op.positive))


@exporter(logic.Mod)
def _mod(e: Export, op: logic.Mod) -> None:
    e.result("Mod", e.inputs, fmod=int(op.truncated))
