"""order: what a long chain of nodes waits for is computed just before it is needed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irshap.ir.core import Graph, Value
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Order"]


@dataclass(frozen=True)
class Order(Pass):
    """Sorts nodes by their depth, the longest way to them from an input or constant.

    ONNX Runtime goes back from the results, and first to the operand that stands latest in the file: now the
    one at the end of the longest chain.  A multiplier is then computed when its cotangent has arrived.  The
    other way around all multipliers would wait for it, in memory, at once.
    """

    name = "order"
    semantics = Semantics.PRESERVES
    into_bodies = True

    def run(self, ir: Graph, context: Context) -> Graph:
        depth: dict[Value, int] = dict.fromkeys(ir.inputs, 0)
        for node in ir.nodes:
            own = 1 + max((depth[v] for v in node.operands), default=-1)
            depth.update(dict.fromkeys(node.results, own))
        nodes = sorted(ir.nodes, key=lambda node: depth[node.results[0]])
        moved = sum(a is not b for a, b in zip(ir.nodes, nodes, strict=True))
        context.count("moved", moved)
        return replace(ir, nodes=tuple(nodes)) if moved else ir
