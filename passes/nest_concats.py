"""nest-concats: a Concat that repeats the beginning of another one joins that one's result instead."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Value
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
        with Builder() as b:
            mapping: dict[Value, Value] = {v: b.copy(v.node, {})[0] for v in ir.inputs}
            for node in ir.nodes:
                results = None
                if isinstance(node.op, Concat):
                    axis, parts = node.op.axis, node.operands
                    lengths = range(len(parts) - 1, 1, -1)
                    known = next((n for n in lengths if (axis, parts[:n]) in joined), None)
                    if known is not None:
                        rest = [mapping[v] for v in parts[known:]]
                        first = mapping[joined[axis, parts[:known]]]
                        results = b.emit(node.op, first, *rest, origin=node.origin)
                        context.count("nested")
                    joined.setdefault((axis, parts), node.results[0])
                mapping.update(zip(node.results, results or b.copy(node, mapping), strict=True))
            return b.rebuild(ir, mapping)
