"""Graph -> ONNX nodes: those of a program, and those of a loop's body inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irshap.errors import UserError, near
from irshap.ir.core import PUBLISHED, Graph, Node, Output, Value
from irshap.ir.dims import same
from irshap.ir.walks import live
from irshap.lowering.emitter import EXPORTERS, FLOOR, Emission, Emitter, Export
from irshap.lowering.files.convert import default_opset
from irshap.lowering.opaque import emit_opaque
from irshap.ops.families import ZippedElementwise
from irshap.ops.program import Constant, Input, Opaque
from irshap.ops.reduce import ReduceMean

__all__ = ["emit_into", "emit_nodes"]


def emit_nodes(graph: Graph, *, opset: int = 0) -> Emission:
    """Emits the nodes that a graph lowers to."""
    outputs = [o for role in PUBLISHED for o in graph.outputs if o.role is role]
    needed = live(graph.nodes, (o.value for o in outputs))
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


def _emit(
    node: Node, emitter: Emitter, where: dict[Value, str], final: Mapping[Value, str], used: set[Value]
) -> None:
    if isinstance(node.op, Constant):
        # a scalar that is only read in another shape is written in that
        if node.results[0] in used:
            where[node.results[0]] = emitter.constant(node.op.value.array, node.results[0].name, owned=True)
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
    """The name of the i-th operand; a scalar spread over columns has as many axes as these."""
    value = node.operands[i]
    if not _spreads(node, i):
        return where[value]
    assert isinstance(value.node.op, Constant)
    return emitter.constant(value.node.op.value.array.reshape([1] * node.results[0].rank))


def _spreads(node: Node, i: int) -> bool:
    """Whether the i-th operand is a stored scalar beside [..., n, 1].

    ONNX Runtime would go over such a tensor number by number.  Beside a mean it stays a scalar: there, ONNX
    Runtime looks for the one that a layer normalization adds to the variance.
    """
    if not (isinstance(node.op, ZippedElementwise) and isinstance(node.operands[i].node.op, Constant)):
        return False
    shape = node.results[0].shape
    if node.operands[i].shape or len(shape) < 3 or not same(shape[-1], 1):
        return False
    return same(shape[-2], 1) or not any(isinstance(v.node.op, ReduceMean) for v in node.operands)
