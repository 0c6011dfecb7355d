"""What keeps the sample's value unasked: what goes past the attributed tensors, and states.

A text model reads its token ids twice: in the embedding, which is attributed, and beside it, for the mask of
what isn't padding, positions counted from that, and the last position to pool at.  A recurrent model reads
the state that its last call returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from irshap.attribution.sources import Attributed, model_inputs
from irshap.ir.builder import current, emit1
from irshap.ir.core import Graph, Node, Output, Role, Value
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import TensorType
from irshap.ir.walks import is_float, upstream, varying_values
from irshap.ops.program import Hold, Input, batch_from_shape
from irshap.ops.recurrent import Recurrent
from irshap.ops.shape import Move

__all__ = ["SidePath", "side_paths", "states", "with_side_paths_held"]


@dataclass(frozen=True)
class SidePath:
    """`node` takes `operand`, of which attributed tensors are computed too, past these."""

    node: Node
    operand: Value

    @property
    def text(self) -> str:
        """Which input, and where it goes past."""
        names = sorted(str(v.name) for v in _inputs([self.operand]))
        return f"{', '.join(names)} in {self.node.label}"


def side_paths(graph: Graph, sources: Sequence[Value], targets: Sequence[Value]) -> Iterator[SidePath]:
    """All paths from the inputs of `sources`, one cut, that reach a target past it, where they leave it."""
    above = upstream(sources)
    moving = varying_values(graph.nodes, _inputs(sources))
    reaching = upstream(targets, cut=sources)
    for node in graph.nodes:
        results = [v for v in node.results if v in reaching and v not in sources]
        if not node.op.stops_change and any(v not in above for v in results):
            taken = (v for v in node.operands if v in moving and v in above and v not in sources)
            yield from (SidePath(node, v) for v in dict.fromkeys(taken))


def states(graph: Graph, targets: Sequence[Value]) -> dict[str, str]:
    """The float inputs of `targets` that carry no samples, where others count these first, and what they are.

    Those without an axis of samples, f32[layers, 1, H], which all samples share; and those with it behind
    another, f32[layers, N, H], from which a recurrent op starts, or of which another output alike and called
    after it returns the next (state and stateN, h and hn).
    """
    above = upstream(targets)
    places = {v: _samples_axis(v) for v in model_inputs(graph) if v in above}
    if 0 not in places.values():
        return {}
    others = [v for n in graph.nodes if not isinstance(n.op, Move) for v in n.results]
    starts = upstream(_starts(graph), cut=others)
    returned = [o for o in graph.outputs_of(Role.MODEL) if is_float(o.value) and o.value not in targets]
    found = {}
    for v, place in places.items():
        if not is_float(v) or v.rank < 2 or place == 0:
            continue
        if place is None:
            found[str(v.name)] = "which all samples share"
        elif v in starts or any(_is_next(o, v) for o in returned):
            found[str(v.name)] = "a recurrent state"
    return found


def _is_next(output: Output, state: Value) -> bool:
    """Whether an output is a state as it is after the call."""
    alike = output.value.rank == state.rank and _samples_axis(output.value) == _samples_axis(state)
    return alike and output.name.startswith(str(state.name))


def _starts(graph: Graph) -> Iterator[Value]:
    """What recurrent ops start from."""
    for node in graph.nodes:
        if isinstance(node.op, Recurrent):
            yield from node.operands[4 : 4 + node.op.states]


def _samples_axis(value: Value) -> int | None:
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    return batch_from_shape(shape or ())


def _inputs(values: Sequence[Value]) -> list[Value]:
    return [v for v in upstream(values) if isinstance(v.node.op, Input) and v.node.op.kind == "model"]


def with_side_paths_held(
    graph: Graph, sources: Sequence[Attributed], targets: Sequence[Value]
) -> tuple[Graph, list[Attributed], list[SidePath]]:
    """The graph in which integers and truth values that go past `sources` keep the sample's value.

    Only those that follow from integer inputs: a float input that goes past is attributed nowhere, which
    stays an error.  Returns where the sources are in it, and what is held.
    """
    found = [
        path
        for path in side_paths(graph, [s.value for s in sources], targets)
        if not is_float(path.operand) and not any(map(is_float, _inputs([path.operand])))
    ]
    if not found:
        return graph, list(sources), []
    held = {(path.node, path.operand) for path in found}
    places: dict[Value, Value] = {}

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...]:
        own = {v: emit1(Hold(), mapping[v]) if (node, v) in held else mapping[v] for v in node.operands}
        results = current().copy(node, own)
        places.update(zip(node.results, results, strict=True))
        return results

    return map_nodes(graph, visit), [replace(s, value=places[s.value]) for s in sources], found
