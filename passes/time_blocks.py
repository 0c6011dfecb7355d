"""time-blocks: what a loop over steps multiplies by is computed a block of steps at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

from irshap.ir.builder import Builder, emit
from irshap.ir.core import Graph, MixesBatch, Node, Op, Output, TypeMismatch, Value, tensors
from irshap.ir.dims import product, same, substitute, symbols_of
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import TensorType, same_type
from irshap.ir.walks import readers_of
from irshap.ops.program import Constant, Input
from irshap.ops.scan import Scan
from irshap.ops.shape import Reshape, reshape
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["TimeBlocks"]

Users: TypeAlias = defaultdict[Value, "list[Node | None]"]
"""The nodes that read a value, with None for an output."""


@dataclass(frozen=True)
class TimeBlocks(Pass):
    """A loop over T steps becomes one over blocks of up to `longest` steps, around one over a block's steps.

    What the loop's rows are made of goes into the outer one, from where samples meet references on, as far as
    each step is computed apart from the others; and so does what makes the rows that come out smaller again.
    Between them there are pairs for the steps of a block then, not for all steps.  T must be known, and a
    multiple of a block of no less than half of `longest`.
    """

    longest: int = 100
    name = "time-blocks"
    semantics = Semantics.PRESERVES
    into_bodies = True

    def run(self, ir: Graph, context: Context) -> Graph:
        found = {n: p for n in ir.nodes if (p := _Blocks.around(ir, n, self.longest)) is not None}
        context.count("loops", len(found))
        moved = {n for p in found.values() for n in (*p.before, *p.after)}
        made: dict[Value, Value] = {}

        def visit(node: Node, mapping: Mapping[Value, Value]) -> Sequence[Value | None] | None:
            if node in found:
                made.update(found[node].emitted(node, mapping))
            return [made.get(v) for v in node.results] if node in found or node in moved else None

        return map_nodes(ir, visit) if found else ir


@dataclass(frozen=True)
class _Blocks:
    """What goes into the loop over blocks, before a loop and after it; a block has `size` of the `steps`."""

    steps: int
    size: int
    before: Sequence[Node]
    after: Sequence[Node]

    @classmethod
    def around(cls, graph: Graph, loop: Node, longest: int) -> _Blocks | None:
        """What there is to gain around a node, if anything."""
        if not isinstance(loop.op, Scan):
            return None
        steps = loop.op.trips(tensors([v.type for v in loop.operands]))
        if not isinstance(steps, int) or steps <= longest:
            return None
        size = next((s for s in range(longest, longest // 2 - 1, -1) if s > 1 and steps % s == 0), None)
        if size is None:
            return None
        users = cast(Users, readers_of(graph.nodes))
        for output in graph.outputs:
            users[output.value].append(None)
        plan = cls(steps, size, (), ())
        before = plan._before(graph, loop, users)
        return replace(plan, before=before, after=plan._after(graph, loop, users)) if before else None

    def _before(self, graph: Graph, loop: Node, users: Users) -> list[Node]:
        """What is computed step by step for the loop alone, from where samples meet references on."""
        first, last = _rows(loop)
        whole = {*loop.operands[:first], *loop.operands[last:]}
        alone: set[Node | None] = {loop}
        for node in reversed(graph.nodes):
            read = {u for v in node.results for u in users[v]}
            if alone.issuperset(read) and whole.isdisjoint(node.results) and self._of_block(node) is not None:
                alone.add(node)
        found: dict[Node, None] = {}
        for node in graph.nodes:
            if node in alone and node is not loop:
                rows = [v for v in node.operands if self._by_step(v)]
                if any(v.node in found for v in rows) or all(_size(v) < _size(node.results[0]) for v in rows):
                    found[node] = None
        return list(found)

    def _after(self, graph: Graph, loop: Node, users: Users) -> list[Node]:
        """What makes rows of the loop smaller, and is all that reads them."""
        known = {v for n in graph.nodes[: graph.nodes.index(loop)] for v in n.results} | {*graph.inputs}
        found = []
        for v in loop.results[_rows(loop)[0] :]:
            user = users[v][0] if len(users[v]) == 1 else None
            if (
                user is None
                or self._of_block(user) is None
                or not known.issuperset(x for x in user.operands if x is not v)
            ):
                continue
            if sum(map(self._by_step, user.operands)) == 1 and _size(user.results[0]) < _size(v):
                found.append(user)
        return found

    def _by_step(self, v: Value) -> bool:
        return isinstance(v.type, TensorType) and v.rank > 0 and same(v.shape[0], self.steps)

    def _in_block(self, kind: TensorType) -> TensorType:
        return kind.with_shape((self.size, *kind.dims[1:]))

    def _of_block(self, node: Node) -> Op | None:
        """The op that does for the steps of a block what a node does for all; None where it mixes steps."""
        by_step = [self._by_step(v) for v in node.operands]
        if (
            node.op.types_given
            or node.op.bodies
            or not any(by_step)
            or not all(map(self._by_step, node.results))
        ):
            return None
        given, made = (tensors([v.type for v in values]) for values in (node.operands, node.results))
        op = node.op
        if isinstance(op, Reshape):
            op = Reshape((self.size, *op.shape[1:]))
        try:
            axes = node.op.batch_axes([0 if b else None for b in by_step], given, made)
            inferred = op.infer(*(self._in_block(t) if b else t for t, b in zip(given, by_step, strict=True)))
        except (MixesBatch, TypeMismatch):
            return None
        apart = set(axes) == {0} and all(
            same_type(t, self._in_block(m)) for t, m in zip(inferred, made, strict=True)
        )
        return op if apart else None

    def emitted(self, loop: Node, mapping: Mapping[Value, Value]) -> dict[Value, Value]:
        """Emits both loops; where the results of the loop, and of what was after it, went."""
        op = loop.op
        assert isinstance(op, Scan)
        first, last = _rows(loop)
        by_step = {v for n in self.before for v in n.operands if self._by_step(v)} | {
            *loop.operands[first:last]
        }
        made = {v for n in (*self.before, loop, *self.after) for v in n.results}
        read = [v for n in (*self.before, *self.after) for v in n.operands] + [*loop.operands[first:]]
        given = [v for v in dict.fromkeys(read) if v not in made]
        rows = [v for v in given if v in by_step]
        constants = [v for v in given if v not in by_step and isinstance(v.node.op, Constant)]
        wholes = [v for v in given if v not in by_step and not isinstance(v.node.op, Constant)]
        consumed = {v for n in self.after for v in n.operands}
        ends = [v for n in (loop, *self.after) for v in n.results if v not in consumed]
        kinds = [v.tensor for v in loop.operands[:first]]
        kinds += [*(self._in_block(v.tensor) for v in rows), *(v.tensor for v in wholes)]
        with Builder() as b:
            formals = [b.emit(Input(f"in{i}"), types=(k,), names=(f"in{i}",))[0] for i, k in enumerate(kinds)]
            inside = b.extend(
                [v.node for v in constants], dict(zip((*rows, *wholes), formals[first:], strict=True))
            )
            for node in self.before:
                self._emit(b, node, inside)
            operands = (*formals[:first], *(inside[v] for v in loop.operands[first:]))
            inner = b.emit(op, *operands, origin=loop.origin)
            inside.update(zip(loop.results, inner, strict=True))
            for node in self.after:
                self._emit(b, node, inside)
            body = b.build("blocks", [Output(f"out{i}", inside[v]) for i, v in enumerate(ends)])
        blocks = [reshape(mapping[v], (self.steps // self.size, self.size, *v.shape[1:])) for v in rows]
        outer = Scan(first, len(rows), body, op.last_first)
        found = emit(
            outer, *(mapping[v] for v in loop.operands[:first]), *blocks, *(mapping[v] for v in wholes)
        )
        return {v: reshape(w, v.shape) for v, w in zip(ends, found, strict=True)}

    def _emit(self, b: Builder, node: Node, inside: dict[Value, Value]) -> None:
        op = self._of_block(node)
        assert op is not None
        results = b.emit(op, *(inside[v] for v in node.operands), origin=node.origin)
        inside.update(zip(node.results, results, strict=True))


def _rows(loop: Node) -> tuple[int, int]:
    """Where a loop's scanned operands begin and end."""
    assert isinstance(loop.op, Scan)
    return loop.op.carried, loop.op.carried + loop.op.scanned


def _size(v: Value) -> int:
    """Elements, with every open dimension taken for 2."""
    size = product(v.shape)
    return int(substitute(size, dict.fromkeys(symbols_of([size]), 2)))
