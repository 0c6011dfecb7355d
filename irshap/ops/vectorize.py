"""Many samples at once: a graph for one sample with an axis of N in front of all that depends on it.

An op takes that axis in a form of its own (`Op.vectorized`, a rule of JAX's vmap), or, as a convolution does,
beside an axis whose rows it keeps apart anyway (`Op.batch_axes`): of [N, 1, C, H, W] it gets [N, C, H, W].
Nothing else has to be known of where a model keeps its batch: reshapes that merge it with other axes, and
gathers of the sample's own row, are the affair of one sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product as choices

from irshap.errors import IRError, ModelError
from irshap.ir.builder import Builder, current, emit, emit1, inferred_types
from irshap.ir.core import Graph, MixesBatch, Node, Op, TypeMismatch, Value, tensors
from irshap.ir.dims import Dim, N, same_shape
from irshap.ir.types import TensorType, same_type
from irshap.ops.program import Opaque
from irshap.ops.reduce import Expand
from irshap.ops.shape import from_front, reshape, to_front

__all__ = ["apply", "many", "vectorize", "with_batch_on"]


def vectorize(graph: Graph, inputs: Mapping[str, int | None]) -> Graph:
    """`graph`, which computes for one sample, for N samples at once, with N in front of its outputs.

    Args:
        inputs: for each input that samples differ in its axis of size 1 that becomes N, or None where every
            sample is the whole of it: N comes in front.  Outputs that none of these changes stay as they are.

    Raises:
        ModelError: an op has no form for many samples; names the node.
    """
    with Builder() as b:
        plain: dict[Value, Value] = {}
        stacked: dict[Value, Value] = {}
        for value in graph.inputs:
            if str(value.name) not in inputs:
                plain[value] = b.copy(value.node, {})[0]
                continue
            axis = inputs[str(value.name)]
            kind = many(value.tensor, axis)
            given = b.emit(value.node.op, types=(kind,), origin=value.node.origin, names=(value.name,))[0]
            stacked[value] = reshape(to_front(given, axis or 0), (N, *value.shape))
        for node in graph.nodes:
            if any(v in stacked for v in node.operands):
                operands = [stacked[v] if v in stacked else plain[v] for v in node.operands]
                with b.at(node.origin):
                    results = _applied(node, operands, [v in stacked for v in node.operands])
                stacked.update(zip(node.results, map(_named, results, node.results), strict=True))
            else:
                plain.update(zip(node.results, b.copy(node, plain), strict=True))
        return b.rebuild(graph, {**plain, **stacked})


def with_batch_on(graph: Graph, axes: Sequence[int | None]) -> Graph:
    """A vectorized graph whose outputs have N in the place of an axis of size 1; None: in front of all."""
    with Builder() as b:
        mapping = b.graft(graph)
        pairs = zip(graph.outputs, axes, strict=True)
        outputs = [replace(o, value=_back(mapping[o.value], axis)) for o, axis in pairs]
        return b.build(graph.name, outputs, graph.properties, like=graph)


def many(kind: TensorType, axis: int | None) -> TensorType:
    """The type for N samples of a tensor that has `kind` for one: N on an axis of size 1, or in front."""
    dims = kind.dims
    return kind.with_shape((N, *dims) if axis is None else (*dims[:axis], N, *dims[axis + 1 :]))


def _back(value: Value, axis: int | None) -> Value:
    if axis is None or not isinstance(value.type, TensorType) or not value.shape or value.shape[0] != N:
        return value
    dims = value.shape[1:]
    without = (*dims[:axis], *dims[axis + 1 :])
    return from_front(reshape(value, (N, *without)), axis)


def _named(value: Value, old: Value) -> Value:
    # users name interior tensors: where the sample's axis is all that was added, it keeps its name
    if value.name is None and old.name is not None:
        object.__setattr__(value, "name", old.name)
    return value


def _applied(node: Node, operands: Sequence[Value], batched: Sequence[bool]) -> tuple[Value, ...]:
    label = node.op.title
    if not all(isinstance(v.type, TensorType) for v in operands):
        raise ModelError(f"{label} reads what is no tensor, of several samples", where=node.label)
    if not node.op.modeled or not all(isinstance(t, TensorType) for t in node.types):
        if (kept := _as_rows(node, operands, batched)) is None:
            raise ModelError(f"irshap doesn't know what {label} makes of several samples", where=node.label)
        return kept
    try:
        results = apply(node.op, operands, batched, N, tensors(node.types))
    except (IRError, TypeMismatch) as error:
        raise ModelError(f"{label} has no form for several samples: {error}", where=node.label) from error
    if results is None:
        raise ModelError(f"{label} has no form for several samples", where=node.label)
    wanted = [t.with_shape((N, *t.dims)) for t in tensors(node.types)]
    if not all(same_type(r.type, t) for r, t in zip(results, wanted, strict=True)):
        raise ModelError(f"{label} makes {results[0].type} of several samples", where=node.label)
    return results


def _as_rows(node: Node, operands: Sequence[Value], batched: Sequence[bool]) -> tuple[Value, ...] | None:
    """An op that isn't modeled, but is known to keep rows apart: it gets those of all samples.

    What is no tensor (a sequence of maps, one for each row) has no axis of its own for samples.
    """
    if any(t.shape is None for t in (*(v.type for v in operands), *node.types) if isinstance(t, TensorType)):
        return None
    one = [
        v.tensor.with_shape(v.shape[1:]) if many else v.tensor
        for v, many in zip(operands, batched, strict=True)
    ]
    for axes in _alike(node.op, one, batched):
        try:
            after = node.op.batch_axes(axes, one, node.types)  # type: ignore[arg-type]
        except MixesBatch:
            continue
        kept = [a for a in after if a is not None]
        if len(kept) < len(after):
            return None
        given = [
            v if a is None else reshape(from_front(v, a), _merged(v.shape, a))
            for v, a in zip(operands, axes, strict=True)
        ]
        types = [
            t.with_shape(_merged((N, *t.dims), a)) if isinstance(t, TensorType) else t
            for t, a in zip(node.types, kept, strict=True)
        ]
        results = current().emit(node.op, *given, types=tuple(types))
        return tuple(
            to_front(reshape(v, (*t.dims[:a], N, *t.dims[a:])), a) if isinstance(t, TensorType) else v
            for v, t, a in zip(results, node.types, kept, strict=True)
        )
    return None


def _alike(
    op: Op, operands: Sequence[TensorType], batched: Sequence[bool]
) -> Iterator[tuple[int | None, ...]]:
    """What may be the rows of the batched operands: the axes an op is known by, or one on which all line up.

    All choices would be too many: a file may join any number of operands.
    """
    rank = max((t.rank for t in operands), default=0)
    known: Sequence[Sequence[int]] = op.rows[:1] if isinstance(op, Opaque) else ()
    for lined in known or [[a - rank + t.rank for t in operands] for a in range(rank)]:
        if all(a >= 0 for a, many in zip(lined, batched, strict=True) if many):
            yield tuple(a if many else None for a, many in zip(lined, batched, strict=True))


def apply(
    op: Op, operands: Sequence[Value], batched: Sequence[bool], count: Dim, results: Sequence[TensorType]
) -> tuple[Value, ...] | None:
    """Emits `op` for `count` samples at once; None where it has no form for that.

    Args:
        batched: which operands have an axis of `count` in front.
        results: what the op makes of one sample; all results get that axis.
    """
    own = op.vectorized(_Operands(operands, batched, count))
    return own if own is not None else _beside(op, operands, batched, count, results)


@dataclass
class _Operands:
    """A `Stacked`."""

    operands: Sequence[Value]
    batched: Sequence[bool]
    count: Dim

    def led(self) -> Sequence[Value]:
        return [
            v if many else emit1(Expand((self.count, *v.shape)), v)
            for v, many in zip(self.operands, self.batched, strict=True)
        ]

    def aligned(self) -> Sequence[Value]:
        rank = max(v.rank - many for v, many in zip(self.operands, self.batched, strict=True))
        return [
            reshape(v, (self.count, *[1] * (rank + 1 - v.rank), *v.shape[1:])) if many else v
            for v, many in zip(self.operands, self.batched, strict=True)
        ]


def _beside(
    op: Op, operands: Sequence[Value], batched: Sequence[bool], count: Dim, results: Sequence[TensorType]
) -> tuple[Value, ...] | None:
    """By merging the samples' axis into one that `op` keeps apart: the first of each operand that serves."""
    candidates = [range(v.rank - 1) if many else (None,) for v, many in zip(operands, batched, strict=True)]
    for axes in choices(*candidates):
        shapes = [
            v.tensor if axis is None else v.tensor.with_shape(_merged(v.shape, axis))
            for v, axis in zip(operands, axes, strict=True)
        ]
        try:
            found = tensors(inferred_types(op, shapes))
            after = op.batch_axes(axes, shapes, found)
        except (MixesBatch, TypeMismatch):
            continue
        if all(
            a is not None and same_shape(t.dims, _merged((count, *r.dims), a))
            for a, t, r in zip(after, found, results, strict=True)
        ):
            merged = [
                v if axis is None else reshape(from_front(v, axis), t.dims)
                for v, axis, t in zip(operands, axes, shapes, strict=True)
            ]
            return tuple(
                to_front(reshape(v, (*r.dims[:a], count, *r.dims[a:])), a)
                for v, a, r in zip(emit(op, *merged), map(int, after), results, strict=True)  # type: ignore[arg-type]
            )
    return None


def _merged(shape: Sequence[Dim], axis: int) -> tuple[Dim, ...]:
    """[count, ...] with the first axis merged into `axis` of the others."""
    count, *dims = shape
    return (*dims[:axis], count * dims[axis], *dims[axis + 1 :])
