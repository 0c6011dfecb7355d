"""What is alive when, and what takes longest: networkx is a view for its algorithms, the graph the IR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import sympy

from irshap.errors import IRError
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import Dim, as_dim, substitute
from irshap.ir.types import TensorType
from irshap.ops.program import Constant

__all__ = ["Liveness", "critical_path", "digraph", "live_bytes", "peak"]


def digraph(graph: Graph) -> nx.MultiDiGraph:
    """Nodes, and an edge from a value's node to each use (x * x has two), with its `value` and `operand`."""
    view = nx.MultiDiGraph()
    view.add_nodes_from(v.node for v in graph.inputs)
    view.add_nodes_from(graph.nodes)
    for node in graph.nodes:
        for position, value in enumerate(node.operands):
            view.add_edge(value.node, node, value=value, operand=position)
    return view


@dataclass(frozen=True)
class Liveness:
    """Bytes alive while each node of the schedule runs, as expressions in the dimension symbols.

    Attributes:
        rows: for each node in order, the bytes of what is alive during it: its operands and results, and
            what is used later.  Inputs and outputs of the graph are alive throughout and from their node on.
        constants: bytes of all constants, which are not in `rows`.
        unknown: values whose size can't be told, counted as nothing.
    """

    rows: tuple[tuple[Node, Dim], ...]
    constants: Dim
    unknown: tuple[Value, ...]


def live_bytes(graph: Graph, binding: Mapping[sympy.Expr, Dim] | None = None) -> Liveness:
    """Liveness over the order of `graph.nodes`.

    A result that is a view (`reshape`, `hold`) shares the buffer of its operand.  No other reuse in place
    is assumed.

    Args:
        binding: dimension symbols to replace by numbers at once, which is much faster than later.
    """
    sizes: dict[tuple[object, ...], Dim] = {}
    unknown: list[Value] = []

    def size(value: Value) -> Dim:
        kind = value.type
        if not isinstance(kind, TensorType) or kind.shape is None:
            unknown.append(value)
            return 0
        key = (kind.dtype, kind.shape)
        if key not in sizes:
            sizes[key] = substitute(kind.nbytes, binding) if binding else kind.nbytes
        return sizes[key]

    constants: Dim = 0
    live: Dim = 0
    held: dict[Value, Dim] = {}
    buffers = _buffers(graph)
    for value in graph.inputs:
        held[value] = size(value)
        live = live + held[value]
    last = _last_uses(graph, buffers)
    rows: list[tuple[Node, Dim]] = []
    for position, node in enumerate(graph.nodes):
        for value in node.results:
            if isinstance(node.op, Constant):
                constants = constants + size(value)
            elif buffers[value] is value:
                held[value] = size(value)
                live = live + held[value]
        rows.append((node, as_dim(live)))
        for buffer in {buffers[v] for v in (*node.operands, *node.results)}:
            if buffer in held and last.get(buffer) == position:
                live = live - held.pop(buffer)
    return Liveness(tuple(rows), as_dim(constants), tuple(unknown))


def _buffers(graph: Graph) -> dict[Value, Value]:
    """The value that owns the memory of each value."""
    owner = {v: v for v in graph.inputs}
    for node in graph.nodes:
        for value in node.results:
            owner[value] = owner[node.operands[0]] if _is_view(node) else value
    return owner


def _is_view(node: Node) -> bool:
    kinds = [v.type for v in (*node.operands, *node.results)]
    tensors = [k for k in kinds if isinstance(k, TensorType) and k.shape is not None]
    if not node.operands or len(tensors) < len(kinds) or node.op.types_given:
        return False
    count = len(node.operands)
    moved = node.op.nbytes(tensors[:count], tensors[count:])
    return isinstance(moved, int) and moved == 0 and tensors[0].nbytes != 0


def _last_uses(graph: Graph, buffers: Mapping[Value, Value]) -> dict[Value, int]:
    """The position of the node after which a buffer is free; inputs and outputs of the graph never are."""
    last: dict[Value, int] = {}
    for position, node in enumerate(graph.nodes):
        for value in (*node.results, *node.operands):
            last[buffers[value]] = position
    for value in (*graph.inputs, *(o.value for o in graph.outputs)):
        last.pop(buffers[value], None)
    return last


def peak(graph: Graph, binding: Mapping[sympy.Expr, Dim]) -> tuple[int, Node | None]:
    """The most bytes alive at once, constants apart, and the first node where that is so.

    Args:
        binding: a number for each dimension symbol of the graph.
    """
    best, where = 0, None
    for node, size in live_bytes(graph, binding).rows:
        if not isinstance(size, int):
            raise IRError(f"{size} bytes: a dimension symbol has no number", where=node.label)
        if size > best or where is None:
            best, where = size, node
    return best, where


_START = "start"


def critical_path(graph: Graph, weight: Callable[[Node], float] = lambda node: 1.0) -> Sequence[Node]:
    """The chain of dependent nodes with the largest total weight: what no parallelism can shorten."""
    view = nx.DiGraph()
    for node in graph.nodes:
        # every node hangs on one start, so that the weight of the first node of a chain counts
        view.add_edge(_START, node, weight=weight(node))
        for value in node.operands:
            if not value.node.op.is_input:
                view.add_edge(value.node, node, weight=weight(node))
    return nx.dag_longest_path(view, weight="weight")[1:] if graph.nodes else []
