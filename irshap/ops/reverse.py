"""The reverse walk shared by autodiff and by composite ops: cotangents flow from results to operands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from irshap.ir.core import Node, Value
from irshap.ir.walks import is_float
from irshap.ops.shape import ranked, zeros_like

__all__ = ["LocalMap", "reverse"]

LocalMap = Callable[[Node, Sequence[Value], Sequence[int], frozenset[int]], Sequence[Value]]
"""(node, cotangents of its float results, operands wanted, operands that vary) -> cotangents wanted."""


def reverse(
    nodes: Sequence[Node],
    varying: set[Value],
    seeds: Mapping[Value, Value],
    local: LocalMap,
    cut: Collection[Value] = (),
) -> dict[Value, Value]:
    """Walks `nodes` backward and returns the cotangent of every varying value that has one.

    Emits into the current builder; several uses of one value add up (the chain rule over all paths).  The
    walk ends at the values in `cut`: they get a cotangent, and what is above them gets nothing through them.
    """
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
            cotangent[operand] = cotangent[ranked(operand)] + ct if operand in cotangent else ct
    return cotangent
