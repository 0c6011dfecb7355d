"""Graph -> ModelProto."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from irshap.contract import VERSION
from irshap.errors import UserError, near
from irshap.ir.core import Graph, Node, Output, Role, Value
from irshap.ir.dims import same
from irshap.lowering import exporters
from irshap.lowering.emitter import EXPORTERS, FLOOR, Emitter, Export, onnx_type
from irshap.lowering.files.convert import default_opset, ir_version_for
from irshap.lowering.opaque import emit_opaque, used_domains
from irshap.ops.families import ZippedElementwise
from irshap.ops.program import Constant, Input, Opaque
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Emission", "Lower", "emit_into", "emit_nodes", "lower"]

_ = exporters  # importing them registers the exporters

_PUBLISHED = (Role.MODEL, Role.ATTRIBUTION, Role.BASE, Role.TARGET_INDEX, Role.COMPLETENESS)
"""Outputs of the lowered file, in this order; the rest are intermediate facts of the pipeline."""


@dataclass(frozen=True)
class Lower(Pass):
    """Writes the graph as an ONNX model: standard ops only, lowest opset that serves, always the same bytes.

    `opset`: the lowest one wanted; 0 for no wish.  It is never below the source model's.
    """

    opset: int = 0
    name = "lower"
    semantics = Semantics.PRESERVES
    gives = "model"

    def run(self, ir: Graph, context: Context) -> onnx.ModelProto:
        return lower(ir, opset=self.opset, metadata=context.metadata)


def lower(graph: Graph, *, opset: int = 0, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Lowers a graph to ONNX.

    Args:
        opset: the lowest acceptable opset; raised to the source's, and where the graph's ops need more.
        metadata: key-value pairs for the model's metadata.

    Raises:
        UserError: an op or output has no form in ONNX at this opset.
    """
    emission = emit_nodes(graph, opset=opset)
    return _model(
        graph, emission.outputs, emission.emitter, {**dict(graph.source.metadata), **(metadata or {})}
    )


@dataclass(frozen=True)
class Emission:
    """A graph's ONNX nodes: in `emitter`, its published outputs, the names of values, and for each IR node
    the position of its first ONNX node.  Those of loops' bodies are in `emitter.bodies`."""

    outputs: list[Output]
    emitter: Emitter
    names: dict[Value, str]
    starts: list[tuple[Node, int]]


def emit_nodes(graph: Graph, *, opset: int = 0) -> Emission:
    """Emits the nodes that a graph lowers to."""
    outputs = [o for role in _PUBLISHED for o in graph.outputs if o.role is role]
    needed = _needed(graph, outputs)
    emitter = Emitter(
        max([opset, graph.source.opset or FLOOR, *map(_lowest_opset, needed)]), _reserved(graph, outputs)
    )
    where: dict[Value, str] = {}
    for value in graph.inputs:
        where[value] = str(value.name)
        emitter.know(str(value.name), value.type)
    starts = emit_into(emitter, needed, outputs, where)
    return Emission(outputs, emitter, where, starts)


def emit_into(
    emitter: Emitter, nodes: Sequence[Node], outputs: Sequence[Output], where: dict[Value, str]
) -> list[tuple[Node, int]]:
    """Emits `nodes`, and gives `outputs` their names; `where` names what is there, and gets the results.

    Returns:
        For each node the position of its first ONNX node.
    """
    made = {v for n in nodes if not isinstance(n.op, Constant) for v in n.results}
    final = {o.value: o.name for o in reversed(outputs) if o.value in made}
    used = {v for n in nodes for i, v in enumerate(n.operands) if not _spreads(n, i)}
    used |= {o.value for o in outputs}
    starts = []
    for node in nodes:
        starts.append((node, len(emitter.nodes)))
        _emit(node, emitter, where, final, used)
    for output in outputs:
        if where[output.value] != output.name:
            emitter.add("Identity", [where[output.value]], [output.name])
    return starts


def _reserved(graph: Graph, outputs: list[Output]) -> list[str]:
    """The names of inputs and outputs, which nothing else may have."""
    names = [str(v.name) for v in graph.inputs]
    # a model may return an input as it is, under its own name
    names += [o.name for o in outputs if not (isinstance(o.value.node.op, Input) and o.value.name == o.name)]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"two inputs or outputs are called {twice!r}", mend="Rename the model's tensor")
    return names


