"""How loops are written in ONNX."""

from __future__ import annotations

import onnx
from onnx import helper

from irshap.graph import Output, Value
from irshap.lowering.emitter import Export, exporter, onnx_type
from irshap.ops import scan

__all__: list[str] = []


@exporter(scan.Scan)
def _scan(e: Export, op: scan.Scan) -> None:
    """The body is a subgraph: what it captures is read there under its name out here."""
    from irshap.lowering.lower import emit_into

    inner, body = e.emitter.inner(), op.body
    passed = op.carried + op.scanned
    where: dict[Value, str] = dict(zip(body.inputs[passed:], e.inputs[passed:], strict=True))
    for value in body.inputs[:passed]:
        where[value] = inner.fresh(str(value.name))
        inner.know(where[value], value.type)
    outputs = [Output(inner.fresh(o.name), o.value) for o in body.outputs]
    emit_into(inner, body.nodes, outputs, where)
    subgraph = onnx.GraphProto(name=body.name, node=inner.nodes)
    for value in body.inputs[:passed]:
        subgraph.input.append(helper.make_value_info(where[value], onnx_type(value.type)))
    for output in outputs:
        subgraph.output.append(helper.make_value_info(output.name, onnx_type(output.value.type)))
    e.result("Scan", e.inputs[:passed], body=subgraph, num_scan_inputs=op.scanned)
