"""How attributions leave a program: samples first, a number for each token, classes on an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irshap import contract
from irshap.attribution.moves import moved_back
from irshap.attribution.sources import holds_ids, in_order, model_inputs
from irshap.errors import IRError, ModelError
from irshap.ir.batch import BatchAxes
from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.dims import Dim, divide, product, same
from irshap.ops.gather import Gather
from irshap.ops.program import Input, Tap
from irshap.ops.reduce import ReduceSum
from irshap.ops.rows import RepeatRows
from irshap.ops.shape import reshape, to_front

__all__ = ["attributions", "batch_axes", "by_class", "in_own_order", "is_token", "own_names"]
__all__ += ["require_unexplained", "samples_first", "source_axes"]


def by_class(rows: Value, graph: Graph) -> Value:
    """Rows of (sample, class) pairs as [N, K, ...], or as they are when each sample has one class."""
    explained = (*graph.outputs_of(Role.TARGET_INDEX), *graph.outputs_of(Role.VALUES))[0].value
    return rows if explained.rank == 1 else reshape(rows, (*explained.shape, *rows.shape[1:]))


def batch_axes(graph: Graph) -> BatchAxes:
    """Where the batch is in a graph with a target: samples repeated for each class are rows of it."""
    repeated = [n.results[0] for n in graph.nodes if isinstance(n.op, RepeatRows)]
    return BatchAxes(graph, {v: 0 for v in repeated if isinstance(v.node.operands[0].node.op, Input)})


def source_axes(graph: Graph) -> list[int]:
    """The axis that holds the batch in each attributed tensor.

    Raises:
        ModelError: an op that it depends on mixes samples.
    """
    axes = batch_axes(graph)
    found = [axes.axis(o.value) for o in graph.outputs_of(Role.SOURCE)]
    if None in found:
        raise IRError("an attributed tensor has no batch axis")
    return [axis for axis in found if axis is not None]


def samples_first(value: Value, axis: int, rows: Dim) -> Value:
    """A tensor whose batch is on `axis`, as [rows, ...]: one row for each sample.

    Where that axis holds more (samples merged with positions, say), the rest becomes an axis of its own.
    """
    value = to_front(value, axis)
    merged = divide(value.shape[0], rows)
    if merged is None:
        raise IRError(f"axis {axis} of {value!r} doesn't count {rows} samples")
    return value if same(merged, 1) else reshape(value, (rows, merged, *value.shape[1:]))


def is_token(graph: Graph, source: Output) -> bool:
    """Whether a source stands for an input of token ids that is read in there."""
    return any(
        v.name == source.of and v is not source.value and holds_ids(graph, v) for v in model_inputs(graph)
    )


def own_names(graph: Graph) -> set[str]:
    """The names of a model's inputs and outputs: what is added gets others."""
    return {str(v.name) for v in graph.inputs} | {o.name for o in graph.outputs_of(Role.MODEL)}


def require_unexplained(graph: Graph) -> None:
    """Raises a ModelError where the model is a file that returns attributions of its own.

    It would compile, with a second set of them beside the first; who gives one means the model in it.
    """
    if contract.Metadata.EXPLAINED_OUTPUT in dict(graph.source.metadata):
        mend = "give the model that it was compiled from; irshap run explains samples with this file"
        raise ModelError("the model is already explained", mend=mend)


def in_own_order(graph: Graph, source: Output) -> bool:
    """Whether the tokens that a source reads in stand there in their order in the input."""
    place = _looked_up(source.value)
    return place is None or place in in_order(graph, graph.input(str(source.of)))


def attributions(graph: Graph, rows: Sequence[Value], sample: Callable[[Value], Value]) -> list[Output]:
    """The outputs for what each source of `graph` is attributed, given as [samples, ...].

    Over an embedding lookup the embedding's axes are summed: one number for each token of the
    input.  Several lookups of one input add up.  `sample` gives values of the graph for the samples.
    """
    found: dict[str, Value] = {}
    for source, value in zip(graph.outputs_of(Role.SOURCE), rows, strict=True):
        name = str(source.of)
        if is_token(graph, source):
            ids, place = graph.input(name), _looked_up(source.value)
            if place is None or in_own_order(graph, source):
                value = _per_element(value, ids)
            else:
                value = moved_back(graph, place, ids, _per_element(value, place), sample)
        found[name] = found[name] + value if name in found else value
    taken = own_names(graph)
    return [
        Output(
            contract.free(contract.attributions(name), taken), by_class(value, graph), Role.ATTRIBUTION, name
        )
        for name, value in found.items()
    ]


def _looked_up(value: Value) -> Value | None:
    """The indices of an embedding lookup."""
    while isinstance(value.node.op, Tap):
        (value,) = value.node.operands
    return value.node.operands[1] if isinstance(value.node.op, Gather) else None


def _per_element(value: Value, of: Value) -> Value:
    """Sums the trailing axes that `of` doesn't have, so that one number is left for each of its elements."""
    per_sample = product(of.shape[1:])
    kept = next(i for i in range(value.rank + 1) if same(product(value.shape[1:i]), per_sample) and i > 0)
    axes = tuple(range(kept, value.rank))
    summed = emit1(ReduceSum(axes, keepdims=False), value) if axes else value
    return reshape(summed, (value.shape[0], *of.shape[1:]))
