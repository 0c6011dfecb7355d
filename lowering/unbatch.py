"""Models whose batch can't be followed: lifted for one sample, then for N at once, and checked by running.

A batch merged into another axis (the sequence first: [L, N, E] -> [L N, E]), rows numbered by Range(N), or a
shape that is only known for one sample: with a batch of 1 all of these are constants or reshapes, and
`irshap.ops.vectorize` puts an axis for the samples in front.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from irshap.errors import ModelError
from irshap.ir.batch import BatchAxes, batch_axes
from irshap.ir.core import Graph, Output
from irshap.ir.dims import N, symbols_of
from irshap.ir.types import Array, TensorType
from irshap.lowering.batch_plan import BatchPlan, forget_shapes
from irshap.lowering.files.session import RuntimeRefusal
from irshap.lowering.lower import lowered
from irshap.lowering.rebatch import (
    TRIALS,
    close,
    least_integer,
    random,
    refuse_too_large,
    rounding,
    rows_of,
    runner,
)
from irshap.ops.vectorize import many, vectorize, with_batch_on

__all__ = ["Check", "follows_batch", "require_tensors", "with_samples_in_front"]

_ROWS, _DRAWS = (2, 3), 3


def follows_batch(graph: Graph) -> bool:
    """Whether the rows of every output are known to depend on the same rows of the inputs alone."""
    axes = batch_axes(graph)
    return all(axes.reason(o.value) is None and _keeps_rows(o, axes) for o in graph.outputs)


def _keeps_rows(output: Output, axes: BatchAxes) -> bool:
    """Whether an output has a row for each sample; of what is no tensor, its op tells it."""
    if isinstance(output.value.type, TensorType):
        return rows_of(output) is not None
    return axes.axis(output.value) == 0


def with_samples_in_front(
    original: onnx.ModelProto,
    plan: BatchPlan,
    lifted: Callable[[onnx.ModelProto, Mapping[str, str]], Graph],
    trained: Mapping[str, str],
    *,
    stacked: bool = False,
) -> Graph:
    """The graph of `original` for N samples, by way of that for one.

    Args:
        plan: names the batch in the types of the inputs.
        lifted: lifts `original` with the types of a model's inputs, and with initializers as inputs.
        trained: which become inputs: it is the same graph, and what is compared has their values.
        stacked: whether outputs that have no axis for samples get one, where the original takes one sample.

    Raises:
        ModelError: an op has no form for several samples, or the result isn't what the original gives.
    """
    inputs = plan.axes
    try:
        types = _for_one_sample(plan.model, inputs)
        alone = lifted(types, {})
        require_tensors(alone)
        # before anything is run: what broken files make a runtime do is anyone's guess
        graph = vectorize(alone, inputs)
        refuse_too_large(original, graph)
        check = Check(original, alone, inputs, apart=plan.changes_shapes)
        outputs = check.batch_of_outputs(stacked)
        graph = with_batch_on(graph, outputs)
        check.compare(graph, outputs)
        if trained:
            graph = with_batch_on(vectorize(lifted(types, trained), inputs), outputs)
    except (RuntimeRefusal, EncodeError) as error:
        raise ModelError(str(error)) from error
    return graph


def require_tensors(graph: Graph) -> None:
    """Raises ModelError where an input is no tensor, or one of unknown shape: no random one can be made."""
    for value in graph.inputs:
        if not isinstance(value.type, TensorType) or value.type.shape is None:
            raise ModelError(f"input {value.name!r} is {value.type}: no tensor of a known shape")


def _for_one_sample(types: onnx.ModelProto, inputs: Mapping[str, int]) -> onnx.ModelProto:
    one = onnx.ModelProto()
    one.CopyFrom(types)
    for value in one.graph.input:
        if value.name in inputs:
            value.type.tensor_type.shape.dim[inputs[value.name]].dim_value = 1
    # what is declared of the rest holds for any batch, and is inferred again
    forget_shapes(one)
    return one


def _together(parts: Sequence[Any], axis: int | None, batched: bool) -> Any:
    """What each sample alone gives, as one batch; `axis` None: samples have no axis for it.

    Raises:
        ModelError: they don't have the axis, or differ in others.
    """
    if all(map(_maps, parts)):
        return [one for part in parts for one in part]
    try:
        return np.concatenate(parts, axis) if axis is not None else np.stack(parts) if batched else parts[0]
    except ValueError as error:
        raise ModelError(f"what single samples give can't be joined: {error}") from error


def _maps(output: Any) -> bool:
    return isinstance(output, list) and all(isinstance(one, dict) for one in output)


def _same(a: Any, b: Any, least: float) -> bool:
    if _maps(a) and _maps(b):
        x, y = (np.array([list(one.values()) for one in each], np.float32) for each in (a, b))
        return [list(one) for one in a] == [list(one) for one in b] and close(x, y, least)
    return close(a, b, least)


def _has_batch(output: Output) -> bool:
    return N in symbols_of(getattr(output.value.type, "shape", None) or ())


class Check:
    """What the original gives for random rows: `apart`, each alone, where it takes no others together."""

    def __init__(
        self, original: onnx.ModelProto, alone: Graph, inputs: Mapping[str, int | None], *, apart: bool
    ) -> None:
        self.alone, self.inputs = alone, inputs
        self.run, self.least = runner(original), least_integer(alone)
        self.trial = next(t for t in TRIALS if t == TRIALS[-1] or self._takes(t))
        # random rows may be such that only each alone makes sense: of one count of marked tokens each, say
        self.apart = apart or not all(self._takes(self.trial, rows) for rows in _ROWS)

    def _feeds(self, rows: int, trial: tuple[int, int], draw: int = 0) -> dict[str, Array]:
        feeds = {}
        for seed, value in enumerate(self.alone.inputs, draw * len(self.alone.inputs)):
            name, kind = str(value.name), value.tensor
            kind = many(kind, self.inputs[name]) if name in self.inputs else kind
            feeds[name] = random(name, kind, seed, trial, rows, self.least)
        return feeds

    def _alone(self, feeds: Mapping[str, Array], i: int) -> list[Any]:
        """What the original gives for sample i."""
        given = dict(feeds)
        for name, axis in self.inputs.items():
            given[name] = feeds[name][i] if axis is None else feeds[name].take([i], axis)
        return self.run(given)

    def _takes(self, trial: tuple[int, int], rows: int = 0) -> bool:
        """Whether the original takes a sample alone, or this many together."""
        try:
            if rows:
                self.run(self._feeds(rows, trial))
            else:
                self._alone(self._feeds(1, trial), 0)
        except RuntimeRefusal:
            return False
        return True

    def batch_of_outputs(self, stacked: bool) -> list[int | None]:
        """The axis of each output that counts samples: the leading one, or that which grows with them.

        With `stacked` None where one sample's output has no axis for it, as behind a Squeeze, and the
        original takes no other number of samples: it gets one in front.
        """
        found: list[int | None]
        if self.apart:
            shapes = [getattr(o.value.type, "shape", None) or () for o in self.alone.outputs]
            found = [shape.index(1) if 1 in shape else None if stacked else 0 for shape in shapes]
        else:
            few, many = (self.run(self._feeds(rows, self.trial)) for rows in _ROWS)
            grown = [
                [i for i, (a, b) in enumerate(zip(np.shape(x), np.shape(y), strict=True)) if (a, b) == _ROWS]
                for x, y in zip(few, many, strict=True)
            ]
            found = [axes[0] if len(axes) == 1 else 0 for axes in grown]
        for output, axis in zip(self.alone.outputs, found, strict=True):
            kind = output.value.type
            if not isinstance(kind, TensorType):
                continue  # a sequence of maps has one for each row
            shape = kind.shape
            if shape is None or (axis is not None and (len(shape) <= axis or shape[axis] != 1)):
                raise ModelError(f"output {output.name!r}, {kind} for one sample, has no axis for the batch")
        return found

    def _given_by(self, graph: Graph, draw: int) -> tuple[dict[str, Array], list[Any]]:
        """Rows, and what the graph gives for them.

        What the original takes may leave nothing (8 frames behind four poolings) that the graph would take.
        """
        run = runner(lowered(graph))
        for trial in TRIALS[TRIALS.index(self.trial) :]:
            feeds = self._feeds(_ROWS[1], trial, draw)
            with suppress(RuntimeRefusal):
                return feeds, run(feeds)
        return feeds, run(feeds)

    def compare(self, graph: Graph, outputs: Sequence[int | None]) -> None:
        """Raises ModelError where `graph` gives anything else.

        `outputs`: the axis of each that is the batch, None where samples have no axis for it.
        """
        # of what rounds to few levels some rows may be steps apart, which turn over with the order of a sum;
        # rows that depend on each other are apart in every draw
        draws = _DRAWS if rounding(graph) else 1
        for draw in range(draws):
            try:
                self._compare(graph, outputs, draw)
                return
            except ModelError:
                if draw == draws - 1:
                    raise

    def _compare(self, graph: Graph, outputs: Sequence[int | None], draw: int) -> None:
        feeds, found = self._given_by(graph, draw)
        if self.apart:
            rows = zip(*(self._alone(feeds, i) for i in range(_ROWS[1])), strict=True)
            expected = [
                _together(each, axis, batched)
                for each, axis, batched in zip(rows, outputs, map(_has_batch, graph.outputs), strict=True)
            ]
        else:
            expected = self.run(feeds)
        for output, a, b in zip(graph.outputs, found, expected, strict=True):
            if not isinstance(a, np.ndarray) and not _maps(a):
                raise ModelError(f"output {output.name!r}, {output.value.type}, is no tensor")
            if not _same(a, b, rounding(graph)):
                what = f"output {output.name!r} of {_ROWS[1]} samples isn't what each gives by itself"
                raise ModelError(what)
