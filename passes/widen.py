"""widen: the same program in float64, the yardstick that tells a wrong rule from rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import DType
from irshap.passes.rules.widening import widened
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Widen"]


@dataclass(frozen=True)
class Widen(Pass):
    """Computes in float64: inputs, constants, casts and outputs.

    Goes behind lift, before rules choose what they do for tiny differences.  A node that irshap doesn't model
    keeps its types between casts.
    """

    name = "widen"
    semantics = Semantics.APPROXIMATES
    tolerance = 1e-3

    def run(self, ir: Graph, context: Context) -> Graph:
        def visit(node: Node, mapping: Mapping[Value, Value]) -> list[Value]:
            results = widened(node, mapping, lambda dtype: DType.F64 if dtype.is_float else dtype)
            pairs = zip(node.results, results, strict=True)
            context.count("widened", sum(old.type != new.type for old, new in pairs))
            return results

        return map_nodes(ir, visit)
