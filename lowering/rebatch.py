"""Whether a lifted model computes for each row of a batch what the original computes for that row alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError

from irshap.errors import IrshapError, ModelError
from irshap.ir.batch import batch_axes
from irshap.ir.core import Graph, Node, Op, Output, Value
from irshap.ir.dims import N, same, symbols_of
from irshap.ir.types import Array, DType, TensorType, Type
from irshap.lowering.files.protos import first_line, nodes
from irshap.lowering.files.session import RuntimeRefusal, Session
from irshap.lowering.files.wire import resident
from irshap.lowering.lower import lowered
from irshap.ops.arithmetic import Div
from irshap.ops.logic import Mod
from irshap.ops.pool import MaxPool
from irshap.ops.program import Constant, Opaque
from irshap.ops.quantized import DynamicQuantize, Quantize

__all__ = ["TRIALS", "check_axis", "close", "has_rows", "least_integer", "random", "refuse_too_large"]
__all__ += ["rounding", "rows_of", "runner", "why_not_row_by_row"]

# Largest difference between a row alone and in a batch, relative to the output's largest magnitude: other
# kernels may sum in another order.
_TOLERANCE = {DType.F64: 1e-10, DType.F32: 1e-4, DType.F16: 2e-2, DType.BF16: 1e-1}
_STEPS = 0.05
_ROWS = 2
TRIALS = [(size, tokens) for tokens in (2, 3, 6) for size in (8, 32, 64, 224)]
"""Sizes of open dimensions other than the batch, and how many tokens: what a model takes is tried."""
_MOST_ELEMENTS = 2**29
_LARGEST_WINDOW = 2**21
"""What is tried has no larger tensors and windows, or a few bytes of a file could ask for any memory."""


def why_not_row_by_row(original: onnx.ModelProto, graph: Graph, batched: Mapping[str, int]) -> str:
    """Why `graph` doesn't compute for each of N rows what `original` computes for one; "" if it does.

    Both are run, on random rows: the original on each alone, the graph on all at once.  `batched`: the inputs
    with a batch, and on which axis.
    """
    for output in graph.outputs:
        if why := _lost_batch(output):
            return f"a batch of 1 can't become any other: {why}"
    try:
        why = _difference(original, graph, batched)
    except (IrshapError, RuntimeRefusal, EncodeError) as error:
        told = f"with {_ROWS} rows, {error}"
        if known := _miscounted(graph):
            told = f"{known} ({told})"
        return f"a batch of 1 can't become any other: {told}"
    if not why:
        return ""
    # the rules of the ops can often tell which of them mixes rows
    axes = batch_axes(graph)
    reasons = [reason for o in graph.outputs if (reason := axes.reason(o.value)) is not None]
    return f"a batch of 1 can't become any other: {reasons[0] if reasons else why}"


def _miscounted(graph: Graph) -> str:
    """Which node makes ONNX Runtime refuse a model, where that is known; otherwise ""."""
    for node in graph.nodes:
        if isinstance(node.op, MaxPool) and node.op.dropped(node.operands[0].tensor) is not None:
            return (
                f"{node.label} leaves out a window that would start in the padding (ceil_mode=1), which ONNX "
                "Runtime counts when it loads the model: what follows doesn't fit. Export it with "
                "ceil_mode=0, and pads that make as many windows"
            )
    return ""


def check_axis(output: Output, axis: int, why: str) -> None:
    """Refuses an output that hasn't the batch on `axis`; `why`: why lifting left the batch as it was."""
    kind = output.value.type
    shape = kind.shape if isinstance(kind, TensorType) else None
    if shape is None or axis >= len(shape) or not same(shape[axis], N):
        what = f"axis {axis} of output {output.name!r}, {kind}, doesn't count samples"
        raise ModelError(f"{what}: {why}" if why else what, mend="Name the axis of the inputs, too")


def _has_batch(value: Value) -> bool:
    kind = value.type
    return isinstance(kind, TensorType) and N in symbols_of(kind.shape or ())


def rows_of(output: Output) -> int | None:
    """The axis of an output that holds the batch and nothing else."""
    kind = output.value.type
    shape = kind.shape or () if isinstance(kind, TensorType) else ()
    axes = [i for i, d in enumerate(shape) if N in symbols_of([d])]
    return axes[0] if len(axes) == 1 and (axes[0] == 0 or same(shape[axes[0]], N)) else None


def has_rows(output: Output) -> bool:
    """Whether an output has the batch on an axis, or is no tensor of floats."""
    kind = output.value.type
    if not isinstance(kind, TensorType) or not kind.dtype.is_float:
        return True
    return kind.shape is not None and _has_batch(output.value)


def _lost_batch(output: Output) -> str:
    """Where the batch goes on its way to an output that has it on no axis of its own; "" if it has."""
    kind = output.value.type
    if not isinstance(kind, TensorType) or kind.shape is None:
        return f"the shape of output {output.name!r} is unknown"
    if rows_of(output) is not None:
        return ""
    if _has_batch(output.value):
        return f"no single axis of output {output.name!r}, {kind}, is the batch"
    seen: set[Node] = set()
    ahead = [output.value.node]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        for operand in node.operands:
            if _has_batch(operand):
                types = ", ".join(str(v.type) for v in node.results)
                return f"{node.label} makes {types} of {operand.type}"
        ahead += [v.node for v in node.operands]
    return f"output {output.name!r} doesn't depend on it"


