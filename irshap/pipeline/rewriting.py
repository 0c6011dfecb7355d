"""Passes that are a list of rewrite rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from irshap.ir.core import Graph
from irshap.ir.rewrite import Rule, apply
from irshap.pipeline.base import Context, Pass

__all__ = ["RewritingPass"]


@dataclass(frozen=True)
class RewritingPass(Pass, family=True):
    """Applies `rules` to each node until none fires any more, and reports how often each did."""

    rules: ClassVar[Sequence[Rule]]

    def run(self, ir: Graph, context: Context) -> Graph:
        graph, fired = apply(ir, self.rules)
        context.statistics.update(fired)
        return graph
