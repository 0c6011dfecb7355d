"""Composite ops: differentiated through their parts, still evaluated and lowered as one op."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from irshap.ir.builder import Builder, current
from irshap.ir.core import Node, Op, Point, Value
from irshap.ir.walks import varying_values
from irshap.ops.program import Input
from irshap.ops.reverse import reverse

__all__ = ["Composite"]


class Composite(Op, family=True):
    """An op that is differentiated through its parts, and still evaluated and lowered as one op.

    The parts are computed again for the backward walk only; a leaf may override `derivative` or `secant`
    with a stabler closed form.
    """

    REQUIRED: ClassVar[dict[str, str]] = {
        "decompose": "def decompose(self, *operands) -> results, by emitting"
    }

    @abstractmethod
    def decompose(self, *operands: Value) -> tuple[Value, ...]:
        """The same results from simpler ops, emitted into the current builder."""

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self._through_parts(cts, (at,), wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self._through_parts(cts, (at, at0), wrt)

    def _through_parts(
        self, cts: Sequence[Value], worlds: Sequence[Point], wrt: Sequence[int]
    ) -> tuple[Value, ...]:

        with Builder() as parts:
            formals = [
                parts.emit(Input(f"operand{i}"), types=(v.type,))[0] for i, v in enumerate(worlds[0].operands)
            ]
            results = self.decompose(*formals)
            region = parts.build("parts", ())
        maps = []
        for world in worlds:
            maps.append(current().graft(region, dict(zip(formals, world.operands, strict=True))))

        def local(
            node: Node, node_cts: Sequence[Value], node_wrt: Sequence[int], changing: frozenset[int]
        ) -> Sequence[Value]:
            points = [
                Point(tuple(m[v] for v in node.operands), tuple(m[v] for v in node.results)) for m in maps
            ]
            at, at0 = points[0], points[-1]
            if node.op.linear_in(changing):
                return [node.op.adjoints(node_cts, at, i) for i in node_wrt]
            if len(points) == 1:
                return node.op.derivative(node_cts, at, node_wrt)
            return node.op.secant(node_cts, at, at0, node_wrt)

        varying = varying_values(region.nodes, [formals[i] for i in wrt])
        # zeros for cotangents that never arrive are shaped like the region's values: same types, any world
        seeds = dict(zip(results, cts, strict=True))
        found = reverse(region.nodes, varying, seeds, local)
        return tuple(found[formals[i]] for i in wrt)
