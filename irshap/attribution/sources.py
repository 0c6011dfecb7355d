"""What is attributed, and what is held at the sample's value: from names of tensors to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from irshap.attribution.moves import combined, moved
from irshap.errors import TargetError, near
from irshap.ir.builder import Builder, current, emit1
from irshap.ir.core import Graph, Node, Op, Output, Value
from irshap.ir.dims import N, as_dim, same, symbols_of
from irshap.ir.types import TensorType
from irshap.ir.walks import is_float, upstream, varying_values
from irshap.ops.cast import Cast
from irshap.ops.families import Elementwise, ZippedElementwise
from irshap.ops.gather import Gather
from irshap.ops.generate import OneHot
from irshap.ops.logic import Equal
from irshap.ops.program import Hold, Input, Tap
from irshap.ops.reduce import Expand
from irshap.ops.shape import Reshape, Transpose

__all__ = [
    "Attributed",
    "find_sources",
    "holds_ids",
    "in_order",
    "model_inputs",
    "names_in",
    "with_held",
    "with_taps",
]


@dataclass(frozen=True, eq=False)
class Attributed:
    """A tensor whose difference is attributed.

    `of` is what the attribution is called after: the tensor itself, or the integer input that is read in
    (by an embedding lookup, or a cast to float) where `value` stands.
    """

    name: str
    value: Value
    of: str


def names_in(listed: str) -> list[str]:
    """The names in a comma-separated list."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def model_inputs(graph: Graph) -> list[Value]:
    """The model's own inputs."""
    return [v for v in graph.inputs if isinstance(v.node.op, Input) and v.node.op.kind == "model"]


