"""How IR ops are written in ONNX (opset 13 and later): program, arithmetic, shapes."""

from __future__ import annotations

import numpy as np
import onnx

from irshap.ir.dims import Dim, same
from irshap.lowering.emitter import Export, exporter, onnx_dtype
from irshap.ops import arithmetic, cast, elementwise, index, linear, logic, program, reduce, rows, shape

__all__: list[str] = []

_INT64_MAX = np.iinfo(np.int64).max

_PLAIN = {
    arithmetic.Abs: "Abs",
    arithmetic.Add: "Add",
    arithmetic.Div: "Div",
    logic.Equal: "Equal",
    logic.Greater: "Greater",
    logic.Less: "Less",
    arithmetic.Max: "Max",
    arithmetic.Min: "Min",
    arithmetic.Mul: "Mul",
    arithmetic.Neg: "Neg",
    arithmetic.Ratio: "Div",
    arithmetic.Sub: "Sub",
    arithmetic.Where: "Where",
    elementwise.Exp: "Exp",
    elementwise.Log: "Log",
    elementwise.Relu: "Relu",
    elementwise.Sigmoid: "Sigmoid",
    elementwise.Softplus: "Softplus",
    elementwise.Sqrt: "Sqrt",
    elementwise.Tanh: "Tanh",
    linear.MatMul: "MatMul",
    program.Hold: "Identity",
    program.Tap: "Identity",
}
"""Ops that ONNX has under another name, with the same operands and no attributes."""


@exporter(*_PLAIN)  # type: ignore[type-abstract]
def _plain(e: Export, op: object) -> None:
    e.result(_PLAIN[type(op)], e.inputs)  # type: ignore[index]


@exporter(elementwise.Elu)
def _elu(e: Export, op: elementwise.Elu) -> None:
    e.result("Elu", e.inputs, alpha=op.alpha)


@exporter(program.Dims)
def _dims(e: Export, op: program.Dims) -> None:
    vector = e.shape(op.values)
    e.result("Squeeze" if op.scalar else "Identity", [vector])


@exporter(program.Full)
def _full(e: Export, op: program.Full) -> None:
    value = onnx.numpy_helper.from_array(np.array([op.value], dtype=op.dtype.numpy))
    e.result("ConstantOfShape", [e.shape(op.shape)], value=value)


@exporter(cast.Cast)
def _cast(e: Export, op: cast.Cast) -> None:
    e.result("Cast", e.inputs, to=onnx_dtype(op.to))


@exporter(shape.Reshape)
def _reshape(e: Export, op: shape.Reshape) -> None:
    e.result("Reshape", [e.inputs[0], e.shape(op.shape, infer=True)], allowzero=_zero(op.shape, e))


def _zero(dims: tuple[Dim, ...], e: Export) -> int | None:
    """Reshape's 0 means "copy" unless allowzero is set, which needs opset 14."""
    return 1 if e.opset >= 14 and any(same(d, 0) for d in dims) else None


@exporter(shape.Transpose)
def _transpose(e: Export, op: shape.Transpose) -> None:
    e.result("Transpose", e.inputs, perm=op.perm)


@exporter(shape.Concat)
def _concat(e: Export, op: shape.Concat) -> None:
    e.result("Concat", e.inputs, axis=op.axis)


@exporter(shape.Split)
def _split(e: Export, op: shape.Split) -> None:
    e.result("Split", [e.inputs[0], e.shape(op.sizes)], axis=op.axis)


@exporter(reduce.Expand)
def _expand(e: Export, op: reduce.Expand) -> None:
    operand = (1,) * (len(op.shape) - e.operand().rank) + e.operand().shape
    # a dimension that the operand has already may be 1 here, which spares computing it at run time
    target = [1 if same(d, mine) else d for d, mine in zip(op.shape[-len(operand) :], operand, strict=False)]
    lead = list(op.shape[: len(op.shape) - len(target)])
    e.result("Expand", [e.inputs[0], e.shape([*lead, *target])])


@exporter(shape.Slice)
def _slice(e: Export, op: shape.Slice) -> None:
    dims = e.operand().shape
    stops = []
    for axis, stop, step in zip(op.axes, op.stops, op.steps, strict=True):
        if step > 0:
            stops.append(_INT64_MAX if same(stop, dims[axis]) else stop)
        else:
            stops.append(-_INT64_MAX if same(stop, -1) else stop)
    # a negative step that starts at the last element may say so without knowing the size
    starts = [
        -1 if step < 0 and same(start, dims[axis] - 1) else start
        for axis, start, step in zip(op.axes, op.starts, op.steps, strict=True)
    ]
    e.result("Slice", [e.inputs[0], e.shape(starts), e.shape(stops), e.ints(op.axes), e.ints(op.steps)])


