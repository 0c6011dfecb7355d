"""dce: removes what no output depends on."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import Builder
from irshap.ir.core import Graph
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["DeadCodeElimination"]


@dataclass(frozen=True)
class DeadCodeElimination(Pass):
    """Removes nodes that no output depends on.  Inputs stay, used or not: they are the model's interface."""

    name = "dce"
    semantics = Semantics.PRESERVES
    into_bodies = True

    def run(self, ir: Graph, context: Context) -> Graph:
        wanted = {o.value.node for o in ir.outputs}
        for node in reversed(ir.nodes):
            if node in wanted:
                wanted.update(v.node for v in node.operands)
        with Builder() as b:
            mapping = {v: b.copy(v.node, {})[0] for v in ir.inputs}
            for node in ir.nodes:
                if node in wanted:
                    mapping.update(zip(node.results, b.copy(node, mapping), strict=True))
            context.count("removed", sum(node not in wanted for node in ir.nodes))
            return b.rebuild(ir, mapping)
