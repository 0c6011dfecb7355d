"""How softmax and normalizations are written in ONNX.

A normalization that ONNX has only from a later opset on is written as its parts in an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irshap.ir.dims import same_shape
from irshap.ir.types import DType
from irshap.lowering.emitter import Export, exporter, onnx_dtype
from irshap.ops import norm, response, softmax

__all__: list[str] = []

_AXIS: dict[type, str] = {
    softmax.Hardmax: "Hardmax",
    softmax.LogSoftmax: "LogSoftmax",
    softmax.Softmax: "Softmax",
}


@exporter(*_AXIS)
def _axis(e: Export, op: Any) -> None:
    e.result(_AXIS[type(op)], e.inputs, axis=op.axis)


@exporter(norm.LayerNorm)
def _layer_norm(e: Export, op: norm.LayerNorm) -> None:
    normalized = e.operand().shape[op.axis :]
    # runtimes differ in which broadcasts of scale and bias they take
    full = all(same_shape(v.shape, normalized) for v in e.node.operands[1:])
    if e.opset >= 17 and full:
        e.result("LayerNormalization", e.inputs, axis=op.axis, epsilon=op.epsilon)
    else:
        _parts(e, op)


@exporter(norm.RMSNorm)
def _rms_norm(e: Export, op: norm.RMSNorm) -> None:
    if e.opset >= 23:
        e.result("RMSNormalization", e.inputs, axis=op.axis, epsilon=op.epsilon)
    else:
        _parts(e, op)


@exporter(norm.GroupNorm)
def _group_norm(e: Export, op: norm.GroupNorm) -> None:
    if e.opset >= 21 and len(e.inputs) == 3:
        # without it runtimes compute double in float32
        stash = onnx_dtype(DType.F64) if e.operand().dtype is DType.F64 else None
        attributes = {"num_groups": op.groups, "epsilon": op.epsilon, "stash_type": stash}
        e.result("GroupNormalization", e.inputs, **attributes)
    else:
        _parts(e, op)


@exporter(norm.InstanceNorm)
def _instance_norm(e: Export, op: norm.InstanceNorm) -> None:
    if len(e.inputs) == 3:
        e.result("InstanceNormalization", e.inputs, epsilon=op.epsilon)
    else:
        _parts(e, op)


def _parts(e: Export, op: norm.Normalization) -> None:
    """(x - mean) / sqrt(variance + epsilon) scale + bias."""
    x = e.operand()
    shape, axes = op.rows(x.shape)
    a = e.inputs[0]
    if not same_shape(shape, x.shape):
        a = e.add("Reshape", [a, e.shape(shape, infer=True)])
    if op.centered:
        a = e.add("Sub", [a, _mean(e, a, axes)])
    variance = _mean(e, e.add("Mul", [a, a]), axes)
    guarded = e.add("Add", [variance, e.constant(op.epsilon, x.dtype.numpy)])
    y = e.add("Div", [a, e.add("Sqrt", [guarded])])
    if not same_shape(shape, x.shape):
        y = e.add("Reshape", [y, e.shape(x.shape, infer=True)])
    parameters = []
    for name, value in zip(e.inputs[1:], e.node.operands[1:], strict=True):
        target = op.parameter_shape(value.shape, x.shape)
        changes = not same_shape(target, value.shape)
        parameters.append(e.add("Reshape", [name, e.shape(target)]) if changes else name)
    scale, *bias = parameters
    if bias:
        e.result("Add", [e.add("Mul", [y, scale]), bias[0]])
    else:
        e.result("Mul", [y, scale])


def _mean(e: Export, name: str, axes: Sequence[int]) -> str:
    if e.opset >= 18:
        return e.add("ReduceMean", [name, e.ints(axes)], keepdims=1)
    return e.add("ReduceMean", [name], axes=axes, keepdims=1)


@exporter(response.LpNormalization)
def _lp_normalization(e: Export, op: response.LpNormalization) -> None:
    e.result("LpNormalization", e.inputs, axis=op.axis, p=op.p)


@exporter(response.LRN)
def _lrn(e: Export, op: response.LRN) -> None:
    e.result("LRN", e.inputs, alpha=op.alpha, beta=op.beta, bias=op.bias, size=op.size)
