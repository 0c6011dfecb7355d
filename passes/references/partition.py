"""What of a program is computed while compiling, what in a loop over references, and what outside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import sympy

from irshap.errors import UserError
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import Dim, N, R, substitute, symbols_of
from irshap.ir.walks import descendants, determined, live
from irshap.ops.reduce import ReduceMean, ReduceSum, over
from irshap.passes.references.axes import ReferenceAxes
from irshap.passes.references.binding import reference_inputs
from irshap.passes.references.fixed import fixed_values
from irshap.passes.references.rematerialize import OPEN, rematerialized

__all__ = ["Partition", "nbytes", "sum_of", "terms"]

_FEWEST = 2
"""Fewer references at a time leave convolutions too little to do."""


@dataclass(frozen=True, eq=False)
class Partition:
    """Which nodes stand in the loop, and which values come into it.

    Attributes:
        given: the graph's inputs for references and their weights.
        axes: where the references are in each value.
        recompute: whether nothing is computed while compiling.
        live: the nodes that outputs need, in order.
        fixed: what follows from the references alone, and is computed while compiling.
        nodes: the loop's, in order: what depends on references, but isn't fixed.
        sums: the sums over references that end it; `known` are those that are computed while compiling.
        stored: the values with references that come into the loop, a chunk at a time.
        captured: the values without references that do.
    """

    graph: Graph
    given: tuple[Value, ...]
    axes: ReferenceAxes
    recompute: bool
    live: tuple[Node, ...]
    fixed: frozenset[Value]
    nodes: tuple[Node, ...]
    sums: tuple[Node, ...]
    known: tuple[Node, ...]
    stored: tuple[Value, ...]
    captured: tuple[Value, ...]

    @classmethod
    def of(cls, graph: Graph, *, recompute: bool) -> Partition:
        """The parts of a graph, with as much as can be computed while compiling, or nothing (`recompute`).

        Raises:
            UserError: the references can't be taken one after another, in one loop.
        """
        given, axes = tuple(reference_inputs(graph)), ReferenceAxes(graph)
        needed = live(graph.nodes, (o.value for o in graph.outputs))
        follows = set(given) if recompute else fixed_values(graph, given, {R: 1})
        fixed = follows & descendants(needed, given)
        rowed = [n for n in needed if axes.any(n.results)]
        nodes = [n for n in rowed if n.results[0] not in fixed]
        sums = [n for n in needed if n in axes.reductions]
        ends = [n for n in sums if n.results[0] not in fixed]
        stored, captured = _entering(nodes, ends, axes)
        found = cls(
            graph=graph,
            given=given,
            axes=axes,
            recompute=recompute,
            live=tuple(needed),
            fixed=frozenset(fixed),
            nodes=tuple(nodes),
            sums=tuple(ends),
            known=tuple(n for n in sums if n.results[0] in fixed),
            stored=stored,
            captured=captured,
        )
        found._check()
        return found

    @property
    def computed(self) -> list[Value]:
        """What is needed of the references while compiling: what is stored, and what known sums add."""
        return [*self.stored, *(n.operands[0] for n in self.known)]

    @property
    def outside(self) -> list[Node]:
        """The nodes before and behind the loop, in order."""
        inside = {*self.nodes, *self.sums, *self.known}
        return [n for n in self.live if n not in inside and not self.axes.any(n.results)]

    @property
    def late(self) -> set[Value]:
        """The loop's sums, and all that is computed from them: behind the loop."""
        return descendants(self.live, (n.results[0] for n in self.sums))

    def rematerialized(self, price: float, size: Callable[[Value], Dim], *, rounded: bool) -> Partition:
        """Stores what makes least of `price` times the bytes in store and of what the loop computes again.

        Args:
            size: the bytes that a value takes in store.
            rounded: whether it is rounded there.
        """
        rowed = (v for n in self.graph.statements for v in n.results if v in self.fixed)
        with_rows = [v for v in rowed if self.axes.axis(v) is not None]
        free = determined(self.live, (), lambda n: not n.op.is_input)
        _, again = rematerialized(self.stored, with_rows, free.__contains__, size, price, rounded=rounded)
        added = {*again, *self.nodes}
        nodes = tuple(n for n in self.live if n in added)
        stored, captured = _entering(nodes, self.sums, self.axes)
        return replace(self, stored=stored, captured=captured, nodes=nodes)

    def fitting(self, most: int) -> int:
        """How many references keep each tensor of the loop below `most` bytes for one sample; at least 2."""
        largest = max((nbytes([v]) for n in self.nodes for v in n.results), default=1)
        return max(_FEWEST, most // max(largest, 1))

    def _check(self) -> None:
        ready = descendants(self.live, {n.results[0] for n in self.axes.reductions})
        late = self.late
        apart = {n for n in self.nodes if not late.isdisjoint(n.operands)}
        apart |= {v.node for v in self.computed if v in ready}
        for node in self.live:
            if node in apart:
                raise UserError(
                    "it compares single references with a sum over all of them: that needs two loops",
                    where=node.label,
                    mend="Use the pass fold-references instead of stream",
                )
        for output in self.graph.outputs:
            if self.axes.axis(output.value) is not None:
                raise UserError("it has a row for each reference", where=f"output {output.name!r}")


def _entering(
    nodes: Iterable[Node], sums: Iterable[Node], axes: ReferenceAxes
) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """What these nodes of a loop, and its sums, read from outside: with references, and without."""
    inside = {v for n in nodes for v in n.results}
    read = dict.fromkeys(v for n in (*nodes, *sums) for v in n.operands if v not in inside)
    return tuple(v for v in read if axes.axis(v) is not None), tuple(v for v in read if axes.axis(v) is None)


def nbytes(values: Iterable[Value]) -> int:
    """The bytes of values for one sample and one reference; open axes are taken for middling ones."""
    sizes = (v.tensor.substitute({N: 1, R: 1}).nbytes for v in values)
    usual = (substitute(size, dict.fromkeys(symbols_of([size]), OPEN)) for size in sizes)
    return sum(size for size in usual if isinstance(size, int))


def sum_of(node: Node) -> ReduceSum:
    """The sum that a sum or mean starts with."""
    op = node.op
    assert isinstance(op, ReduceSum | ReduceMean)
    return ReduceSum(op.axes, op.keepdims)


def terms(node: Node, binding: Mapping[sympy.Expr, Dim]) -> Dim:
    """How many elements make up one of a mean; 1 for a sum, which isn't divided."""
    op = node.op
    return substitute(over(node.operands[0], op.axes), binding) if isinstance(op, ReduceMean) else 1
