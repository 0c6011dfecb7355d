"""What a graph computes, moves and stores: FLOPs and bytes of each node, as expressions in N and R.

Conventions: a fused multiply-add counts 2 FLOPs, an elementary function 1.  Bytes moved are what a node
reads and writes when nothing stays in a cache.  A node runs in the *forward* phase when the model's own
outputs need it, in the *load* phase when it follows from constants alone (a runtime computes it once, when it
loads the model), and in the *explanation* otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from irshap.cost.formula import total
from irshap.errors import IRError
from irshap.ir.core import PUBLISHED, Graph, Node, Op, Role, Value
from irshap.ir.dims import Dim, N, as_dim, symbols_of
from irshap.ir.types import TensorType
from irshap.ir.walks import ancestors, determined
from irshap.lowering.ops.scan import own_constants
from irshap.ops.program import Constant, Input
from irshap.ops.scan import Scan

__all__ = ["GraphCost", "NodeCost", "Phase", "cost", "counted", "fixed_values"]

_Count: TypeAlias = tuple[Dim, Dim, "str | None"]


class Phase(Enum):
    """When a node runs: for the model's outputs, for the attributions, or once, when the file is loaded."""

    FORWARD = "forward"
    EXPLANATION = "explanation"
    LOAD = "load"


@dataclass(frozen=True)
class NodeCost:
    """The cost of one node; `unknown` says why it has none, in which case both counts are 0."""

    node: Node
    phase: Phase
    flops: Dim
    moved: Dim
    unknown: str | None = None

    @property
    def kind(self) -> str:
        """The op, as tables call it."""
        return self.node.op.title

    @property
    def layer(self) -> str:
        """The ONNX node that it stems from."""
        return self.node.origin[0] if self.node.origin else "(made by passes)"


@dataclass(frozen=True)
class GraphCost:
    """The costs of a whole graph.

    Attributes:
        nodes: the nodes that outputs depend on, in order.
        weights: bytes of the constants that the forward phase reads.
        stored: bytes of all other constants, and of the values that are stored in their place.
        references: bytes of the references themselves, where the file holds them.
    """

    nodes: tuple[NodeCost, ...]
    weights: Dim
    stored: Dim
    references: Dim

    def flops(self, *phases: Phase) -> Dim:
        """FLOPs of one run; of these phases alone, if any are given."""
        return total(n.flops for n in self.nodes if n.phase in (phases or _AT_RUN_TIME))

    def moved(self, *phases: Phase) -> Dim:
        """Bytes moved in one run; of these phases alone, if any are given."""
        return total(n.moved for n in self.nodes if n.phase in (phases or _AT_RUN_TIME))

    @property
    def unknown(self) -> tuple[NodeCost, ...]:
        """The nodes without a cost, which totals leave out."""
        return tuple(n for n in self.nodes if n.unknown is not None)

    @property
    def file_bytes(self) -> Dim:
        """Bytes of the lowered file: its constants; the rest is small."""
        return total((self.weights, self.stored, self.references))

    def grouped(self, key: Callable[[NodeCost], str]) -> dict[str, tuple[NodeCost, ...]]:
        """The nodes that a run computes, by op type or by layer, in order of first appearance."""
        groups: dict[str, list[NodeCost]] = {}
        for node in self.nodes:
            if node.phase is not Phase.LOAD:
                groups.setdefault(key(node), []).append(node)
        return {name: tuple(members) for name, members in groups.items()}


_AT_RUN_TIME = (Phase.FORWARD, Phase.EXPLANATION)


