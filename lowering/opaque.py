"""ONNX nodes that irshap doesn't model: carried through as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx
from onnx import helper

from irshap.errors import ModelError
from irshap.graph import Node
from irshap.lowering.emitter import Emitter, onnx_type
from irshap.types import Array, DType, TensorType

if TYPE_CHECKING:
    from irshap.ops.program import Opaque

__all__ = ["captured_names", "emit_opaque", "run_opaque"]


def captured_names(node: onnx.NodeProto) -> list[str]:
    """The outer tensors that a node's subgraphs read, in order of first use."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            for name in _free_names(graph):
                found.setdefault(name)
    return list(found)


def _free_names(graph: onnx.GraphProto) -> list[str]:
    bound = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    free: dict[str, None] = {}
    for node in graph.node:
        for name in [*node.input, *captured_names(node)]:
            if name and name not in bound:
                free.setdefault(name)
        bound.update(node.output)
    for output in graph.output:
        if output.name not in bound:
            free.setdefault(output.name)
    return list(free)


def _rename_captures(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Gives captured tensors their names in the lowered graph; names that the subgraph binds itself hide them."""
    bound = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    visible = {k: v for k, v in names.items() if k not in bound}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = visible.get(name, name)
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _rename_captures(inner, visible)
        visible = {k: v for k, v in visible.items() if k not in node.output}


def _local_names(graph: onnx.GraphProto, taken: set[str]) -> None:
    """Collects the names that a subgraph defines, which no outer tensor may be given."""
    taken.update(t.name for t in graph.initializer)
    taken.update(v.name for v in graph.input)
    for node in graph.node:
        taken.update(node.output)
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                _local_names(inner, taken)


def emit_opaque(emitter: Emitter, node: Node, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Writes an opaque node back with its tensors' new names.

    Raises:
        ModelError: the op's definition changed between the source's opset and the one written.
    """
    op: Opaque = node.op  # type: ignore[assignment]
    proto = onnx.NodeProto()
    proto.ParseFromString(op.proto)
    if op.domain == "" and _since(op.kind, op.opset) != _since(op.kind, emitter.opset):
        raise ModelError(
            f"{op.kind} changed between opset {op.opset} and {emitter.opset}, which the other nodes need",
            where=node.label,
            mend=f"Export the model at opset {emitter.opset}, or convert it with onnx.version_converter",
        )
    given, captured = list(inputs[: sum(op.present)]), inputs[sum(op.present) :]
    names = iter(given)
    results = iter(outputs)
    del proto.input[:], proto.output[:]
    proto.input.extend(next(names) if present else "" for present in op.present)
    proto.output.extend(next(results) if present else "" for present in op.outputs)
    _bind_captures(emitter, proto, dict(zip(op.captures, captured, strict=True)))
    proto.name = node.origin[0] if node.origin else outputs[0]
    emitter.nodes.append(proto)


def _bind_captures(emitter: Emitter, proto: onnx.NodeProto, names: Mapping[str, str]) -> None:
    graphs = [g for a in proto.attribute for g in ([a.g] if a.HasField("g") else []) + list(a.graphs)]
    taken: set[str] = set()
    for graph in graphs:
        _local_names(graph, taken)
    safe = {}
    for old, new in names.items():
        if new in taken:
            alias = emitter.fresh(new + "_outer")
            while alias in taken:
                alias = emitter.fresh(new + "_outer")
            emitter.add("Identity", [new], [alias])
            new = alias
        safe[old] = new
    for graph in graphs:
        _rename_captures(graph, safe)
        for output in graph.output:
            # a subgraph that returns an outer tensor as it is needs a name of its own for it
            if output.name in safe and not any(output.name in n.output for n in graph.node):
                renamed = output.name + "_returned"
                graph.node.append(helper.make_node("Identity", [safe[output.name]], [renamed]))
                output.name = renamed


def _since(kind: str, opset: int) -> int:
    return onnx.defs.get_schema(kind, opset, "").since_version if onnx.defs.has(kind, "") else 0


def run_opaque(op: Opaque, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Runs one opaque node on arrays, with ONNX Runtime."""
    import onnxruntime

    proto = onnx.NodeProto()
    proto.ParseFromString(op.proto)
    names = iter([f"operand_{i}" for i in range(sum(op.present))])
    del proto.input[:]
    proto.input.extend(next(names) if present else "" for present in op.present)
    feeds = [*(n for n in proto.input if n), *op.captures]
    types = [onnx_type(TensorType(DType.of(a), a.shape)) for a in arrays]
    graph = helper.make_graph(
        [proto],
        "opaque",
        [helper.make_value_info(n, t) for n, t in zip(feeds, types, strict=True)],
        [onnx.ValueInfoProto(name=n) for n in proto.output if n],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(op.domain, op.opset)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return tuple(session.run(None, dict(zip(feeds, arrays, strict=True))))