@exporter(shape.Pad)
def _pad(e: Export, op: shape.Pad) -> None:
    value = e.constant(op.value, e.operand().dtype.numpy)
    e.result("Pad", [e.inputs[0], e.shape((*op.before, *op.after)), value])


@exporter(rows.RepeatRows)
def _repeat_rows(e: Export, op: rows.RepeatRows) -> None:
    dims = e.operand().shape
    apart = e.add("Unsqueeze", [e.inputs[0], e.ints([op.axis + 1])])
    times = [1] * (len(dims) + 1)
    copies = e.add("Expand", [apart, e.shape([*times[: op.axis + 1], op.times, *times[op.axis + 2 :]])])
    e.result("Reshape", [copies, _merged(e, op.axis)])


@exporter(rows.TileRows)
def _tile_rows(e: Export, op: rows.TileRows) -> None:
    dims = e.operand().shape
    apart = e.add("Unsqueeze", [e.inputs[0], e.ints([op.axis])])
    times = [1] * (len(dims) + 1)
    copies = e.add("Expand", [apart, e.shape([*times[: op.axis], op.times, *times[op.axis + 1 :]])])
    e.result("Reshape", [copies, _merged(e, op.axis)])


def _merged(e: Export, axis: int) -> str:
    """The shape of the result, written so that nothing has to be computed where only rows are unknown."""
    result = e.node.results[0].shape
    others = [d for i, d in enumerate(result) if i != axis]
    if all(isinstance(d, int) and d > 0 for d in others):
        return e.shape([-1 if i == axis else d for i, d in enumerate(result)])
    return e.shape(result)


@exporter(shape.Dilate)
def _dilate(e: Export, op: shape.Dilate) -> None:
    # [.., n, ..] -> [.., n, 1, ..] -> zeros behind each -> [.., n step, ..] -> cut the last step - 1
    rank = e.operand().rank
    dims = list(e.operand().shape)
    apart = e.add("Unsqueeze", [e.inputs[0], e.ints([op.axis + 1])])
    counts = [0] * (2 * (rank + 1))
    counts[rank + 1 + op.axis + 1] = op.step - 1
    spaced = e.add("Pad", [apart, e.ints(counts)])
    merged = [*dims[: op.axis], dims[op.axis] * op.step, *dims[op.axis + 1 :]]
    flat = e.add("Reshape", [spaced, e.shape(merged, infer=True)])
    stop = e.ints([-(op.step - 1)]) if op.step > 1 else e.ints([_INT64_MAX])
    e.result("Slice", [flat, e.ints([0]), stop, e.ints([op.axis])])


@exporter(index.ArgMax)
def _argmax(e: Export, op: index.ArgMax) -> None:
    e.result("ArgMax", e.inputs, axis=op.axes[0], keepdims=int(op.keepdims))


@exporter(index.TopKIndices)
def _top_k_indices(e: Export, op: index.TopKIndices) -> None:
    values = e.emitter.fresh(e.outputs[0] + "_values")
    e.add("TopK", [e.inputs[0], e.ints([op.k])], into=[values, e.outputs[0]], axis=op.axis)


@exporter(index.GatherElements)
def _gather_elements(e: Export, op: index.GatherElements) -> None:
    e.result("GatherElements", e.inputs, axis=op.axis)


@exporter(index.ScatterAdd, opset=16)
def _scatter_add(e: Export, op: index.ScatterAdd) -> None:
    # ONNX Runtime's CPU kernels add no float16
    zeros = e.zeros(e.node.results[0].shape)
    e.narrow("ScatterElements", [zeros, e.inputs[1], e.wide()], axis=op.axis, reduction="add")


@exporter(index.Unpool)
def _unpool(e: Export, op: index.Unpool) -> None:
    # windows that slide by one over a plane of `size` elements: its length follows from theirs, and is not
    # given as `output_shape`, to which ONNX Runtime and ONNX's reference refer the indices differently
    length = op.size - e.operand().shape[2] + 1
    e.narrow("MaxUnpool", [e.wide(), e.inputs[1]], kernel_shape=[length], strides=[1])


@exporter(linear.Gemm)
def _gemm(e: Export, op: linear.Gemm) -> None:
    flags = {"transA": int(op.trans_a), "transB": int(op.trans_b)}
    e.result("Gemm", e.inputs, alpha=op.alpha, beta=op.beta, **flags)


@exporter(linear.BatchNorm)
def _batch_norm(e: Export, op: linear.BatchNorm) -> None:
    e.result("BatchNormalization", e.inputs, epsilon=op.epsilon)
