"""Regions of a graph that become one op: closed programs between a few values and one result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Output, Value
from irshap.ir.types import TensorType, Type
from irshap.ir.walks import is_float
from irshap.ops.arithmetic import Where
from irshap.ops.by_row import ByRow
from irshap.ops.program import Constant, Full, Input
from irshap.ops.reduce import Expand

__all__ = ["Region", "by_row", "reads_masked"]


@dataclass(frozen=True)
class Region:
    """The nodes between a few tensors, its roots, and the result of the last of them.

    `carried`: what the last node takes beside what the others make of the roots; a root, too, may be there.
    """

    roots: tuple[Value, ...]
    nodes: Sequence[Node]
    carried: tuple[Value, ...] = ()

    @property
    def result(self) -> Value:
        """What comes out."""
        return self.nodes[-1].results[0]

    @cached_property
    def operands(self) -> tuple[Value, ...]:
        """The roots, what is carried, then what else is read and is no constant."""
        named = (*self.roots, *self.carried)
        return (*named, *(v for v in self._read if v not in named and not isinstance(v.node.op, Constant)))

    @cached_property
    def _read(self) -> Sequence[Value]:
        inside = {v for n in self.nodes for v in n.results}
        return list(dict.fromkeys(v for n in self.nodes for v in n.operands if v not in inside))

    def body(self, types: Sequence[Type]) -> Graph:
        """The program, for operands of these types."""
        *made, last = self.nodes
        with Builder() as b:
            formals = [
                b.emit(Input(f"operand{i}"), types=(t,), names=(f"operand{i}",))[0]
                for i, t in enumerate(types)
            ]
            pairs = list(zip(self.operands, formals, strict=True))
            carried = dict(pairs[len(self.roots) :][: len(self.carried)])
            inner = dict(reversed(pairs))
            constants = [v.node for v in self._read if v not in inner]
            b.extend([*constants, *made], inner)
            inner |= carried
            b.extend([last], inner)
            return b.build("f", [Output("y", inner[self.result])])


def reads_masked(node: Node, varying: Collection[Value]) -> bool:
    """Whether an operand was masked with infinity by a choice: its own difference isn't finite."""
    choices = (v.node.operands for v in node.operands if isinstance(v.node.op, Where))
    return any(which in varying and any(map(_is_infinite, values)) for which, *values in choices)


def _is_infinite(value: Value) -> bool:
    op = value.node.op
    if isinstance(op, Expand):
        return _is_infinite(value.node.operands[0])
    if isinstance(op, Full):
        return bool(np.isinf(op.value))
    return isinstance(op, Constant) and is_float(value) and bool(np.isinf(op.value.array).any())


def by_row(
    last: Node, varying: Collection[Value], scores: Set[Value], place: Callable[[Node], int]
) -> tuple[Region, ByRow] | None:
    """The region that ends in `last` and is a function of the rows of one float tensor, if there is one.

    The floats that `last` itself takes may vary, too, where it is affine in them.  What was masked with
    infinity is a part of the region.  It starts at the nearest tensor that is no choice itself: scores that a
    choice masked with -inf have no difference.

    `scores`: what it may start at, the values behind a layer with weights.  Their elements are in one unit,
    so that squares of differences compare; the features of a model aren't.
    """
    if not _is_known(last):
        return None
    masked = reads_masked(last, varying)
    floats = dict.fromkeys(v for v in last.operands if v in varying and is_float(v))
    carried = () if masked else tuple(floats)
    if carried and not last.op.linear_in(frozenset(i for i, v in enumerate(last.operands) if v in floats)):
        return None
    front = {v for v in last.operands if v in varying and v not in carried}
    found = None
    for root, nodes in _narrowings(last, front, varying, scores, place):
        region = Region((root,), nodes, carried)
        op = ByRow(region.body([v.type for v in region.operands]), len(carried))
        if op.rows() is None:
            continue
        found = region, op
        if all(is_float(v) for v in root.node.operands if v in varying):
            break
    return found


def _is_known(node: Node) -> bool:
    """Whether an op that irshap models makes tensors of known shape of such tensors."""
    values = (*node.operands, *node.results)
    shaped = all(isinstance(v.type, TensorType) and v.type.shape is not None for v in values)
    return shaped and node.op.modeled and not node.op.stops_change


def _narrowings(
    last: Node,
    front: set[Value],
    varying: Collection[Value],
    scores: Set[Value],
    place: Callable[[Node], int],
) -> Iterator[tuple[Value, Sequence[Node]]]:
    """The one float tensor that `front` is made of, and the nodes behind it: the nearest first.

    None is beyond the last layer with weights.
    """
    inside = {last}
    while front:
        if len(front) == 1 and all(map(is_float, front)):
            yield next(iter(front)), sorted(inside, key=place)
        # the latest first: none that is left depends on it
        value = max(front, key=lambda v: place(v.node))
        node = value.node
        if value not in scores or node.op.layer is not None or node.op.bodies or not _is_known(node):
            return
        front.difference_update(node.results)
        inside.add(node)
        front |= {v for v in node.operands if v in varying}