def with_held(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph with every use of the named tensors held at the sample's value.

    Raises:
        TargetError: no such tensor.
    """
    return _behind(graph, {_named(graph, name) for name in names}, Hold())[0]


def with_taps(graph: Graph, sources: Sequence[Attributed]) -> tuple[Graph, list[Attributed]]:
    """The graph in which no rewrite fuses an interior attributed tensor away, and where those are in it."""
    interior = {s.value for s in sources if not isinstance(s.value.node.op, Input)}
    tapped, mapping = _behind(graph, interior, Tap())
    return tapped, [replace(s, value=mapping[s.value]) for s in sources]


def _behind(graph: Graph, values: set[Value], op: Op) -> tuple[Graph, dict[Value, Value]]:
    """The graph with `op` between some values and their uses, and where each of its values went."""
    if not values:
        return graph, {v: v for v in graph.values()}

    def visit(node: Node, mapping: Mapping[Value, Value]) -> list[Value]:
        copies = zip(node.results, current().copy(node, mapping), strict=True)
        return [emit1(op, new) if old in values else new for old, new in copies]

    with Builder() as b:
        mapping = b.extend(graph.statements, {}, visit)
        return b.rebuild(graph, mapping), mapping


def _named(graph: Graph, name: str) -> Value:
    known_as = dict(graph.source.aliases).get(name, name)
    found = [v for v in graph.values() if v.name == known_as]
    if not found:
        known = [v.name for v in graph.values() if v.name]
        what = f"the model has no tensor {name!r} that an output depends on"
        raise TargetError(what, mend=near(name, known))
    return found[-1]


def find_sources(graph: Graph, explained: Output, wrt: Sequence[str]) -> list[Attributed]:
    """The attributed tensors: those named, or every float input and embedding lookup of an integer input.

    An integer input without a lookup keeps the sample's value, as masks do, and so does one that lookups read
    both alone and combined (a box by its sides and by its width), so that no reference is half another box.
    Only where nothing else could be attributed, the latter are, and integer inputs that are cast to float.

    Raises:
        TargetError: a tensor that doesn't exist or can't be attributed, or none is left.
    """
    above = upstream([explained.value])
    inputs = [v for v in model_inputs(graph) if v in above]
    found: list[Attributed] = []
    if wrt:
        for name in dict.fromkeys(wrt):
            found += _wanted(graph, name, explained, above)
    else:
        whole = [v for v in inputs if is_float(v) or not _combines(graph, v, above)]
        for value in whole:
            found += _plain(graph, value, above) if is_float(value) else lookups(graph, value, above)
        found = found or [s for value in inputs for s in lookups(graph, value, above)]
        if not found:
            found = [s for value in inputs for s in _casts(graph, value, above)]
    if not found:
        listed = ", ".join(f"{v.name}: {v.type}" for v in model_inputs(graph)) or "it has none"
        raise TargetError(
            f"output {explained.name!r} depends on no float input that could be attributed ({listed})",
            mend="Name an interior float tensor with wrt, or hold fewer tensors (context)",
        )
    for source in found:
        _check_varies(source)
    return found


def _plain(graph: Graph, value: Value, above: set[Value]) -> list[Attributed]:
    """An input, or what it is cast to where it is in half precision: so differences keep their digits.

    One that is read as whole numbers alone holds token ids, as Keras passes them: its lookups stand for it.
    """
    readers = [n for n in graph.nodes if value in n.operands]
    if holds_ids(graph, value) and (
        tokens := [s for n in readers for s in lookups(graph, n.results[0], above)]
    ):
        return [replace(s, of=str(value.name)) for s in tokens]
    half = value.dtype.bytes < 4 and len(readers) == 1
    as_single = half and isinstance(readers[0].op, Cast) and is_float(readers[0].results[0])
    return [Attributed(str(value.name), readers[0].results[0] if as_single else value, str(value.name))]


def holds_ids(graph: Graph, value: Value) -> bool:
    """Whether an input is integer, or floats that are read as whole numbers alone."""
    readers = [n for n in graph.nodes if value in n.operands] if is_float(value) else []
    as_integers = [isinstance(n.op, Cast) and n.op.to.is_integer for n in readers]
    return not is_float(value) or (bool(readers) and all(as_integers))


def _wanted(graph: Graph, name: str, explained: Output, above: set[Value]) -> list[Attributed]:
    value = _named(graph, name)
    if not is_float(value):
        found = lookups(graph, value, above) or _casts(graph, value, above)
        if not found:
            what = f"tensor {name!r} is no float tensor, and no embedding lookup reads it"
            raise TargetError(what, mend="attribute a float tensor behind it: irshap print MODEL shows names")
        return found
    if value not in above:
        what = f"output {explained.name!r} doesn't depend on tensor {name!r}"
        raise TargetError(what, mend="explain another output, or attribute a tensor before it")
    return _plain(graph, value, above) if value.node.op.is_input else [Attributed(name, value, name)]


def _check_varies(source: Attributed) -> None:
    inputs = [v for v in upstream([source.value]) if isinstance(v.node.op, Input)]
    if not inputs:
        raise TargetError(
            f"tensor {source.name!r} is the same for every sample and reference: nothing is attributed to it",
            mend="Leave it out of wrt, or hold fewer tensors (context)",
        )
    for value in inputs:
        dims = value.type.shape if isinstance(value.type, TensorType) else None
        counting = [d for d in dims or () if N in symbols_of([d])]
        if len(counting) != 1:
            raise TargetError(
                f"input {value.name!r} is {value.type}: its first axis doesn't count samples",
                mend=f"Hold it at the sample's value: context={value.name}",
            )


def lookups(graph: Graph, ids: Value, above: set[Value]) -> list[Attributed]:
    """The embedding lookups that an integer value indexes: rows of a table, or of 0 and 1, one an element."""
    if not isinstance(ids.type, TensorType) or not ids.type.dtype.is_integer:
        return []
    in_place = in_order(graph, ids)
    indices = in_place | {v for v in moved(graph, ids) if _counts_samples_first(v)}
    tables = (
        node.results[0] for node in graph.nodes if _is_one_hot(node, in_place) or _is_lookup(node, indices)
    )
    found = [v for v in tables if v in above and is_float(v)]
    return [Attributed(_name_of(v, ids, i, "lookup"), v, str(ids.name)) for i, v in enumerate(found)]


def _combines(graph: Graph, ids: Value, above: set[Value]) -> bool:
    """Whether a lookup's index is made of several of an integer input's elements."""
    if not isinstance(ids.type, TensorType):
        return False
    indices = combined(graph, ids)
    return any(_is_lookup(n, indices) and n.results[0] in above for n in graph.nodes)


def _is_lookup(node: Node, indices: set[Value]) -> bool:
    """Whether a node takes rows of a table, by one of these indices."""
    if not isinstance(node.op, Gather) or node.op.axis != 0:
        return False
    return node.operands[1] in indices and not _varies(node.operands[0])


def _is_one_hot(node: Node, ids: set[Value]) -> bool:
    """Whether a node makes a vector of each id behind all its axes: OneHot, or Equal(id, 0 .. C - 1)."""
    if isinstance(node.op, OneHot):
        return node.operands[0] in ids and node.op.axis == node.operands[0].rank
    if not isinstance(node.op, Cast) or not isinstance(node.operands[0].node.op, Equal):
        return False
    a, b = node.operands[0].node.operands
    one, numbers = (a, b) if a in ids else (b, a)
    return (
        one in ids
        and not _varies(numbers)
        and one.rank == node.results[0].rank
        and same(one.shape[-1], 1)
        and same(node.results[0].tensor.size, as_dim(one.tensor.size * numbers.shape[-1]))
    )


def _casts(graph: Graph, ids: Value, above: set[Value]) -> list[Attributed]:
    """Where an integer input becomes float, element for element."""
    if not isinstance(ids.type, TensorType) or not ids.type.dtype.is_integer:
        return []
    whole = in_order(graph, ids)
    found = [
        node.results[0]
        for node in graph.nodes
        if isinstance(node.op, Cast) and node.op.to.is_float and node.operands[0] in whole
    ]
    return [
        Attributed(_name_of(v, ids, i, "cast"), v, str(ids.name)) for i, v in enumerate(found) if v in above
    ]


def _name_of(value: Value, ids: Value, index: int, kind: str) -> str:
    return value.name or f"{ids.name}_{kind}_{index}"


def _varies(value: Value) -> bool:
    return any(isinstance(v.node.op, Input) for v in upstream([value]))


_ELEMENTWISE = (Elementwise, ZippedElementwise, Cast, Reshape, Expand)


def in_order(graph: Graph, ids: Value) -> set[Value]:
    """The integer values with one element for each of `ids`, in order, that depend on that element alone."""
    found = {ids}
    dependent = varying_values(graph.nodes, found)
    size = ids.tensor.size
    for node in graph.nodes:
        varying = [v for v in node.operands if v in dependent]
        if varying and _in_order(node) and all(v in found for v in varying):
            found.update(v for v in node.results if same(v.tensor.size, size))
    return {v for v in found if v.dtype.is_integer}


def _counts_samples_first(value: Value) -> bool:
    dims = value.tensor.dims
    return bool(dims) and N in symbols_of([dims[0]]) and N not in symbols_of(dims[1:])


def _in_order(node: Node) -> bool:
    """Whether a sample's elements keep their order: a transpose may move the batch, and axes of size 1."""
    if not isinstance(node.op, Transpose):
        return isinstance(node.op, _ELEMENTWISE)
    dims = node.operands[0].tensor.dims
    own = [axis for axis in node.op.perm if not (same(dims[axis], 1) or N in symbols_of([dims[axis]]))]
    return own == sorted(own)
