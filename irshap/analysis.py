"""Facts about a graph: what depends on what, where the batch is, what is alive when, what takes longest.

networkx is a view for its algorithms; the graph itself stays the IR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import sympy

from irshap.dims import Dim, as_dim, substitute
from irshap.errors import IRError, ModelError
from irshap.graph import Graph, Node, Value
from irshap.ops.base import MixesBatch
from irshap.ops.program import Constant
from irshap.reverse import is_float, varying_values
from irshap.types import TensorType

__all__ = ["BatchAxes", "Liveness", "active", "batch_axes", "critical_path", "digraph", "jumps"]
__all__ += ["live_bytes", "peak"]


def digraph(graph: Graph) -> nx.MultiDiGraph:
    """Nodes, and an edge from a value's node to each use (x * x has two), with its `value` and `operand`."""
    view = nx.MultiDiGraph()
    view.add_nodes_from(v.node for v in graph.inputs)
    view.add_nodes_from(graph.nodes)
    for node in graph.nodes:
        for position, value in enumerate(node.operands):
            view.add_edge(value.node, node, value=value, operand=position)
    return view


def active(graph: Graph, sources: Iterable[Value], sinks: Iterable[Value]) -> set[Value]:
    """The float values that depend on a source and that a sink depends on: those that get a cotangent."""
    varying = {v for v in varying_values(graph.nodes, sources) if is_float(v)}
    reaching = {v for v in sinks if v in varying}
    for node in reversed(graph.nodes):
        if not node.op.stops_change and any(v in reaching for v in node.results):
            reaching.update(v for v in node.operands if v in varying)
    return reaching


def jumps(graph: Graph, sources: Iterable[Value], sinks: Iterable[Value]) -> list[tuple[Node, int]]:
    """Where a change of a source goes on to a sink through a value that has no cotangent.

    Each is a node with an operand that isn't float and depends on a source (the condition of a `where`, the
    indices of a gather, an integer cast back to float).  A derivative ignores these paths rightly, but a
    secant that ignores them doesn't sum to the difference.
    """
    changing = varying_values(graph.nodes, sources)
    reaching = set(sinks)
    found: list[tuple[Node, int]] = []
    for node in reversed(graph.nodes):
        if node.op.stops_change or not any(v in reaching for v in node.results):
            continue
        reaching.update(node.operands)
        if any(is_float(v) and v in reaching for v in node.results):
            found += [(node, i) for i, v in enumerate(node.operands) if v in changing and not is_float(v)]
    return found[::-1]


class BatchAxes:
    """The axis of each value that holds the batch.

    Ops that mix rows are found lazily: only asking for a value that depends on one raises.  `known` are axes
    of values for which the op doesn't say it.
    """

    def __init__(self, graph: Graph, known: Mapping[Value, int | None] | None = None) -> None:
        self._known = known or {}
        self._axes: dict[Value, int | None] = {}
        self._failures: dict[Value, tuple[Node, str]] = {}
        for node in (*(v.node for v in graph.inputs), *graph.nodes):
            self._visit(node)

    def _visit(self, node: Node) -> None:
        if all(v in self._known for v in node.results):
            self._axes.update({v: self._known[v] for v in node.results})
            return
        failed = next((self._failures[v] for v in node.operands if v in self._failures), None)
        if failed is None:
            axes = [self._axes[v] for v in node.operands]
            operands: list[TensorType] = [v.type for v in node.operands]  # type: ignore[misc]
            try:
                found = node.op.batch_axes(axes, operands, node.types)  # type: ignore[arg-type]
                self._axes.update(zip(node.results, found, strict=True))
            except MixesBatch as error:
                failed = (node, str(error))
        if failed is not None:
            self._failures.update(dict.fromkeys(node.results, failed))

    def axis(self, value: Value) -> int | None:
        """The batch axis of `value`, None for a value that is the same for every sample.

        Raises:
            ModelError: an op that it depends on mixes rows; names node, op and reason.
        """
        if value in self._failures:
            node, reason = self._failures[value]
            raise ModelError(
                f"the rows of its result don't depend on the same rows of its operands alone: {reason}",
                where=node.label,
                mend="samples are explained one by one, so the model must treat the rows of a batch apart",
            )
        if value not in self._axes:
            raise IRError(f"{value!r} is no value of the graph whose batch axes these are")
        return self._axes[value]

    def reason(self, value: Value) -> str | None:
        """Why `value` has no known batch axis; None when it has one or needs none."""
        if value not in self._failures:
            return None
        node, reason = self._failures[value]
        return f"{node.label}: {reason}"


def batch_axes(graph: Graph) -> BatchAxes:
    """Where the batch is in each value, from where N stands in the inputs' shapes."""
    return BatchAxes(graph)


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
