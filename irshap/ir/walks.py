"""What depends on what: reachability over values, in both directions."""

from __future__ import annotations

from collections.abc import Iterable

from irshap.ir.core import Graph, Node, Value
from irshap.ir.types import TensorType

__all__ = ["active", "ancestors", "descendants", "is_float", "jumps", "upstream", "varying_values"]


def varying_values(nodes: Iterable[Node], sources: Iterable[Value]) -> set[Value]:
    """The values of any type that depend on `sources`, through ops that let changes through."""
    varying = set(sources)
    for node in nodes:
        if not node.op.stops_change and any(v in varying for v in node.operands):
            varying.update(node.results)
    return varying


def upstream(values: Iterable[Value]) -> set[Value]:
    """`values` and all that their differences between two worlds can come from: not through held ones."""
    found: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            if not value.node.op.stops_change:
                stack.extend(value.node.operands)
    return found


def ancestors(values: Iterable[Value]) -> set[Value]:
    """`values` and all that they are computed from."""
    found: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            stack.extend(value.node.operands)
    return found


def descendants(nodes: Iterable[Node], values: Iterable[Value]) -> set[Value]:
    """`values` and all that `nodes`, which are in order, compute from them."""
    found = set(values)
    for node in nodes:
        if not found.isdisjoint(node.operands):
            found.update(node.results)
    return found


def is_float(value: Value) -> bool:
    """Whether `value` can carry a cotangent."""
    return isinstance(value.type, TensorType) and value.type.dtype.is_float


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