def cost(graph: Graph, *, stored: bool = False) -> GraphCost:
    """The cost of every node that the outputs depend on.

    Args:
        stored: whether what follows from references and constants alone is computed while compiling and
            stored, as fold-references does.  The references may still be inputs: R stays a symbol.
    """
    outputs = [o for o in graph.outputs if o.role in PUBLISHED] or list(graph.outputs)
    needed = {v.node for v in ancestors(o.value for o in outputs)}
    forward = {v.node for v in ancestors(o.value for o in outputs if o.role is Role.MODEL)}
    fixed = fixed_values(graph, references=stored)
    memo: dict[tuple[object, ...], _Count] = {}
    rows: list[NodeCost] = []
    read: set[Value] = set()
    weights: dict[Value, Dim] = {}
    others: dict[Value, Dim] = {}
    for node in graph.nodes:
        if node not in needed or isinstance(node.op, Constant):
            continue
        load = all(v in fixed for v in node.results)
        if load and stored:
            continue
        read.update(node.operands)
        for value in node.operands:
            if value in fixed and not isinstance(value.node.op, Input):
                (weights if node in forward else others)[value] = _size(value)
        phase = Phase.LOAD if load else Phase.FORWARD if node in forward else Phase.EXPLANATION
        if isinstance(node.op, Scan):
            rows.extend(_trips(node, node.op, phase, memo))
            others.update((v, _size(v)) for v in _own_constants(node.op, graph))
        else:
            rows.append(NodeCost(node, phase, *_counts(node, memo)))
    if not stored:
        # what a load computes is no content of the file
        others = {v: d for v, d in others.items() if isinstance(v.node.op, Constant)}
    for value in weights:
        others.pop(value, None)
    references = [_size(v) for v in graph.inputs if _is_reference(v) and v in read]
    return GraphCost(tuple(rows), total(weights.values()), total(others.values()), total(references))


def fixed_values(graph: Graph, *, references: bool) -> set[Value]:
    """The values that follow from constants, and with `references` from the references and their weights."""
    given = [v for v in graph.inputs if references and _is_reference(v)]
    return determined(graph.nodes, given, _holds_no_sample)


def _holds_no_sample(node: Node) -> bool:
    shapes = [t.shape for t in node.types if isinstance(t, TensorType) and t.shape is not None]
    known = len(shapes) == len(node.types) and all(N not in symbols_of(s) for s in shapes)
    return known and node.op.modeled


def _is_reference(value: Value) -> bool:
    return isinstance(value.node.op, Input) and value.node.op.kind in ("references", "weights")


def _trips(loop: Node, op: Scan, phase: Phase, memo: dict[tuple[object, ...], _Count]) -> Iterator[NodeCost]:
    """The nodes of a loop's body, each with what it costs in all trips."""
    trips = op.trips([v.tensor for v in loop.operands])
    fixed = fixed_values(op.body, references=False)
    for node in op.body.nodes:
        if isinstance(node.op, Constant):
            continue
        if isinstance(node.op, Scan):
            own = list(_trips(node, node.op, phase, memo))
        else:
            own = [NodeCost(node, phase, *_counts(node, memo))]
        for cost in own:
            if cost.phase is Phase.LOAD or all(v in fixed for v in node.results):
                yield replace(cost, phase=Phase.LOAD)
            else:
                yield replace(cost, flops=as_dim(cost.flops * trips), moved=as_dim(cost.moved * trips))


def _own_constants(op: Scan, graph: Graph) -> Iterator[Value]:
    """The constants of a loop's body that its file doesn't share with the program around it."""
    outside = {n.op for n in graph.nodes if isinstance(n.op, Constant)}
    unshared = own_constants(op.body)
    for node in op.body.nodes:
        if isinstance(node.op, Constant) and (node.op not in outside or node.results[0] in unshared):
            yield node.results[0]
        elif isinstance(node.op, Scan):
            yield from _own_constants(node.op, op.body)


def _size(value: Value) -> Dim:
    known = isinstance(value.type, TensorType) and value.type.shape is not None
    return value.tensor.nbytes if known else 0


def _counts(node: Node, memo: dict[tuple[object, ...], _Count]) -> _Count:
    types = tuple(v.type for v in node.operands)
    key = (node.op, types, node.types)
    if key not in memo:
        memo[key] = _count(node.op, types, node.types)
    return memo[key]


def _count(op: Op, operands: tuple[object, ...], results: tuple[object, ...]) -> _Count:
    known = [t for t in (*operands, *results) if isinstance(t, TensorType) and t.shape is not None]
    if len(known) < len(operands) + len(results):
        return 0, 0, f"{op.mnemonic}: a shape is unknown"
    before, after = known[: len(operands)], known[len(operands) :]
    try:
        return op.flops(before, after), op.nbytes(before, after), None
    except IRError as error:
        return 0, 0, error.what


def counted(groups: Mapping[str, Iterable[NodeCost]]) -> dict[str, tuple[int, Dim, Dim]]:
    """The number of nodes, FLOPs and bytes moved of each group."""
    return {
        name: (len(list(members)), total(n.flops for n in members), total(n.moved for n in members))
        for name, members in groups.items()
    }
