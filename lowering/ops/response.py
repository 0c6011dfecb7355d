"""Normalization by p-norms, and by neighbouring channels."""

from __future__ import annotations

import math

from irshap.ir.core import Value
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.lowering.ops.reduce import reduced
from irshap.ops import response

__all__: list[str] = []

lower_alike("LRN", response.LRN)


@importer("LpNormalization")
def _read_lp_normalization(n: Import) -> Value:
    return n.one(response.LpNormalization(n.axis(n.attribute("axis", -1)), n.attribute("p", 2)), n.tensor())


@exporter(response.LpNormalization)
def _write_lp_normalization(e: Export, op: response.LpNormalization) -> None:
    if e.opset < 22:
        e.result("LpNormalization", e.inputs, axis=op.axis, p=op.p)
        return
    # older releases of ONNX Runtime that know opset 22 have no kernel for its form: x/n, and 0 where n is 0
    norm = reduced(e, f"ReduceL{op.p}", e.inputs[0], [op.axis], axes_input_since=18)
    divisor = e.add("Where", [e.add("Equal", [norm, e.number(0.0)]), e.number(math.inf), norm])
    e.result("Div", [e.inputs[0], divisor])


@importer("LRN")
def _read_lrn(n: Import) -> Value:
    alpha, beta, bias = (n.attribute(k, v) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return n.one(response.LRN(alpha, beta, bias, n.attributes["size"]), n.tensor())
