"""Activations with a gate, Erf and Softsign.

An op that ONNX has only from a later opset on is written as its parts in an earlier one: it never raises the
opset of a file that could do without it.
"""

from __future__ import annotations

from math import pi

from irshap.ir.core import Value
from irshap.ir.types import DType
from irshap.lowering.alike import alike, lift_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.ops import gated

__all__: list[str] = []

alike("Erf", gated.Erf)
alike("Softsign", gated.Softsign)
lift_alike("HardSwish", gated.HardSwish)
lift_alike("Mish", gated.Mish)
lift_alike("Swish", gated.Swish, alpha=1.0)


@exporter(gated.HardSwish)
def _write_hard_swish(e: Export, op: gated.HardSwish) -> None:
    if e.opset >= 14:
        e.result("HardSwish", e.inputs)
        return
    gate = e.add("HardSigmoid", e.inputs, alpha=1 / 6, beta=0.5)
    e.result("Mul", [e.inputs[0], gate])


@exporter(gated.Swish)
def _write_swish(e: Export, op: gated.Swish) -> None:
    if e.opset >= 24:
        e.result("Swish", e.inputs, alpha=op.alpha)
        return
    scaled = e.inputs[0] if op.alpha == 1 else e.add("Mul", [e.inputs[0], e.number(op.alpha)])
    e.result("Mul", [e.inputs[0], e.add("Sigmoid", [scaled])])


@exporter(gated.Mish)
def _write_mish(e: Export, op: gated.Mish) -> None:
    if e.opset >= 18:
        e.result("Mish", e.inputs)
        return
    gate = e.add("Tanh", [e.add("Softplus", e.inputs)])
    e.result("Mul", [e.inputs[0], gate])


@importer("Gelu")
def _read_gelu(n: Import) -> Value:
    return n.one(gated.Gelu(n.attribute("approximate", "none") == "tanh"), n.tensor())


@exporter(gated.Gelu)
def _write_gelu(e: Export, op: gated.Gelu) -> None:
    # ONNX Runtime has no double kernel, and expands it with float32 constants
    if e.opset >= 20 and e.operand().dtype is not DType.F64:
        e.result("Gelu", e.inputs, approximate="tanh" if op.tanh else "none")
        return
    (x,) = e.inputs
    if op.tanh:
        square = e.add("Mul", [e.add("Mul", [x, x]), e.number(0.044715)])
        cubic = e.add("Mul", [x, e.add("Add", [square, e.number(1.0)])])
        inner = e.add("Tanh", [e.add("Mul", [cubic, e.number((2 / pi) ** 0.5)])])
    else:
        inner = e.add("Erf", [e.add("Div", [x, e.number(2**0.5)])])
    # in this order ONNX Runtime sees that it is one op
    gate = e.add("Add", [inner, e.number(1.0)])
    e.result("Mul", [e.add("Mul", [x, gate]), e.number(0.5)])
