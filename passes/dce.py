"""dce: removes what no output depends on."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.core import Graph
from irshap.ir.rewrite import live_nodes
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["DeadCodeElimination"]


@dataclass(frozen=True)
class DeadCodeElimination(Pass):
    """Removes nodes that no output depends on.  Inputs stay, used or not: they are the model's interface."""

    name = "dce"
    semantics = Semantics.PRESERVES
    into_bodies = True

    def run(self, ir: Graph, context: Context) -> Graph:
        kept = live_nodes(ir)
        context.count("removed", len(ir.nodes) - len(kept.nodes))
        return kept
