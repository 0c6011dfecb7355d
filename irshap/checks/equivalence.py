"""Whether two forms of one program compute the same: both run on seeded random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irshap.errors import CheckFailed, IRError, UserError
from irshap.ir.core import Graph, Role, Value
from irshap.ir.dims import N, R, substitute, symbols_of
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array, DType, TensorType
from irshap.lowering.files.session import RuntimeRefusal, Session
from irshap.ops.program import Input, Pullback
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Unverified", "check_same"]

SAMPLES, REFERENCES, OTHERS = 2, 3, 4
"""What the dimension symbols are bound to."""

# Relative to the largest magnitude in the output: rounding in a different order, several ops deep.
_RTOL = {DType.F16: 2e-2, DType.BF16: 1e-1, DType.F32: 1e-4, DType.F64: 1e-9}
_MAX_PROTO = 2**31 - 1


class Unverified(Exception):
    """Why the two can't be compared by running them."""


def check_same(instance: Pass, before: Any, after: Any, context: Context) -> None:
    """Runs the program before and after a pass and compares the outputs that both have.

    Raises:
        CheckFailed: an output differs by more than rounding, or than the pass's tolerance.
        Unverified: one side can't be run, or no output is in both.
    """
    graph = before if isinstance(before, Graph) else after
    if not isinstance(graph, Graph):
        raise Unverified("neither side is a graph")
    for side in (before, after):
        if isinstance(side, Graph):
            _refuse_unevaluable(side)
    first = context.source if instance.takes == "model" else before
    error: Unverified | None = None
    # A model that was exported with a batch of 1 runs with one sample only.
    for samples in (SAMPLES, 1) if instance.takes == "model" else (SAMPLES,):
        inputs = _inputs(graph, context, samples)
        try:
            wanted = _run(first, inputs)
        except Unverified as unverified:
            error = unverified
            continue
        _compare(wanted, _run(after, inputs), instance, graph)
        return
    raise error or Unverified("it can't be run")


def _refuse_unevaluable(graph: Graph) -> None:
    if any(isinstance(node.op, Pullback) for node in graph.nodes):
        raise Unverified("pullbacks have no value yet")


def _inputs(graph: Graph, context: Context, samples: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    given = context.references
    count = next((len(array) for array in given.values()), REFERENCES)
    binding: dict[Any, Any] = {N: samples, R: count}
    result: dict[str, Array] = {}
    for value in graph.inputs:
        if not isinstance(value.type, TensorType) or value.type.shape is None:
            raise Unverified(f"no random value of type {value.type} for input {value.name}")
        binding.update({s: OTHERS for s in symbols_of(value.shape) if s not in binding})
        shape = [int(substitute(d, binding)) for d in value.shape]
        result[str(value.name)] = _random(value, shape, graph, context, rng)
    return result


def _random(
    value: Value, shape: list[int], graph: Graph, context: Context, rng: np.random.Generator
) -> Array:
    op, dtype = value.node.op, value.dtype
    kind = op.kind if isinstance(op, Input) else "model"
    given = context.references.get((isinstance(op, Input) and op.of) or "")
    if kind == "references" and given is not None:
        return given
    if kind == "weights":
        weights = np.full(shape, 1 / max(1, int(np.prod(shape))))
        return (weights if context.weights is None else np.asarray(context.weights)).astype(dtype.numpy)
    if kind == "target":
        return rng.integers(0, _classes(graph), shape, dtype=np.int64)
    if dtype.is_float:
        return rng.standard_normal(shape).astype(dtype.numpy)
    if dtype is DType.STR:
        return np.full(shape, "a", dtype=object)
    # Integers are mostly indices: 0 and 1 are valid where anything is.
    return rng.integers(0, 2, shape).astype(dtype.numpy)


def _classes(graph: Graph) -> int:
    """The least number of classes among outputs [N, classes]."""
    shapes = [o.value.type.shape for o in graph.outputs if isinstance(o.value.type, TensorType)]
    sizes = [s[-1] for s in shapes if s is not None and len(s) == 2 and isinstance(s[-1], int)]
    return max(1, min((int(s) for s in sizes), default=1))


def _run(program: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    if not isinstance(program, Graph):
        return _run_model(program, inputs)
    used = {str(v.name): inputs[str(v.name)] for v in program.inputs if str(v.name) in inputs}
    if len(used) < len(program.inputs):
        raise Unverified("the pass adds an input")
    try:
        return dict(evaluate(program, used))
    except (IRError, UserError) as error:
        raise Unverified(str(error)) from error


def _run_model(model: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    if model is None or model.ByteSize() > _MAX_PROTO:
        raise Unverified("the model isn't at hand in one piece")
    try:
        session = Session(model)
        found = session.run({name: inputs[name] for name in session.inputs if name in inputs})
    except RuntimeRefusal as error:
        raise Unverified(f"ONNX Runtime: {error}") from error
    return dict(zip(session.outputs, found, strict=True))


def _compare(wanted: Mapping[str, Array], found: Mapping[str, Array], instance: Pass, graph: Graph) -> None:
    if instance.semantics is Semantics.REPLACES:
        raise Unverified("the pass makes another function of it, on request")
    common = [name for name in wanted if name in found]
    if not common:
        raise Unverified("no output is in both")
    # what is left of numbers that cancel is rounding: it is measured against those numbers
    errors = {o.name for o in graph.outputs_of(Role.COMPLETENESS)}
    largest = max((_magnitude(wanted[name]) for name in common if name not in errors), default=0.0)
    # a float32 output is no better than the float16 that it is computed in
    floats = {v.dtype for v in graph.values() if isinstance(v.type, TensorType) and v.dtype in _RTOL}
    rounding = max((_RTOL[dtype] for dtype in floats), default=0.0)
    for name in common:
        tolerance = instance.tolerance if instance.semantics is Semantics.APPROXIMATES else None
        a, b = np.asarray(wanted[name]), np.asarray(found[name])
        scale = largest if name in errors else _magnitude(a)
        if problem := _difference(a, b, tolerance, rounding, scale):
            raise CheckFailed(
                f"output {name!r} changed: {problem}",
                mend="the pass promises to keep it" if tolerance is None else f"tolerance {tolerance:g}",
            )


def _magnitude(array: Array) -> float:
    """The largest finite element."""
    if not DType.of(array).is_float:
        return 0.0
    wide = np.abs(array.astype(np.float64))
    return float(np.max(wide[np.isfinite(wide)], initial=0.0))


def _difference(a: Array, b: Array, tolerance: float | None, rounding: float, scale: float) -> str | None:
    types = (DType.of(a), DType.of(b))
    other_type = types[0] is not types[1] and not (tolerance and all(t.is_float for t in types))
    if other_type or a.shape != b.shape:
        return f"{a.dtype}{list(a.shape)} before, {b.dtype}{list(b.shape)} after"
    dtype = DType.of(a)
    if not dtype.is_float:
        different = int(np.count_nonzero(a != b))
        return f"{different} of {a.size} elements differ" if different else None
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True):
        return "infinities or NaN in other places"
    worst = float(np.max(np.abs(x - y)[finite], initial=0.0))
    allowed = (max(_RTOL[dtype], rounding) if tolerance is None else tolerance) * scale
    if worst <= allowed:
        return None
    return f"by up to {worst:.3g} where at most {allowed:.3g} is rounding (largest value {scale:.3g})"
