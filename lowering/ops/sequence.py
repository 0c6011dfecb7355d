"""Sequences of tensors: lifting knows what is in them, so that taking something out needs no sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim
from irshap.ir.types import DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.program import constant
from irshap.ops.shape import concat, reshape, split

__all__ = ["SEQUENCES"]

SEQUENCES: dict[str, Callable[[Import], Sequence[Value]]] = {}
"""For each op that makes a sequence, what is in it.  The node itself stays opaque, for others to read."""


def _makes(kind: str) -> Callable[[Callable[[Import], Sequence[Value]]], Callable[[Import], Sequence[Value]]]:
    def register(function: Callable[[Import], Sequence[Value]]) -> Callable[[Import], Sequence[Value]]:
        SEQUENCES[kind] = function
        return function

    return register


def _items(n: Import) -> tuple[Value, ...]:
    value = n.inputs[0] if n.inputs else None
    found = None if value is None else n.facts.items.get(value)
    if found is None:
        raise Unmodeled("what is in its sequence is only known at run time")
    return found


def _position(n: Import, i: int, count: int) -> int:
    (position,) = n.ints(i)
    if not -count <= position < count:
        raise Unmodeled(f"position {position} is not one of {count}")
    return position % count


@_makes("SequenceEmpty")
def _empty(n: Import) -> Sequence[Value]:
    return ()


@_makes("SequenceConstruct")
def _constructed(n: Import) -> Sequence[Value]:
    return n.given()


@_makes("SequenceInsert")
def _inserted(n: Import) -> Sequence[Value]:
    items = _items(n)
    (at,) = n.ints(2) if n.has(2) else [len(items)]
    at = at + len(items) if at < 0 else at
    if not 0 <= at <= len(items):
        raise Unmodeled(f"position {at} is not one of {len(items)}")
    return (*items[:at], n.tensor(1), *items[at:])


@_makes("SequenceErase")
def _erased(n: Import) -> Sequence[Value]:
    items = _items(n)
    at = _position(n, 1, len(items)) if n.has(1) else len(items) - 1
    return (*items[:at], *items[at + 1 :])


@_makes("SplitToSequence")
def _split(n: Import) -> Sequence[Value]:
    x = n.tensor()
    axis = n.axis(n.attribute("axis", 0))
    size = x.shape[axis]
    sizes: list[Dim] = list(n.dims(1)) if n.has(1) else [1] * _count(size)
    if n.has(1) and n.tensor(1).rank == 0:
        (each,) = n.ints(1)
        whole, rest = divmod(_count(size), each)
        sizes = [each] * whole + [rest] * bool(rest)
    if len(sizes) > 1024:
        raise Unmodeled(f"a sequence of {len(sizes)} parts")
    parts = split(x, axis, [as_dim(d) for d in sizes])
    if n.has(1) or n.attribute("keepdims", 1):
        return parts
    return [reshape(p, (*p.shape[:axis], *p.shape[axis + 1 :])) for p in parts]


def _count(size: Dim) -> int:
    if not isinstance(size, int):
        raise Unmodeled(f"how many parts {size} has is only known at run time")
    return size


@importer("SequenceAt")
def _read_at(n: Import) -> Value:
    items = _items(n)
    return items[_position(n, 1, len(items))]


@importer("SequenceLength")
def _read_length(n: Import) -> Value:
    return constant(len(_items(n)), DType.I64)


@importer("ConcatFromSequence")
def _read_concat(n: Import) -> Value:
    items = list(_items(n))
    new = n.attribute("new_axis", 0)
    if not items or any(getattr(v.type, "shape", None) is None for v in items):
        raise Unmodeled("it joins nothing, or tensors of unknown rank")
    axis = n.axis(n.attributes["axis"], items[0].rank + new)
    if new:
        items = [reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in items]
    return concat(items, axis)
