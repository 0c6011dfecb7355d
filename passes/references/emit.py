"""Emits a program with a loop over references: its levels nested, the sums carried from trip to trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sympy

from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, Output, Value
from irshap.ir.dims import Dim, R, divide, product, same
from irshap.ir.types import TensorType
from irshap.ops.cast import cast
from irshap.ops.program import Constant, Full, new_input
from irshap.ops.reduce import number
from irshap.ops.scan import Scan
from irshap.ops.shape import reshape, transpose
from irshap.passes.references.axes import ReferenceAxis
from irshap.passes.references.loop import Loop
from irshap.passes.references.partition import sum_of, terms
from irshap.passes.references.stored import Stored

__all__ = ["looped"]

_K = TypeVar("_K")


def looped(loop: Loop, stored: Stored, binding: Mapping[sympy.Expr, Dim]) -> Graph:
    """The whole program: what doesn't need the loop, the loop, and what needs its sums.

    Args:
        binding: R, where it is known; the inputs for references are then left out.
    """
    parts, mapping = loop.parts, dict[Value, Value]()
    with Builder() as b:
        b.extend((v.node for v in parts.graph.inputs if v not in parts.given or not binding), mapping)
        mapping.update(zip((n.results[0] for n in parts.known), stored.known(b), strict=True))
        late, outside = parts.late, parts.outside
        b.extend((n for n in outside if n.results[0] not in late), mapping, binding=binding)
        sums = _totals(b, loop, mapping, stored) if parts.sums else ()
        for node, total in zip(parts.sums, sums, strict=True):
            mapping[node.results[0]] = _mean(b, node, total, binding)
        b.extend((n for n in outside if n.results[0] in late), mapping, binding=binding)
        return b.rebuild(parts.graph, mapping)


def _mean(b: Builder, node: Node, total: Value, binding: Mapping[sympy.Expr, Dim]) -> Value:
    count = terms(node, binding)
    with b.at(node.origin):
        return total if same(count, 1) else total / number(count, total.dtype)


def _totals(b: Builder, loop: Loop, known: Mapping[Value, Value], stored: Stored) -> list[Value]:
    """Emits the loop's sums over all references: over what is left of whole chunks, then level by level.

    Args:
        known: where the values that come into the loop without references went.
    """
    parts, sums = loop.parts, dict[Node, Value]()
    if loop.plan.left:
        rest = _Scope(b, loop, dict(known), sums)
        rest.take(dict(zip(parts.stored, stored.rest(b), strict=True)))
        rest.run(parts.nodes, parts.sums, loop.plan.left)
    else:
        sums |= {n: _zeros(b, n.results[0]) for n in parts.sums}
    if not same(loop.plan.whole, 0):
        _Scope(b, loop, dict(known), sums).trips(0, stored.whole(b))
    return [sums[n] for n in parts.sums]


@dataclass
class _Scope:
    """Where the loop's nodes are emitted: the program, or the body of a loop.

    Attributes:
        where: what values of the graph are here.
        sums: the sums up to here.
    """

    b: Builder
    loop: Loop
    where: dict[Value, Value]
    sums: dict[Node, Value]

    def take(self, rows: Mapping[Value, Value]) -> None:
        """Stored values in the precision that the program has."""
        self.where.update({value: cast(row, value.dtype) for value, row in rows.items()})

    def run(self, nodes: Sequence[Node], sums: Sequence[Node], count: int) -> None:
        """Emits nodes for `count` references, and adds their sums."""
        self.b.extend(nodes, self.where, binding={R: count})
        for node in sums:
            with self.b.at(node.origin):
                found = emit1(sum_of(node), self.where[node.operands[0]])
                self.sums[node] = self.sums[node] + found if node in self.sums else found

    def trip(self, i: int, rows: Mapping[Value, Value]) -> None:
        """Emits level i once, and those inside it, from `rows` of what they store and get."""
        level = self.loop.levels[i]
        self.take({v: rows[v] for v in (*level.stored, *level.crossing)})
        self.run(level.nodes, level.sums, level.size)
        for inner in self.loop.levels[i + 1 : i + 2]:
            over = {v: self.loop.parts.axes.axis(v) for v in inner.crossing}
            groups = {v: _grouped(self.where[v], a, self.loop.trips(i + 1)) for v, a in over.items() if a}
            self.trips(i + 1, {**rows, **groups})

    def trips(self, i: int, rows: Mapping[Value, Value]) -> None:
        """Emits all trips of level i: rows are [trips, ...], or [...] where it runs once."""
        if self.loop.runs_once(i):
            self.trip(i, rows)
            return
        levels = self.loop.levels[i:]
        sums = [n for level in levels for n in level.sums]
        sliced = [*levels[0].crossing, *(v for level in levels for v in level.stored)]
        read = dict.fromkeys(v for level in levels for v in level.captured)
        captured = [v for v in read if not isinstance(v.node.op, Constant)]
        before, given = [self.sums[n] for n in sums], [rows[v] for v in sliced]
        whole = [self.where[v] for v in captured]
        with Builder() as b:
            carried = _inputs(b, "sum", sums, (v.tensor for v in before))
            slices = _inputs(b, "chunk", sliced, (v.tensor.with_shape(v.shape[1:]) for v in given))
            known = _inputs(b, "whole", captured, (v.tensor for v in whole))
            b.extend((v.node for v in read if v not in known), known)
            _Scope(b, self.loop, known, carried).trip(i, slices)
            body = b.build("chunk", [Output(f"next_{j}", carried[n]) for j, n in enumerate(sums)])
        found = self.b.emit(Scan(len(sums), len(sliced), body), *before, *given, *whole)
        self.sums.update(zip(sums, found, strict=True))


def _grouped(value: Value, along: ReferenceAxis, groups: Dim) -> Value:
    """References in `groups` groups one after another: [groups, ...]."""
    before, (rows, *after) = value.shape[: along.axis], value.shape[along.axis :]
    inner = divide(rows, product((along.outer, groups)))
    assert inner is not None
    split = reshape(value, (*before, along.outer, groups, inner, *after))
    at = along.axis + 1
    front = transpose(split, [at, *(a for a in range(split.rank) if a != at)])
    return reshape(front, (groups, *before, product((along.outer, inner)), *after))


def _inputs(b: Builder, prefix: str, keys: Sequence[_K], types: Iterable[TensorType]) -> dict[_K, Value]:
    named = [(key, f"{prefix}_{i}", kind) for i, (key, kind) in enumerate(zip(keys, types, strict=True))]
    return {key: new_input(n, t, builder=b) for key, n, t in named}


def _zeros(b: Builder, like: Value) -> Value:
    return b.emit(Full(0.0, like.dtype, like.shape), origin=like.node.origin)[0]
