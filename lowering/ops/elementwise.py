"""Smooth functions, and Relu."""

from __future__ import annotations

from irshap.lowering.alike import alike
from irshap.lowering.emitter import Export, exporter
from irshap.ops import elementwise

__all__: list[str] = []

alike("Elu", elementwise.Elu, alpha=1.0)
alike("Exp", elementwise.Exp)
alike("Log", elementwise.Log)
alike("Relu", elementwise.Relu)
alike("Sigmoid", elementwise.Sigmoid)
alike("Softplus", elementwise.Softplus)
alike("Sqrt", elementwise.Sqrt)
alike("Tanh", elementwise.Tanh)


@exporter(elementwise.Logistic)
def _write_logistic(e: Export, op: elementwise.Logistic) -> None:
    power = e.add("Exp", [e.add("Neg", e.inputs)])
    e.result("Reciprocal", [e.add("Add", [power, e.number(1.0)])])
