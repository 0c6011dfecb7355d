"""Branches and loops that are decided while lifting: what they run stands in the graph itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
import onnx
from onnx import helper

from irshap.errors import IRError
from irshap.ir.builder import Builder
from irshap.ir.core import Value
from irshap.ir.types import Tensor, TensorType
from irshap.lowering.shape_arithmetic import Facts
from irshap.ops.program import Constant
from irshap.ops.shape import concat, reshape, split

__all__ = ["Scope", "inlined"]

_SCAN_SINCE = 9
"""Before, Scan went over the samples of a batch, too."""

_LONGEST = 5000
"""Nodes that a model's loops may become together: a few bytes could ask for any number of trips."""


class Scope(Protocol):
    """Where statements are lifted: the values of the names that they see."""

    opset: int
    values: dict[str, Value]
    facts: Facts
    builder: Builder

    def statements(self, graph: onnx.GraphProto) -> None:
        """Lifts what a graph computes; its names are added to `values`."""


def inlined(scope: Scope, proto: onnx.NodeProto, inputs: Sequence[Value | None]) -> list[Value] | None:
    """The results of an If, Loop or Scan of which it is known what it runs; None for any other node."""
    if proto.domain not in ("", "ai.onnx"):
        return None
    with suppress(IRError):  # what trips or steps give may not fit together
        return _followed(scope, proto, inputs)
    return None


def _followed(scope: Scope, proto: onnx.NodeProto, inputs: Sequence[Value | None]) -> list[Value] | None:
    graphs = {a.name: a.g for a in proto.attribute if a.HasField("g")}
    if proto.op_type == "If" and len(inputs) == 1:
        condition = _number(scope, inputs[0])
        branch = None if condition is None else graphs.get("then_branch" if condition else "else_branch")
        if branch is not None and not branch.input and len(branch.output) == len(proto.output):
            return _run(scope, branch, [])
    if proto.op_type == "Loop" and len(inputs) >= 2 and "body" in graphs:
        return _unrolled(scope, graphs["body"], inputs, len(proto.output))
    if proto.op_type == "Scan" and scope.opset >= _SCAN_SINCE and "body" in graphs:
        return _scanned(scope, proto, graphs["body"], inputs)
    return None


def _number(scope: Scope, value: Value | None) -> int | None:
    """A single integer or truth value, where it is known."""
    found = None if value is None else scope.facts.numbers(value)
    return int(found.item()) if found is not None and found.size == 1 and found.dtype.kind in "iub" else None


def _run(scope: Scope, graph: onnx.GraphProto, inputs: Sequence[Value]) -> list[Value]:
    """The results of a subgraph; its names are its own."""
    outer = scope.values
    scope.values = {**outer, **{v.name: value for v, value in zip(graph.input, inputs, strict=True)}}
    try:
        scope.statements(graph)
        return [scope.values[v.name] for v in graph.output]
    finally:
        scope.values = outer


def _unrolled(
    scope: Scope, body: onnx.GraphProto, inputs: Sequence[Value | None], count: int
) -> list[Value] | None:
    """A loop trip by trip, where each time it is known whether there is another one."""
    trips, going = _number(scope, inputs[0]), 1 if inputs[1] is None else _number(scope, inputs[1])
    states = [v for v in inputs[2:] if v is not None]
    left = (_LONGEST - scope.facts.unrolled) // max(len(body.node), 1)
    unknown = (inputs[0] is not None and trips is None) or going is None or (trips or 0) > left
    carried = len(states)
    if unknown or len(body.input) != carried + 2 or len(body.output) != count + 1 or carried > count:
        return None
    scanned: list[list[Value]] = [[] for _ in range(count - carried)]
    done = 0
    while going and (trips is None or done < trips):
        scope.facts.unrolled += max(len(body.node), 1)
        if scope.facts.unrolled > _LONGEST:
            return None
        counter, on = _counters(scope, body, done)
        condition, *results = _run(scope, body, [counter, on, *states])
        states, rows = results[:carried], results[carried:]
        for found, row in zip(scanned, rows, strict=True):
            found.append(row)
        going = _number(scope, condition)
        if going is None:
            return None
        done += 1
    # of no trips, the types of what would be gathered aren't known
    if scanned and (not done or any(v.tensor.shape is None for rows in scanned for v in rows)):
        return None
    with scope.builder:
        return [*states, *(concat([reshape(v, (1, *v.shape)) for v in rows], 0) for rows in scanned)]


def _scanned(
    scope: Scope, proto: onnx.NodeProto, body: onnx.GraphProto, inputs: Sequence[Value | None]
) -> list[Value] | None:
    """A scan step by step, where it is known how many there are."""
    attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
    given = [v for v in inputs if v is not None and getattr(v.type, "shape", None) is not None]
    count = attributes["num_scan_inputs"]
    carried = len(given) - count
    rows = len(proto.output) - carried
    if len(given) < len(inputs) or count < 1 or carried < 0 or rows < 0:
        return None
    if len(body.input) != len(given) or len(body.output) != len(proto.output):
        return None
    states, sources = given[:carried], given[carried:]
    axes = [a % v.rank for a, v in zip(attributes.get("scan_input_axes", [0] * count), sources, strict=True)]
    (steps, *others) = (v.shape[a] for a, v in zip(axes, sources, strict=True))
    left = (_LONGEST - scope.facts.unrolled) // max(len(body.node), 1)
    if not isinstance(steps, int) or not 0 < steps <= left or any(d != steps for d in others):
        return None
    scope.facts.unrolled += steps * max(len(body.node), 1)
    with scope.builder:
        backward = attributes.get("scan_input_directions", [0] * count)
        slices = [_steps(*each) for each in zip(sources, axes, backward, strict=True)]
    made: list[Sequence[Value]] = []
    for step in zip(*slices, strict=True):
        found = _run(scope, body, [*states, *step])
        states = found[:carried]
        made.append(found[carried:])
    kinds = [v.type for row in made for v in row]
    if not all(isinstance(kind, TensorType) and kind.shape is not None for kind in kinds):
        return None
    backward = attributes.get("scan_output_directions", [0] * rows)
    wanted = attributes.get("scan_output_axes", [0] * rows)
    with scope.builder:
        gathered = zip(zip(*made, strict=True), wanted, backward, strict=True)
        return [*states, *(_gathered(*each) for each in gathered)]


def _steps(x: Value, axis: int, backward: int) -> list[Value]:
    """What each step sees of a tensor."""
    count = x.shape[axis]
    assert isinstance(count, int)
    kept = [d for a, d in enumerate(x.shape) if a != axis]
    found = [reshape(part, kept) for part in split(x, axis, (1,) * count)]
    return found[::-1] if backward else found


def _gathered(parts: Sequence[Value], axis: int, backward: int) -> Value:
    """What the steps gave, side by side on a new axis."""
    at = axis % (parts[0].rank + 1)
    apart = [reshape(v, (*v.shape[:at], 1, *v.shape[at:])) for v in parts]
    return concat(apart[::-1] if backward else apart, at)


def _counters(scope: Scope, body: onnx.GraphProto, trip: int) -> tuple[Value, Value]:
    """The number of a trip, and that it is run, of the ranks that the body declares."""
    made = []
    for declared, number in zip(body.input[:2], (np.int64(trip), np.True_), strict=True):
        kind = declared.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type) if kind.elem_type else number.dtype
        array = np.full([1] * len(kind.shape.dim), number, dtype)
        made.append(scope.builder.emit(Constant(Tensor(array)))[0])
    return made[0], made[1]
