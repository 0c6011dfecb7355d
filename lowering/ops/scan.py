"""Loops."""

from __future__ import annotations

import onnx

from irshap.ir.core import Graph, Output, Value
from irshap.lowering.emission import emit_into
from irshap.lowering.emitter import Emission, Export, exporter
from irshap.ops import conv, scan
from irshap.ops.program import Constant

__all__ = ["own_constants"]


@exporter(scan.Scan)
def _write_scan(e: Export, op: scan.Scan) -> None:
    """The body is a subgraph: what it captures is read there under its name out here, unless it's closed."""
    inner, body = e.emitter.inner(closed=op.closed), op.body
    passed = op.carried + op.scanned
    where: dict[Value, str] = dict(zip(body.inputs[passed:], e.inputs[passed:], strict=True))
    for value in body.inputs[:passed]:
        where[value] = inner.fresh(str(value.name))
        inner.know(where[value], value.type)
    unshared = own_constants(body)
    for node in () if op.closed else body.nodes:
        if isinstance(node.op, Constant) and node.results[0] not in unshared:
            known = e.emitter.initializers.get(node.op.value)
            if known is not None:
                where[node.results[0]] = known[0]
    outputs = [Output(inner.fresh(o.name), o.value) for o in body.outputs]
    starts = emit_into(inner, [n for n in body.nodes if n.results[0] not in where], outputs, where)
    subgraph = onnx.GraphProto(name=body.name)
    inner.fill(subgraph, [(where[v], v.type) for v in body.inputs[:passed]], outputs)
    turned: dict[str, list[int]] = {}
    if op.last_first:
        turned["scan_input_directions"] = [1] * op.scanned
        if made := len(body.outputs) - op.carried:
            turned["scan_output_directions"] = [1] * made
    e.result("Scan", e.inputs[:passed], body=subgraph, num_scan_inputs=op.scanned, **turned)
    e.emitter.bodies[e.emitter.nodes[-1].name] = Emission(outputs, inner, where, starts)


def own_constants(body: Graph) -> set[Value]:
    """The constants of a body that can't be shared with the graph around it: weights of convolutions.

    ONNX Runtime runs a convolution in its blocked layout only where its weights are initializers of the very
    graph that it stands in.
    """
    read = {v for n in body.nodes if isinstance(n.op, conv.Conv) for v in n.operands}
    return {v for v in read if isinstance(v.node.op, Constant)}
