"""Names in ONNX subgraphs, which see the tensors of the graphs around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx
from onnx import helper

__all__ = ["captured_names", "rename_nodes", "subgraphs"]


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured_names(node: onnx.NodeProto) -> list[str]:
    """The outer tensors that a node's subgraphs read, in order of first use."""
    found: dict[str, None] = {}
    for graph in subgraphs(node):
        found.update(dict.fromkeys(_free_names(graph)))
    return list(found)


def _defined(graph: onnx.GraphProto) -> list[str]:
    """What a graph itself names, apart from its nodes' results."""
    names = [v.name for v in graph.input] + [t.name for t in graph.initializer]
    return [*dict.fromkeys(names), *(s.values.name for s in graph.sparse_initializer)]


def _free_names(graph: onnx.GraphProto) -> list[str]:
    bound = set(_defined(graph))
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


def rename_nodes(
    nodes: Sequence[onnx.NodeProto],
    visible: Mapping[str, str],
    decided: Mapping[str, str],
    fresh: Callable[[str], str],
) -> dict[str, str]:
    """Gives every tensor in `nodes` and their subgraphs another name, in place.

    Args:
        visible: the names of tensors from outside.
        decided: the names of some results of `nodes`.
        fresh: makes the name of each other tensor, from the one that it has.

    Returns:
        `visible` with all results.
    """
    names = dict(visible)
    for node in nodes:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
        for graph in subgraphs(node):
            _rename_graph(graph, names, fresh)
        for i, name in enumerate(node.output):
            if name:
                node.output[i] = names[name] = decided[name] if name in decided else fresh(name)
    return names


def _rename_graph(graph: onnx.GraphProto, outer: Mapping[str, str], fresh: Callable[[str], str]) -> None:
    own = {*_defined(graph), *(name for node in graph.node for name in node.output)}
    names = {**outer, **{name: fresh(name) for name in _defined(graph)}}
    # old IR versions list initializers among the inputs, under the same name
    for value in graph.input:
        value.name = names[value.name]
    for tensor in (*graph.initializer, *(s.values for s in graph.sparse_initializer)):
        tensor.name = names[tensor.name]
    names = rename_nodes(graph.node, names, {}, fresh)
    for value in graph.value_info:
        value.name = names.get(value.name, value.name)
    del graph.quantization_annotation[:]
    for output in graph.output:
        if output.name in own:
            output.name = names[output.name]
        else:
            # a subgraph that returns an outer tensor as it is needs a name of its own for it
            returned = fresh(f"{output.name}_returned")
            graph.node.append(helper.make_node("Identity", [names.get(output.name, output.name)], [returned]))
            output.name = returned
