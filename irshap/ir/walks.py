"""What depends on what: reachability over values, in both directions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

from irshap.ir.core import Graph, Node, Value
from irshap.ir.types import TensorType

__all__ = ["active", "ancestors", "descendants", "determined", "is_float", "jumps", "live", "readers_of"]
__all__ += ["structure", "upstream", "varying_values"]


def ancestors(values: Iterable[Value], stop: Callable[[Value], bool] | None = None) -> set[Value]:
    """`values` and all that they are computed from, not beyond those at which to `stop`."""
    found: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            if stop is None or not stop(value):
                stack.extend(value.node.operands)
    return found


def upstream(values: Iterable[Value], cut: Collection[Value] = ()) -> set[Value]:
    """`values` and all that their differences between two worlds can come from.

    Not through held values, nor through those of a `cut`.
    """
    return ancestors(values, lambda v: v.node.op.stops_change or v in cut)


def live(nodes: Iterable[Node], values: Iterable[Value], known: Collection[Value] = ()) -> list[Node]:
    """Of `nodes`, which are in order, those that `values` need, beside what is `known`."""
    wanted = {v for v in values if v not in known}
    found: list[Node] = []
    for node in reversed(tuple(nodes)):
        if not wanted.isdisjoint(node.results):
            found.append(node)
            wanted.update(v for v in node.operands if v not in known)
    return found[::-1]


def readers_of(nodes: Iterable[Node]) -> defaultdict[Value, list[Node]]:
    """The nodes that read each value, in order, one that reads it twice twice; none where nothing does."""
    found: defaultdict[Value, list[Node]] = defaultdict(list)
    for node in nodes:
        for value in node.operands:
            found[value].append(node)
    return found


def descendants(nodes: Iterable[Node], values: Iterable[Value]) -> set[Value]:
    """`values` and all that `nodes`, which are in order, compute from them."""
    found = set(values)
    for node in nodes:
        if not found.isdisjoint(node.operands):
            found.update(node.results)
    return found


def varying_values(nodes: Iterable[Node], sources: Iterable[Value]) -> set[Value]:
    """The values of any type that depend on `sources`, through ops that let changes through."""
    return descendants((n for n in nodes if not n.op.stops_change), sources)


def determined(nodes: Iterable[Node], given: Iterable[Value], known: Callable[[Node], bool]) -> set[Value]:
    """`given`, and what follows from these and constants alone, through nodes that are `known` then."""
    found = set(given)
    for node in nodes:
        if found.issuperset(node.operands) and known(node):
            found.update(node.results)
    return found


def structure(graph: Graph) -> tuple[object, ...]:
    """What makes two closed programs the same: everything but inner names, and where nodes stem from."""
    place = {v: i for i, v in enumerate(graph.values())}

    def statement(node: Node) -> tuple[object, ...]:
        return (node.op, node.types, *(place[v] for v in node.operands))

    inputs = [(v.name, v.type) for v in graph.inputs]
    outputs = [(o.name, place[o.value]) for o in graph.outputs]
    return (*inputs, *map(statement, graph.nodes), *outputs)


def is_float(value: Value) -> bool:
    """Whether `value` can carry a cotangent."""
    return isinstance(value.type, TensorType) and value.type.dtype.is_float


def active(graph: Graph, sources: Iterable[Value], sinks: Iterable[Value]) -> set[Value]:
    """The float values that depend on a source and that a sink depends on: those that get a cotangent."""
    varying = {v for v in varying_values(graph.nodes, sources) if is_float(v)}
    ends = (v for v in sinks if v in varying)
    return varying & ancestors(ends, lambda v: v.node.op.stops_change or v not in varying)


def jumps(graph: Graph, sources: Iterable[Value], sinks: Iterable[Value]) -> list[tuple[Node, int]]:
    """Where a change of a source goes on to a sink through a value that has no cotangent.

    Each is a node with an operand that isn't float and depends on a source (the condition of a `where`, the
    indices of a gather, an integer cast back to float).  A derivative ignores these paths rightly, but a
    secant that ignores them doesn't sum to the difference.
    """
    changing = varying_values(graph.nodes, sources)
    reaching = upstream(sinks)
    return [
        (node, i)
        for node in graph.nodes
        if not node.op.stops_change and any(is_float(v) and v in reaching for v in node.results)
        for i, v in enumerate(node.operands)
        if v in changing and not is_float(v)
    ]
