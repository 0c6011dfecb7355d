"""Emits a loop over references: its levels one inside the other, with the sums carried from trip to trip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Node, Output, Value
from irshap.ir.dims import R, same
from irshap.ir.types import TensorType
from irshap.ops.cast import cast
from irshap.ops.program import Constant, Full, Input
from irshap.ops.scan import Scan
from irshap.passes.references.chunks import Chunks, sum_of
from irshap.passes.references.levels import grouped

if TYPE_CHECKING:
    from irshap.passes.stream import Loop

__all__ = ["totals"]

_K = TypeVar("_K")


def totals(b: Builder, loop: Loop, known: Mapping[Value, Value], chunks: Chunks) -> list[Value]:
    """Emits the loop's sums over all references: over what is left of whole chunks, then level by level.

    Args:
        known: where the values that come into the loop without references went.
    """
    sums: dict[Node, Value] = {}
    if loop.plan.left:
        rest = _Place(b, loop, dict(known), sums)
        rest.take(dict(zip(loop.stored, chunks.rest(b), strict=True)))
        rest.run(loop.nodes, loop.sums, loop.plan.left)
    else:
        sums |= {n: _zeros(b, n.results[0]) for n in loop.sums}
    if not same(loop.plan.whole, 0):
        _Place(b, loop, dict(known), sums).trips(0, chunks.whole(b))
    return [sums[n] for n in loop.sums]


@dataclass
class _Place:
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
        for node in nodes:
            self.where.update(zip(node.results, self.b.copy(node, self.where, {R: count}), strict=True))
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
            over = {v: self.loop.rows.place(v) for v in inner.crossing}
            groups = {v: grouped(self.where[v], p, self.loop.trips(i + 1)) for v, p in over.items() if p}
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
            known |= {v: b.copy(v.node, {})[0] for v in read if v not in known}
            _Place(b, self.loop, known, carried).trip(i, slices)
            body = b.build("chunk", [Output(f"next_{j}", carried[n]) for j, n in enumerate(sums)])
        found = self.b.emit(Scan(len(sums), len(sliced), body), *before, *given, *whole)
        self.sums.update(zip(sums, found, strict=True))


def _inputs(b: Builder, prefix: str, keys: Sequence[_K], types: Iterable[TensorType]) -> dict[_K, Value]:
    named = [(key, f"{prefix}_{i}", kind) for i, (key, kind) in enumerate(zip(keys, types, strict=True))]
    return {key: b.emit(Input(n), types=(t,), names=(n,))[0] for key, n, t in named}


def _zeros(b: Builder, like: Value) -> Value:
    return b.emit(Full(0.0, like.dtype, like.shape), origin=like.node.origin)[0]