def refuse_too_large(original: onnx.ModelProto, graph: Graph) -> None:
    """Raises RuntimeRefusal for a model that must not be tried."""
    for value in graph.values():
        shape = getattr(value.type, "shape", None) or ()
        if (size := prod(d if isinstance(d, int) else 1 for d in shape)) > _MOST_ELEMENTS:
            raise RuntimeRefusal(f"{value.node.label} has a result of {size} elements")
    for node in nodes(original.graph):
        windows = [a.ints for a in node.attribute if a.name == "kernel_shape"]
        if windows and prod(windows[0]) > _LARGEST_WINDOW:
            raise RuntimeRefusal(f"{node.name or node.op_type} has a window of {prod(windows[0])} elements")


def _difference(original: onnx.ModelProto, graph: Graph, batched: Mapping[str, int]) -> str:
    refuse_too_large(original, graph)
    alone = runner(original)
    together = runner(lowered(graph))
    least = least_integer(graph)
    for trial in TRIALS:
        feeds = {
            str(v.name): random(str(v.name), v.type, seed, trial, least=least)
            for seed, v in enumerate(graph.inputs)
        }
        rows = [
            {k: _row(a, batched[k], i) if k in batched else a for k, a in feeds.items()} for i in range(_ROWS)
        ]
        try:
            expected = [alone(row) for row in rows]
            break
        except RuntimeRefusal:
            if trial == TRIALS[-1]:
                raise
    found, coarse = together(feeds), rounding(graph)
    for k, output in enumerate(graph.outputs):
        for i, row in enumerate(expected):
            if not close(_row(found[k], rows_of(output) or 0, i), row[k], coarse):
                return f"row {i} of output {output.name!r} isn't what the original gives for it alone"
    return ""


def _row(array: Array, axis: int, i: int) -> Array:
    return array[(slice(None),) * axis + (slice(i, i + 1),)]


def rounding(graph: Graph) -> float:
    """How far results may be apart, at least, relative to the largest: steps of what is quantized.

    ONNX Runtime's integer kernels round some numbers the other way.
    """
    return _STEPS if any(isinstance(n.op, Quantize | DynamicQuantize) for n in graph.nodes) else 0.0


def close(a: Array, b: Array, least: float = 0.0) -> bool:
    """Whether two results are the same but for the order of sums, or for `least`, see `rounding`."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    dtype = DType.of(a)
    if not dtype.is_float:
        return bool(np.all(a == b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    relative = max(_TOLERANCE[dtype], least)
    largest = float(np.abs(b[finite]).max(initial=0.0))
    absolute = relative * (largest if least else max(1.0, largest))
    return np.allclose(a, b, rtol=relative, atol=absolute, equal_nan=True)


def least_integer(graph: Graph) -> int:
    """The least number to try integers at: none is 0 where a computed one divides.

    ONNX Runtime 1.23 ends the process then (SIGFPE), later ones refuse.
    """
    divisors = [v for n in graph.walk() if _divides(n.op) for v in n.operands[1:]]
    return int(any(not (v.dtype.is_float or isinstance(v.node.op, Constant)) for v in divisors))


def _divides(op: Op) -> bool:
    return isinstance(op, Div | Mod) or (isinstance(op, Opaque) and op.kind == "Col2Im")


def random(
    name: str, kind: Type, seed: int, trial: tuple[int, int], rows: int = _ROWS, least: int = 0
) -> Array:
    """Rows for the input `name`: small whole numbers are valid as tokens, flags and counts alike.

    Integers begin at `least`.
    """
    size, tokens = trial
    if not isinstance(kind, TensorType) or kind.shape is None:
        raise RuntimeRefusal(f"input {name!r} is no tensor of a known rank")
    shape = [d if isinstance(d, int) else rows if N in symbols_of([d]) else size for d in kind.shape]
    if prod(shape) > _MOST_ELEMENTS // 4:
        raise RuntimeRefusal(f"input {name!r} would have {prod(shape)} elements")
    generator = np.random.default_rng(seed)
    if kind.dtype.is_float:
        return generator.standard_normal(shape).astype(kind.dtype.numpy)
    return generator.integers(least, least + tokens, shape).astype(kind.dtype.numpy)


def runner(model: onnx.ModelProto) -> Callable[[Mapping[str, Array]], list[Any]]:
    """ONNX Runtime, or onnx's reference where that has no kernel (float64 convolutions).

    Without its fused kernels: those of quantized weights and activations round otherwise.
    """
    try:
        return Session(model, fuse=False).run
    except RuntimeRefusal as error:
        if "NOT_IMPLEMENTED" not in str(error):
            raise
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(resident(model))
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RuntimeRefusal(first_line(error)) from error

    def run(feeds: Mapping[str, Array]) -> list[Any]:
        try:
            return list(evaluator.run(None, dict(feeds)))
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise RuntimeRefusal(first_line(error)) from error

    return run
