"""stream: references go through the program chunk by chunk, so that memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import sympy

from irshap.builder import Builder
from irshap.dims import Dim, R, same, substitute
from irshap.errors import UserError
from irshap.graph import Graph, Node, Output, Value
from irshap.ops.base import emit1
from irshap.ops.program import Constant, Full, Input
from irshap.ops.reduce import ReduceMean, ReduceSum, number, over
from irshap.ops.scan import Scan
from irshap.pass_base import Context, Pass, Semantics
from irshap.passes.bind_references import reference_binding, reference_values
from irshap.passes.fixed import Part, check_size, fixed_values
from irshap.passes.reference_rows import ReferenceRows
from irshap.reverse import ancestors
from irshap.types import Array, Tensor

__all__ = ["Stream"]


@dataclass(frozen=True)
class Stream(Pass):
    """Binds the references, and puts all that depends on them and on samples into a loop over chunks of them.

    The sums over references are carried from chunk to chunk; the rest of the program stays outside.  Equal to
    the whole set at once, up to the order in which is summed.

    `chunk`: the most references at a time.  A number that divides the whole set is taken where there is one
    from half of this up; otherwise what is left over stands before the loop.  `store`: "activations" computes
    what follows from the references alone while compiling, and stores it; "references" stores nothing else,
    and computes their forward pass again in each run.  `limit`: bytes that may be stored; more is an error
    before anything is computed.
    """

    chunk: int = 4
    store: Literal["activations", "references"] = "activations"
    limit: int = 16 * 2**30
    name = "stream"
    semantics = Semantics.PRESERVES
    binds_references = True
    requires = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        if self.chunk < 1:
            raise UserError(f"chunks of {self.chunk} references", mend="Use stream{chunk=1} or more")
        given = reference_values(ir, context)
        binding = reference_binding(context)
        loop = _Loop(ir, given, recompute=self.store == "references")
        check_size(self.name, loop.stored, binding, self.limit)
        count = binding.get(R, 0)
        assert isinstance(count, int)
        size = chunk_size(count, self.chunk)
        context.count("chunk", size)
        context.count("trips", count // size)
        arrays = _Arrays(loop, given, size, count)
        context.count("stored_bytes", sum(a.nbytes for a in (*arrays.chunks, *arrays.rest)))
        with Builder() as b:
            return b.rebuild(ir, loop.emit(b, arrays, binding))


def chunk_size(count: int, most: int) -> int:
    """How many of `count` references to take at a time."""
    divisors = [c for c in range((most + 1) // 2, most + 1) if count % c == 0]
    return max(divisors, default=most) if count > most else max(count, 1)


class _Loop:
    """Which nodes stand in the loop, and which values come into it.

    Attributes:
        nodes: the loop's, in order: what depends on references, but isn't computed while compiling.
        sums: the sums over references that end it; `known` are those that are computed while compiling.
        stored: the values with references that come into the loop, a chunk at a time.
        captured: the values without references that do.
        computed: what is needed of the references while compiling: what is stored, and what known sums add.
    """

    def __init__(self, graph: Graph, given: Mapping[Value, Array], *, recompute: bool) -> None:
        self.graph, self.given = graph, given
        self.rows = ReferenceRows(graph)
        live = ancestors(o.value for o in graph.outputs)
        self.live = [n for n in graph.nodes if live.intersection(n.results)]
        fixed = set(given) if recompute else fixed_values(graph, given, {R: 1})
        computed = fixed & _descendants(self.live, given)
        self.nodes = [n for n in self.live if self._has_rows(n) and n.results[0] not in computed]
        sums = [n for n in self.live if n in self.rows.reductions]
        self.known = [n for n in sums if n.results[0] in computed]
        self.sums = [n for n in sums if n.results[0] not in computed]
        inside = {v for n in self.nodes for v in n.results}
        read = (v for n in (*self.nodes, *self.sums) for v in n.operands)
        entering = dict.fromkeys(v for v in read if v not in inside)
        self.stored = [v for v in entering if self.rows.place(v) is not None]
        self.captured = [v for v in entering if self.rows.place(v) is None]
        self.computed = [*self.stored, *(n.operands[0] for n in self.known)]
        self._check()

    def _has_rows(self, node: Node) -> bool:
        return any(self.rows.place(v) is not None for v in node.results)

    def _check(self) -> None:
        summed = _descendants(self.live, {n.results[0] for n in self.sums})
        ready = _descendants(self.live, {n.results[0] for n in self.rows.reductions})
        apart = {n for n in self.nodes if not summed.isdisjoint(n.operands)}
        apart |= {v.node for v in self.computed if v in ready}
        for node in self.live:
            if node in apart:
                raise UserError(
                    "it compares single references with a sum over all of them: that needs two loops",
                    where=node.label,
                    mend="Use the pass fold-references instead of stream",
                )
        for output in self.graph.outputs:
            if self.rows.place(output.value) is not None:
                raise UserError("it has a row for each reference", where=f"output {output.name!r}")

    def emit(self, b: Builder, arrays: _Arrays, binding: Mapping[sympy.Expr, Dim]) -> dict[Value, Value]:
        """The whole program; returns where each value of the graph went."""
        mapping: dict[Value, Value] = {}
        for value in self.graph.inputs:
            if value not in self.given:
                mapping[value] = b.copy(value.node, {})[0]
        for node, array in zip(self.known, arrays.sums, strict=True):
            mapping[node.results[0]] = b.emit(Constant(Tensor.wrap(array)), origin=node.origin)[0]
        late = _descendants(self.live, {n.results[0] for n in self.sums})
        inside = {*self.nodes, *self.sums, *self.known}
        outside = [n for n in self.live if n not in inside and not self._has_rows(n)]
        for node in outside:
            if node.results[0] not in late:
                mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
        totals = self._totals(b, mapping, arrays)
        for node, total in zip(self.sums, totals, strict=True):
            mapping[node.results[0]] = _mean(b, node, total, binding)
        for node in outside:
            if node.results[0] in late:
                mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
        return mapping

    def _totals(self, b: Builder, mapping: Mapping[Value, Value], arrays: _Arrays) -> Sequence[Value]:
        """The sums over all references: over what is left of whole chunks, then chunk by chunk."""
        if not self.sums:
            return ()
        if arrays.left:
            rows = dict(zip(self.stored, _constants(b, self.stored, arrays.rest), strict=True))
            totals = self._sums(b, {**mapping, **rows}, {R: arrays.left})
        else:
            totals = [_zeros(b, n.results[0]) for n in self.sums]
        if not arrays.trips:
            return totals
        chunks = _constants(b, self.stored, arrays.chunks)
        whole = [v for v in self.captured if not isinstance(v.node.op, Constant)]
        body = self._body(whole, {R: arrays.size})
        scan = Scan(len(totals), len(chunks), body)
        return b.emit(scan, *totals, *chunks, *(mapping[v] for v in whole))

    def _body(self, whole: Sequence[Value], binding: Mapping[sympy.Expr, Dim]) -> Graph:
        with Builder() as b:

            def inputs(prefix: str, values: Iterable[Value]) -> list[Value]:
                types = {f"{prefix}_{i}": v.type.substitute(binding) for i, v in enumerate(values)}
                return [b.emit(Input(n), types=(t,), names=(n,))[0] for n, t in types.items()]

            before = inputs("sum", (n.results[0] for n in self.sums))
            mapping = dict(zip(self.stored, inputs("chunk", self.stored), strict=True))
            mapping |= dict(zip(whole, inputs("whole", whole), strict=True))
            for value in self.captured:
                if isinstance(value.node.op, Constant):
                    mapping[value] = b.copy(value.node, {})[0]
            sums = self._sums(b, mapping, binding)
            pairs = zip(before, sums, strict=True)
            return b.build("chunk", [Output(f"next_{i}", old + new) for i, (old, new) in enumerate(pairs)])

    def _sums(
        self, b: Builder, mapping: Mapping[Value, Value], binding: Mapping[sympy.Expr, Dim]
    ) -> list[Value]:
        """Emits the loop's nodes for as many references as `binding` says, and their sums."""
        where = dict(mapping)
        for node in self.nodes:
            where.update(zip(node.results, b.copy(node, where, binding), strict=True))
        sums = []
        for node in self.sums:
            with b.at(node.origin):
                sums.append(emit1(_sum_of(node), where[node.operands[0]]))
        return sums


