"""Token ids that are moved before they are looked up, as a decoder's are: the way there, and back.

An encoder and a decoder read the same ids, the decoder those before each: shifted to the right, behind a
start token.  What the decoder's lookups get goes back to the tokens that were moved there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set

from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Node, Point, Value
from irshap.ir.dims import same_shape
from irshap.ir.walks import varying_values
from irshap.ops.cast import Cast
from irshap.ops.families import Elementwise, ZippedElementwise
from irshap.ops.gather import Gather, GatherND
from irshap.ops.index import GatherElements
from irshap.ops.program import Full
from irshap.ops.rows import RepeatRows
from irshap.ops.scatter import ScatterElements, ScatterND
from irshap.ops.shape import Move

__all__ = ["combined", "moved", "moved_back"]


def moved(graph: Graph, ids: Value) -> set[Value]:
    """`ids`, and the integer values each element of which is one of them, a function of it, or a constant.

    They may stand elsewhere, several times or not at all.
    """
    found = {ids}
    varying = varying_values(graph.nodes, graph.inputs)
    for node in graph.nodes:
        if _moves(node, varying, found):
            found.update(v for v in node.results if v.dtype.is_integer)
    return found


def combined(graph: Graph, ids: Value) -> set[Value]:
    """The integers that are each made of several of `ids`, as a box's width is of its sides."""
    alone = moved(graph, ids)
    found: set[Value] = set()
    for node in graph.nodes:
        several = _is_elementwise(node) and len(alone.intersection(node.operands)) > 1
        follows = _is_elementwise(node) or _carried(node) is not None
        if several or (follows and not found.isdisjoint(node.operands)):
            found.update(v for v in node.results if v.dtype.is_integer and v not in alone)
    return found


def moved_back(
    graph: Graph, place: Value, ids: Value, share: Value, sample: Callable[[Value], Value]
) -> Value:
    """What each of `ids` gets of `share`, which has the shape of `place`, where they were moved to.

    Emits; `place` is one of `moved(graph, ids)`, and `sample` gives values for the samples: where to is the
    sample's, if that depends on the ids (the last token that is no padding comes first, say).
    """
    made, shares = moved(graph, ids), {place: share}
    for node in reversed(graph.nodes):
        if ids in node.results or made.isdisjoint(node.results) or shares.keys().isdisjoint(node.results):
            continue
        for i, part in _back(node, shares, made, sample):
            operand = node.operands[i]
            shares[operand] = shares[operand] + part if operand in shares else part
    return shares[ids]


def _moves(node: Node, varying: Set[Value], found: Set[Value]) -> bool:
    carried = _carried(node)
    if carried is None:
        return _number(node, varying, found) is not None
    taken = [node.operands[i] for i in carried if node.operands[i] in varying]
    return bool(taken) and all(v in found for v in taken)


def _carried(node: Node) -> Sequence[int] | None:
    """The operands whose elements an op moves: all, or those that aren't positions; None if it does more."""
    op = node.op
    if isinstance(op, Move | RepeatRows):
        return range(len(node.operands))
    if isinstance(op, Gather | GatherElements | GatherND):
        return [0]
    return [0, 2] if isinstance(op, ScatterElements | ScatterND) and not op.add else None


def _number(node: Node, varying: Set[Value], found: Set[Value]) -> Value | None:
    """The one value that an op is a function of, element by element, as in Where(ids = -100, 0, ids)."""
    numbers = {v for v in node.operands if v in found}
    if len(numbers) != 1 or not _is_elementwise(node):
        return None
    (number,) = numbers
    shapes = all(same_shape(v.tensor.dims, number.tensor.dims) for v in node.results)
    return number if shapes and all(_is_of(v, number, varying) for v in node.operands) else None


def _is_of(value: Value, number: Value, varying: Set[Value]) -> bool:
    """Whether a value is a constant, or follows from one value, element by element."""
    if value is number or value not in varying:
        return True
    return _is_elementwise(value.node) and all(_is_of(v, number, varying) for v in value.node.operands)


def _is_elementwise(node: Node) -> bool:
    return isinstance(node.op, Elementwise | ZippedElementwise | Cast)


def _back(
    node: Node,
    shares: Mapping[Value, Value],
    made: Set[Value],
    sample: Callable[[Value], Value],
) -> Iterator[tuple[int, Value]]:
    """What each moved operand of `node` gets: by its transpose, of floats in the shapes of the ids."""
    given = next(shares[v] for v in node.results if v in shares)
    carried = _carried(node)
    if carried is None or isinstance(node.op, RepeatRows):
        yield next(i for i, v in enumerate(node.operands) if v in made), given
        return

    def zeros(v: Value) -> Value:
        return emit1(Full(0.0, given.dtype, v.tensor.dims))

    operands = tuple(zeros(v) if i in carried else sample(v) for i, v in enumerate(node.operands))
    at = Point(operands, tuple(zeros(v) for v in node.results))
    cts = [shares[v] if v in shares else zeros(v) for v in node.results]
    for i in carried:
        if node.operands[i] in made:
            yield i, node.op.adjoints(cts, at, i)
