"""nest-concats: a Concat that repeats the beginning of another one joins that one's result instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irshap.ir.builder import emit
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import map_nodes
from irshap.ops.shape import Concat
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["NestConcats"]


@dataclass(frozen=True)
class NestConcats(Pass):
    """concat(a, b, c) = concat(concat(a, b), c) where concat(a, b) is there already, before autodiff.

    DenseNet joins all features so far in front of each layer.  The cotangents of L layers are then added up
    as a whole, one sum for each layer; feature by feature, it takes L^2 / 2 small ones.
    """

    name = "nest-concats"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        joined: dict[tuple[int, tuple[Value, ...]], Value] = {}

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            if not isinstance(node.op, Concat):
                return None
            axis, parts = node.op.axis, node.operands
            lengths = range(len(parts) - 1, 1, -1)
            known = next((n for n in lengths if (axis, parts[:n]) in joined), None)
            first = None if known is None else joined[axis, parts[:known]]
            joined.setdefault((axis, parts), node.results[0])
            if first is None:
                return None
            context.count("nested")
            return emit(node.op, *(mapping[v] for v in (first, *parts[known:])))

        return map_nodes(ir, visit)
