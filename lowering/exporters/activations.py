"""How activation functions are written in ONNX.

An op that ONNX has only from a later opset on is written as its parts in an earlier one: it never raises the
opset of a file that could do without it.
"""

from __future__ import annotations

from dataclasses import fields
from math import pi
from typing import Any

from irshap.ir.types import DType
from irshap.lowering.emitter import Export, exporter
from irshap.ops import activations, gated

__all__: list[str] = []

_SAME_ATTRIBUTES: dict[type, str] = {
    activations.HardSigmoid: "HardSigmoid",
    activations.LeakyRelu: "LeakyRelu",
    activations.PRelu: "PRelu",
    activations.Selu: "Selu",
    activations.ThresholdedRelu: "ThresholdedRelu",
    gated.Erf: "Erf",
    gated.Softsign: "Softsign",
}


@exporter(*_SAME_ATTRIBUTES)
def _same_attributes(e: Export, op: Any) -> None:
    e.result(_SAME_ATTRIBUTES[type(op)], e.inputs, **{f.name: getattr(op, f.name) for f in fields(op)})


def number(e: Export, value: float) -> str:
    """A scalar of the operand's element type."""
    return e.constant(value, e.operand().dtype.numpy)


@exporter(activations.Celu)
def _celu(e: Export, op: activations.Celu) -> None:
    if e.operand().dtype is DType.F32:
        e.result("Celu", e.inputs, alpha=op.alpha)
        return
    # ONNX has it for float32 only
    inner = e.add("Elu", [e.add("Div", [e.inputs[0], number(e, op.alpha)])])
    e.result("Mul", [inner, number(e, op.alpha)])


@exporter(activations.Clip)
def _clip(e: Export, op: activations.Clip) -> None:
    bounds = ["" if b is None else number(e, b) for b in (op.low, op.high)]
    while bounds and not bounds[-1]:
        bounds.pop()
    e.result("Clip", [*e.inputs, *bounds])


@exporter(gated.HardSwish)
def _hard_swish(e: Export, op: gated.HardSwish) -> None:
    if e.opset >= 14:
        e.result("HardSwish", e.inputs)
        return
    gate = e.add("HardSigmoid", e.inputs, alpha=1 / 6, beta=0.5)
    e.result("Mul", [e.inputs[0], gate])


@exporter(gated.Swish)
def _swish(e: Export, op: gated.Swish) -> None:
    if e.opset >= 24:
        e.result("Swish", e.inputs, alpha=op.alpha)
        return
    scaled = e.inputs[0] if op.alpha == 1 else e.add("Mul", [e.inputs[0], number(e, op.alpha)])
    e.result("Mul", [e.inputs[0], e.add("Sigmoid", [scaled])])


@exporter(gated.Mish)
def _mish(e: Export, op: gated.Mish) -> None:
    if e.opset >= 18:
        e.result("Mish", e.inputs)
        return
    gate = e.add("Tanh", [e.add("Softplus", e.inputs)])
    e.result("Mul", [e.inputs[0], gate])


@exporter(gated.Gelu)
def _gelu(e: Export, op: gated.Gelu) -> None:
    # ONNX Runtime has no double kernel, and expands it with float32 constants
    if e.opset >= 20 and e.operand().dtype is not DType.F64:
        e.result("Gelu", e.inputs, approximate="tanh" if op.tanh else "none")
        return
    (x,) = e.inputs
    if op.tanh:
        square = e.add("Mul", [e.add("Mul", [x, x]), number(e, 0.044715)])
        cubic = e.add("Mul", [x, e.add("Add", [square, number(e, 1.0)])])
        inner = e.add("Tanh", [e.add("Mul", [cubic, number(e, (2 / pi) ** 0.5)])])
    else:
        inner = e.add("Erf", [e.add("Mul", [x, number(e, 0.5**0.5)])])
    gate = e.add("Mul", [e.add("Add", [inner, number(e, 1.0)]), number(e, 0.5)])
    e.result("Mul", [x, gate])
