"""The reverse walk shared by autodiff and by composite ops: cotangents flow from results to operands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from irshap.graph import Node, Value
from irshap.types import TensorType

__all__ = ["Local", "ancestors", "descendants", "is_float", "reverse", "upstream", "varying_values"]

Local = Callable[[Node, Sequence[Value], Sequence[int], frozenset[int]], Sequence[Value]]
"""(node, cotangents of its float results, operands wanted, operands that vary) -> cotangents wanted."""


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


def reverse(
    nodes: Sequence[Node],
    varying: set[Value],
    seeds: Mapping[Value, Value],
    local: Local,
    cut: Collection[Value] = (),
) -> dict[Value, Value]:
    """Walks `nodes` backward and returns the cotangent of every varying value that has one.

    Emits into the current builder; several uses of one value add up (the chain rule over all paths).  The
    walk ends at the values in `cut`: they get a cotangent, and what is above them gets nothing through them.
    """
    from irshap.ops.shape import zeros_like

    cotangent: dict[Value, Value] = dict(seeds)
    for node in reversed(nodes):
        if node.op.stops_change or not any(v in cotangent and v not in cut for v in node.results):
            continue
        changing = frozenset(i for i, v in enumerate(node.operands) if v in varying)
        wrt = [i for i in sorted(changing) if is_float(node.operands[i])]
        if not wrt:
            continue
        cts = [
            cotangent[v] if v in cotangent and v not in cut else zeros_like(v)
            for v in node.results
            if is_float(v)
        ]
        for i, ct in zip(wrt, local(node, cts, wrt, changing), strict=True):
            operand = node.operands[i]
            cotangent[operand] = cotangent[operand] + ct if operand in cotangent else ct
    return cotangent
