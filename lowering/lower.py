"""Graph -> ModelProto."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from irshap.contract import VERSION, Metadata, Tensors, Training
from irshap.ir.core import Graph, Output, Role
from irshap.lowering.emission import emit_nodes
from irshap.lowering.emitter import Emitter, FreshNames
from irshap.lowering.files.convert import ir_version_for
from irshap.lowering.files.halves import half_of, with_halves
from irshap.lowering.files.scopes import captured_names
from irshap.lowering.files.wire import resident
from irshap.lowering.opaque import used_domains
from irshap.ops.program import MASK, PARAMETER, PLACES, STATE, TRAINING, Input, Opaque
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Lower", "lower", "lowered"]


@dataclass(frozen=True)
class Lower(Pass):
    """Writes the graph as an ONNX model: standard ops only, lowest opset that serves, always the same bytes.

    What is computed in float32 of a model in half precision keeps its weights in half.

    `opset`: the lowest one wanted; 0 for no wish.  It is never below the source model's.
    """

    opset: int = 0
    name = "lower"
    semantics = Semantics.PRESERVES
    gives = "model"

    def run(self, ir: Graph, context: Context) -> onnx.ModelProto:
        model, kind = lowered(ir, opset=self.opset, metadata=context.metadata), half_of(context.source)
        model = with_halves(model, kind) if kind else model
        return model if context.keeps_graph else resident(model)


def lower(graph: Graph, *, opset: int = 0, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """As `lowered`, with all data in the model."""
    return resident(lowered(graph, opset=opset, metadata=metadata))


def lowered(graph: Graph, *, opset: int = 0, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Lowers a graph to ONNX; large constants stay where the graph has them, and must be kept there.

    Args:
        opset: the lowest acceptable opset; raised to the source's, and where the graph's ops need more.
        metadata: key-value pairs for the model's metadata.

    Raises:
        UserError: an op or output has no form in ONNX at this opset.
    """
    emission = emit_nodes(graph, opset=opset)
    given = {**dict(graph.source.metadata), **(metadata or {})}
    if tensors := _roles(graph, emission.outputs):
        # a model that was compiled before may have brought its own
        given.pop(Metadata.TENSORS, None)
        names = [str(v.name) for v in graph.inputs], [o.name for o in emission.outputs]
        if tensors != Tensors.by_name(*names):
            given[Metadata.TENSORS] = tensors.to_text()
        _name_by_part(emission.emitter.nodes, [o.name for o in emission.outputs if o.role is Role.MODEL])
    if step := _step(graph, emission.outputs):
        given[Metadata.TRAINING] = step.to_text()
    return _model(graph, emission.outputs, emission.emitter, given)


def _step(graph: Graph, outputs: list[Output]) -> Training | None:
    """What the inputs and outputs of a training step are for; None for another program."""
    by_role = {role: [o for o in outputs if o.role is role] for role in Role}
    if not by_role[Role.LOSS]:
        return None
    made = {str(o.of): o.name for role in (Role.GRADIENT, Role.NEXT) for o in by_role[role]}
    ops = [v.node.op for v in graph.inputs if isinstance(v.node.op, Input)]

    def named(kind: str) -> dict[str, str]:
        """The inputs of a kind, by what they are for."""
        return {op.of: op.name for op in ops if op.kind == kind and op.of is not None}

    return Training(
        parameters={op.name: made.get(op.name, "") for op in ops if op.kind == PARAMETER},
        states={op.name: made.get(op.name, "") for op in ops if op.kind == STATE},
        inputs=tuple(op.name for op in ops if op.kind == "model"),
        given=named(TRAINING),
        masks=named(MASK),
        references=named("references"),
        places=named(PLACES),
        loss=by_role[Role.LOSS][0].name,
        prior=next((o.name for o in by_role[Role.PRIOR]), None),
        gradients=bool(by_role[Role.GRADIENT]),
    )


def _name_by_part(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> None:
    """Puts `forward/` before the names of nodes that the model's own outputs need, `explain/` before others'.

    Viewers group nodes by such names.
    """
    makers = {name: node for node in nodes for name in node.output}
    forward: set[str] = set()
    open_ = [makers[name] for name in outputs if name in makers]
    while open_:
        node = open_.pop()
        if node.name not in forward:
            forward.add(node.name)
            read = (*node.input, *captured_names(node))
            open_ += [makers[name] for name in read if name in makers]
    names = FreshNames()  # a model may have both a and /a
    for node in nodes:
        part = "forward" if node.name in forward else "explain"
        node.name = names.fresh(f"{part}/{_PART.sub('', node.name)}")


_PART = re.compile(r"^(?:(?:forward|explain)/|/)+")
"""What a name begins with already where the model was compiled before."""


def _roles(graph: Graph, outputs: list[Output]) -> Tensors | None:
    """Which output and which input is what; None for a program without attributions."""
    found = {role: [o for o in outputs if o.role is role] for role in Role}
    if not found[Role.ATTRIBUTION]:
        return None
    kinds: dict[str, list[Input]] = {}
    for value in graph.inputs:
        if isinstance(value.node.op, Input):
            kinds.setdefault(value.node.op.kind, []).append(value.node.op)

    def only(role: Role) -> str | None:
        return next((o.name for o in found[role]), None)

    def given(kind: str) -> str | None:
        return next((op.name for op in kinds.get(kind, ())), None)

    def each(role: Role) -> dict[str, str]:
        return {str(o.of): o.name for o in found[role]}

    return Tensors(
        attributions=each(Role.ATTRIBUTION),
        multipliers=each(Role.MULTIPLIERS),
        hypothetical=each(Role.HYPOTHETICAL),
        base_values=only(Role.BASE),
        target_index=only(Role.TARGET_INDEX),
        target_values=only(Role.VALUES),
        completeness_error=only(Role.COMPLETENESS),
        target=given("target"),
        target_weights=given("target weights"),
        reference_weights=given("weights"),
        references={str(op.of): op.name for op in kinds.get("references", ())},
        summaries={o.name: str(o.of) for o in found[Role.SUMMARY]},
    )


def _model(
    graph: Graph, outputs: list[Output], emitter: Emitter, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    versions = {d: v for n in graph.walk() if isinstance(n.op, Opaque) for d, v in n.op.opsets if d}
    used = sorted({d for node in emitter.nodes for d in used_domains(node) if d in versions})
    imports = [helper.make_opsetid("", emitter.opset), *(helper.make_opsetid(d, versions[d]) for d in used)]
    model = onnx.ModelProto(ir_version=ir_version_for(imports), opset_import=imports)
    model.graph.name = graph.name
    emitter.fill(model.graph, [(str(v.name), v.type) for v in graph.inputs], outputs)
    model.producer_name, model.producer_version = "irshap", VERSION
    model.doc_string = graph.source.doc
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    return model