def _lowest_opset(node: Node) -> int:
    if isinstance(node.op, Opaque):
        return default_opset(node.op.opsets)
    if isinstance(node.op, Constant):
        return 0
    lowest = EXPORTERS[type(node.op)][0] if type(node.op) in EXPORTERS else FLOOR
    inside = (_lowest_opset(n) for body in node.op.bodies for n in body.nodes)
    return max([lowest(node.op) if callable(lowest) else lowest, *inside])


def _needed(graph: Graph, outputs: list[Output]) -> list[Node]:
    """The nodes that the outputs depend on, in order."""
    wanted = {o.value.node for o in outputs}
    result = []
    for node in reversed(graph.nodes):
        if node in wanted:
            wanted.update(v.node for v in node.operands)
            result.append(node)
    return result[::-1]


def _emit(
    node: Node, emitter: Emitter, where: dict[Value, str], final: Mapping[Value, str], used: set[Value]
) -> None:
    if isinstance(node.op, Constant):
        # a scalar that is only read in another shape is written in that
        if node.results[0] in used:
            where[node.results[0]] = emitter.constant(node.op.value.array, node.results[0].name)
        return
    stem = node.origin[0] if node.origin else node.op.mnemonic
    results = []
    for value in node.results:
        name = final.get(value) or emitter.fresh(
            value.name or (f"{stem}_{value.index}" if value.index else stem)
        )
        where[value] = name
        results.append(name)
    inputs = [_input(node, i, emitter, where) for i in range(len(node.operands))]
    if isinstance(node.op, Opaque):
        emit_opaque(emitter, node, inputs, results)
    elif type(node.op) in EXPORTERS:
        export = Export(emitter, node, inputs, results, used)
        EXPORTERS[type(node.op)][1](export, node.op)
    else:
        hint = near(node.op.mnemonic, [c.mnemonic for c in EXPORTERS])
        raise UserError(f"{node.op.mnemonic} has no form in ONNX; {hint}", where=node.label)
    for value, name in zip(node.results, results, strict=True):
        emitter.know(name, value.type)


def _input(node: Node, i: int, emitter: Emitter, where: Mapping[Value, str]) -> str:
    """The name of the i-th operand; a scalar spread over pooled tensors has as many axes as these."""
    value = node.operands[i]
    if not _spreads(node, i):
        return where[value]
    assert isinstance(value.node.op, Constant)
    return emitter.constant(value.node.op.value.array.reshape([1] * node.results[0].rank))


def _spreads(node: Node, i: int) -> bool:
    """Whether the i-th operand is a stored scalar beside [n, c, 1, 1].

    ONNX Runtime would go over such a tensor number by number.  With one last axis of 1 it stays a scalar:
    there, ONNX Runtime looks for the one that a layer normalization adds to the variance.
    """
    if not (isinstance(node.op, ZippedElementwise) and isinstance(node.operands[i].node.op, Constant)):
        return False
    shape = node.results[0].shape
    return not node.operands[i].shape and len(shape) > 2 and all(same(d, 1) for d in shape[-2:])


def _model(
    graph: Graph, outputs: list[Output], emitter: Emitter, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    versions = {d: v for n in graph.walk() if isinstance(n.op, Opaque) for d, v in n.op.opsets if d}
    used = sorted({d for node in emitter.nodes for d in used_domains(node) if d in versions})
    imports = [helper.make_opsetid("", emitter.opset), *(helper.make_opsetid(d, versions[d]) for d in used)]
    model = onnx.ModelProto(ir_version=ir_version_for(imports), opset_import=imports)
    model.graph.name = graph.name
    emitter.fill(model.graph)
    for value in graph.inputs:
        model.graph.input.add().CopyFrom(helper.make_value_info(str(value.name), onnx_type(value.type)))
    for output in outputs:
        model.graph.output.add().CopyFrom(helper.make_value_info(output.name, onnx_type(output.value.type)))
    model.producer_name, model.producer_version = "irshap", VERSION
    model.doc_string = graph.source.doc
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model
