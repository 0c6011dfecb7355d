"""A part of an ONNX model: what some of its outputs need."""

from __future__ import annotations

from collections.abc import Collection

import onnx

from irshap.lowering.files.scopes import captured_names

__all__ = ["cut_to"]


def cut_to(model: onnx.ModelProto, outputs: Collection[str]) -> onnx.ModelProto:
    """The model with these of its outputs alone, and with the nodes, inputs and weights that they need.

    `model` is changed: ONNX Runtime runs every node of a graph, whichever outputs are asked for.
    """
    graph = model.graph
    needed, kept = set(outputs), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for name in (*node.input, *captured_names(node)) if name)
    part = onnx.GraphProto(
        name=graph.name,
        node=kept[::-1],
        output=[o for o in graph.output if o.name in outputs],
        input=[i for i in graph.input if i.name in needed],
        initializer=[t for t in graph.initializer if t.name in needed],
        value_info=[v for v in graph.value_info if v.name in needed],
    )
    part.sparse_initializer.extend(s for s in graph.sparse_initializer if s.values.name in needed)
    model.graph.CopyFrom(part)
    return model
