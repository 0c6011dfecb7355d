"""A loop over references: its levels, of which the first take more of them at a time than the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from irshap.ir.core import Node, Value
from irshap.ir.dims import Dim, same
from irshap.ir.walks import readers_of
from irshap.ops.program import Constant
from irshap.passes.references.partition import Partition, nbytes
from irshap.passes.references.plan import Plan

__all__ = ["Level", "Loop"]

_CACHED = 8 * 2**20
"""Tensors of this size, of which a node has two or three, still stay in a cache."""

_NODE = 16 * 2**10
"""Bytes whose way from one level to the next takes about as long as running a node once more."""

_SHARE = 0.1
"""Of a loop's nodes, those that must be able to go ahead for another loop to be worth it."""

_WAY = 4
"""Nodes on that way: two reshapes, a transposition, the loop's slice."""


@dataclass(frozen=True)
class Level:
    """The part of a loop that takes `size` references at a time, in a loop of its own inside the one before.

    Attributes:
        nodes: its own, in order.
        sums: the sums over references of its values.
        stored: values with references that come into the loop here.
        crossing: values with references of the level before that it reads, or that both read.
        captured: values without references that it reads.
    """

    size: int
    nodes: tuple[Node, ...]
    sums: tuple[Node, ...]
    stored: tuple[Value, ...]
    crossing: tuple[Value, ...]
    captured: tuple[Value, ...]


@dataclass(frozen=True, eq=False)
class Loop:
    """What is computed in chunks: the parts of a program, by a plan, level by level."""

    parts: Partition
    plan: Plan
    levels: tuple[Level, ...]

    @classmethod
    def of(cls, parts: Partition, plan: Plan) -> Loop:
        """Tells which nodes take how many references at a time: more where tensors are small."""
        levels = _divided(parts.nodes, parts.sums, {*parts.captured}, plan.size, plan.groups)
        return cls(parts, plan, tuple(levels))

    def trips(self, i: int) -> Dim:
        """How often level i runs for each time that the one around it does."""
        size = self.levels[i].size
        return self.levels[i - 1].size // size if i else self.plan.trips(size)

    def runs_once(self, i: int) -> bool:
        """Whether level i needs no loop; outside of one a load would compute and keep what isn't stored."""
        return same(self.trips(i), 1) and not self.parts.recompute and not self._spares(i)

    def _spares(self, i: int) -> bool:
        """Whether a loop of one trip is worth it: what it computes again, and needn't be stored for all
        references, is more than the weights that its body has then, of which a load makes copies.
        """
        level, fixed = self.levels[i], self.parts.fixed
        again = [n for n in level.nodes if fixed.issuperset(n.results)]
        made = {v for n in again for v in n.results}
        read = {v for n in (*level.nodes, *level.sums) if n not in again for v in n.operands}
        sources = {v for n in again for v in n.operands if v in level.stored} - read
        weights = (v for v in level.captured if isinstance(v.node.op, Constant))
        return (nbytes(read & made) - nbytes(sources)) * level.size > nbytes(weights)


def _divided(
    nodes: Sequence[Node], sums: Sequence[Node], captured: Collection[Value], size: int, groups: int
) -> list[Level]:
    """The levels of a loop over chunks of `size` references, of which `groups` go together if they can.

    What goes together makes no tensor larger than the loop's largest is for one chunk.

    Args:
        captured: the values without references that come into the loop.
    """
    largest = min(max((nbytes(n.results) for n in nodes), default=0) * size, _CACHED)
    first = _ahead(nodes, sums, largest // (groups * size)) if groups > 1 else set()
    if len(first) < _SHARE * len(nodes):
        first = set()
    early, late = ([n for n in nodes if (n in first) is side] for side in (True, False))
    split = [(own, together) for own, together in ((early, groups * size), (late, size)) if own]
    levels, known, left = list[Level](), set[Value](), list(sums)
    for own, together in split or [(late, size)]:
        made = {v for n in own for v in n.results}
        # what no level makes comes in from outside, and is summed in the last one
        last = len(levels) == max(len(split), 1) - 1
        ends = [n for n in left if last or n.operands[0] in made]
        left = [n for n in left if n not in ends]
        read = dict.fromkeys(v for n in (*own, *ends) for v in n.operands if v not in made)
        rows = [v for v in read if v not in captured]
        level = Level(
            size=together,
            nodes=tuple(own),
            sums=tuple(ends),
            stored=tuple(v for v in rows if v not in known),
            crossing=tuple(v for v in rows if v in known),
            captured=tuple(v for v in read if v in captured),
        )
        levels.append(level)
        known |= {*made, *rows}
    return levels


def _ahead(nodes: Sequence[Node], sums: Iterable[Node], limit: int) -> set[Node]:
    """The nodes of a loop that can go before the rest: none needs the rest, or makes over `limit` bytes.

    A network's cotangent begins small, at the output, and grows on its way to the input.  A value that goes
    over to the rest is kept for all references that are together in the first part; it must spare as many
    nodes as are worth that.
    """
    first: set[Node] = set()
    known: set[Value] = set()
    made = {v for n in nodes for v in n.results}
    for node in nodes:
        if nbytes(node.results) <= limit and all(v in known or v not in made for v in node.operands):
            first.add(node)
            known.update(node.results)
    readers = readers_of((*nodes, *sums))
    inside = {*first, *sums}
    for i, node in reversed([*enumerate(nodes)]):
        read = [n for v in node.results for n in readers[v]]
        if node not in first or not inside.isdisjoint(read):
            continue
        if nbytes(node.results) > _NODE * (_spared(i, nodes, first, readers) - _WAY):
            first.remove(node)
            inside.remove(node)
    return first


def _spared(
    i: int, nodes: Sequence[Node], first: Collection[Node], readers: Mapping[Value, list[Node]]
) -> int:
    """How many nodes of `first` serve node i alone, itself among them."""
    own = {nodes[i]}
    needed = set(nodes[i].operands)
    for node in reversed(nodes[:i]):
        serves = node in first and not needed.isdisjoint(node.results)
        if serves and all(own.issuperset(readers[v]) for v in node.results):
            own.add(node)
            needed.update(node.operands)
    return len(own)