class _Arrays:
    """What is stored: the values that come into the loop, chunk by chunk, and known sums.

    Attributes:
        size, trips, left: references in a chunk, chunks, and how many references are left over.
        chunks: [trips, ...] for each stored value.
        rest: the rows left over, for each stored value; none where nothing is left.
        sums: known sums or means over all references.
    """

    def __init__(self, loop: _Loop, given: Mapping[Value, Array], size: int, count: int) -> None:
        self.size = size
        self.trips, self.left = (count // size, count % size) if count > size else (0, count)
        self._loop, self._given = loop, given
        self._totals = [np.zeros((), n.results[0].dtype.numpy) for n in loop.known]
        shapes = [(v.dtype.numpy, _sizes(v, {R: size})) for v in loop.stored]
        self.chunks = [np.empty((self.trips, *shape), dtype) for dtype, shape in shapes]
        self.rest: list[Array] = []
        starts = range(0, self.trips * size, size)
        for trip, found in enumerate(self._computed(size, starts)):
            for chunk, array in zip(self.chunks, found, strict=True):
                chunk[trip] = array
        if self.left:
            (self.rest,) = self._computed(self.left, [self.trips * size])
        self.sums = [_averaged(n, t, {R: count}) for n, t in zip(loop.known, self._totals, strict=True)]

    def _computed(self, size: int, starts: Iterable[int]) -> Iterator[list[Array]]:
        """The stored values for `size` references from each start on; known sums add up on the way."""
        loop = self._loop
        part = Part(loop.graph, loop.computed, {R: size})
        for start in starts:
            rows = {v: _rows(loop.rows, v, a, slice(start, start + size)) for v, a in self._given.items()}
            found = part(rows)
            for i, node in enumerate(loop.known):
                (total,) = _sum_of(node).evaluate(found[len(loop.stored) + i])
                self._totals[i] = self._totals[i] + total
            yield found[: len(loop.stored)]


def _rows(rows: ReferenceRows, value: Value, array: Array, part: slice) -> Array:
    place = rows.place(value)
    assert place is not None
    return array[(slice(None),) * place.axis + (part,)]


def _sizes(value: Value, binding: Mapping[sympy.Expr, Dim]) -> tuple[int, ...]:
    return tuple(int(d) for d in value.tensor.substitute(binding).dims)


def _sum_of(node: Node) -> ReduceSum:
    op = node.op
    assert isinstance(op, ReduceSum | ReduceMean)
    return ReduceSum(op.axes, op.keepdims)


def _terms(node: Node, binding: Mapping[sympy.Expr, Dim]) -> Dim:
    """How many elements make up one of a mean; 1 for a sum, which isn't divided."""
    op = node.op
    return substitute(over(node.operands[0], op.axes), binding) if isinstance(op, ReduceMean) else 1


def _averaged(node: Node, total: Array, binding: Mapping[sympy.Expr, Dim]) -> Array:
    return np.asarray(total / int(_terms(node, binding)), total.dtype)


def _mean(b: Builder, node: Node, total: Value, binding: Mapping[sympy.Expr, Dim]) -> Value:
    terms = _terms(node, binding)
    with b.at(node.origin):
        return total if same(terms, 1) else total / number(terms, total.dtype)


def _zeros(b: Builder, like: Value) -> Value:
    return b.emit(Full(0.0, like.dtype, like.shape), origin=like.node.origin)[0]


def _constants(b: Builder, values: Sequence[Value], arrays: Sequence[Array]) -> list[Value]:
    pairs = zip(values, arrays, strict=True)
    return [b.emit(Constant(Tensor.wrap(a)), origin=v.node.origin, names=(v.name,))[0] for v, a in pairs]


def _descendants(nodes: Iterable[Node], values: Iterable[Value]) -> set[Value]:
    """`values` and all that is computed from them."""
    found = set(values)
    for node in nodes:
        if not found.isdisjoint(node.operands):
            found.update(node.results)
    return found
