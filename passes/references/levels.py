"""Which nodes of a loop over references take more of them at a time than the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irshap.ir.core import Node, Value
from irshap.ir.dims import N, R, divide, product
from irshap.ir.types import Array
from irshap.ops.shape import reshape, transpose
from irshap.passes.references.rows import Place

__all__ = ["Level", "ahead", "divided", "grouped", "joined", "nbytes"]

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
    nodes: list[Node]
    sums: list[Node]
    stored: list[Value]
    crossing: list[Value]
    captured: list[Value]


def divided(
    nodes: Sequence[Node], sums: Sequence[Node], captured: Collection[Value], size: int, groups: int
) -> list[Level]:
    """The levels of a loop over chunks of `size` references, of which `groups` go together if they can.

    What goes together makes no tensor larger than the loop's largest is for one chunk.

    Args:
        captured: the values without references that come into the loop.
    """
    largest = min(max((nbytes(n.results) for n in nodes), default=0) * size, _CACHED)
    first = ahead(nodes, sums, largest // (groups * size)) if groups > 1 else set()
    if len(first) < _SHARE * len(nodes):
        first = set()
    early, late = ([n for n in nodes if (n in first) is side] for side in (True, False))
    parts = [(own, together) for own, together in ((early, groups * size), (late, size)) if own]
    levels, known, left = list[Level](), set[Value](), list(sums)
    for own, together in parts or [(late, size)]:
        made = {v for n in own for v in n.results}
        # what no level makes comes in from outside, and is summed in the last one
        last = len(levels) == max(len(parts), 1) - 1
        ends = [n for n in left if last or n.operands[0] in made]
        left = [n for n in left if n not in ends]
        read = dict.fromkeys(v for n in (*own, *ends) for v in n.operands if v not in made)
        rows = [v for v in read if v not in captured]
        crossing = [v for v in rows if v in known]
        stored = [v for v in rows if v not in known]
        levels.append(Level(together, own, ends, stored, crossing, [v for v in read if v in captured]))
        known |= {*made, *rows}
    return levels


def nbytes(values: Iterable[Value]) -> int:
    """The bytes of values for one sample and one reference; 0 for what isn't known."""
    sizes = (v.tensor.substitute({N: 1, R: 1}).nbytes for v in values)
    return sum(size for size in sizes if isinstance(size, int))


def ahead(nodes: Sequence[Node], sums: Iterable[Node], limit: int) -> set[Node]:
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
    readers: Mapping[Value, list[Node]] = defaultdict(list)
    for node in (*nodes, *sums):
        for value in node.operands:
            readers[value].append(node)
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


def grouped(value: Value, place: Place, groups: int) -> Any:
    """References in `groups` groups one after another: [groups, ...]."""
    before, (rows, *after) = value.shape[: place.axis], value.shape[place.axis :]
    inner = divide(rows, product((place.outer, groups)))
    assert inner is not None
    split = reshape(value, (*before, place.outer, groups, inner, *after))
    at = place.axis + 1
    front = transpose(split, [at, *(a for a in range(split.rank) if a != at)])
    return reshape(front, (groups, *before, product((place.outer, inner)), *after))


def joined(arrays: Sequence[Array], place: Place) -> Array:
    """One array of the references of several, one after another."""
    if len(arrays) == 1:
        return arrays[0]
    outer = int(place.outer)
    split = [a.reshape(*a.shape[: place.axis], outer, -1, *a.shape[place.axis + 1 :]) for a in arrays]
    whole = np.concatenate(split, axis=place.axis + 1)
    return whole.reshape(*arrays[0].shape[: place.axis], -1, *arrays[0].shape[place.axis + 1 :])
