"""Composite ops: differentiated through their parts, still evaluated and lowered as one op."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from irshap.ir.builder import Builder, current
from irshap.ir.core import Graph, Node, Op, Point, Value
from irshap.ir.walks import varying_values
from irshap.ops.program import Input
from irshap.ops.reverse import reverse

__all__ = ["Composite", "InWorlds", "pulled_back"]


class InWorlds(Op, family=True):
    """An op whose derivative and secant are one rule, at one point or between two."""

    REQUIRED: ClassVar[dict[str, str]] = {
        "in_worlds": "def in_worlds(self, cts, worlds, wrt) -> cotangents of the operands wrt"
    }

    @abstractmethod
    def in_worlds(
        self, cts: Sequence[Value], worlds: Sequence[Point], wrt: Sequence[int]
    ) -> tuple[Value, ...]:
        """The cotangents of the operands `wrt`, emitted into the current builder."""

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.in_worlds(cts, (at,), wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.in_worlds(cts, (at, at0), wrt)


class Composite(InWorlds, family=True):
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

    def in_worlds(
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
        found = pulled_back(region, maps, dict(zip(results, cts, strict=True)), [formals[i] for i in wrt])
        return tuple(found[formals[i]] for i in wrt)


def pulled_back(
    region: Graph,
    worlds: Sequence[Mapping[Value, Value]],
    seeds: Mapping[Value, Value],
    wanted: Sequence[Value],
) -> dict[Value, Value]:
    """The cotangents of `wanted`, from those of results, through a program: each op by its own rule.

    `worlds` tell where its values went, at one point or at two.  Emits.
    """

    def local(
        node: Node, cts: Sequence[Value], wrt: Sequence[int], changing: frozenset[int]
    ) -> Sequence[Value]:
        points = [
            Point(tuple(w[v] for v in node.operands), tuple(w[v] for v in node.results)) for w in worlds
        ]
        at, at0 = points[0], points[-1]
        if node.op.linear_in(changing):
            return [node.op.adjoints(cts, at, i) for i in wrt]
        if len(points) == 1:
            return node.op.derivative(cts, at, wrt)
        return node.op.secant(cts, at, at0, wrt)

    # zeros for cotangents that never arrive are shaped like the region's values: same types, any world
    return reverse(region.nodes, varying_values(region.nodes, wanted), seeds, local)
