"""Normalizations.

One that ONNX has only from a later opset on is written as its parts in an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence

from irshap.ir.core import Value
from irshap.ir.dims import same_shape
from irshap.ir.types import DType
from irshap.lowering.emitter import Export, exporter, onnx_dtype
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.reduce import reduced
from irshap.ops import norm
from irshap.ops.elementwise import Sqrt
from irshap.ops.reduce import ReduceMean

__all__: list[str] = []


@importer("LayerNormalization")
def _read_layer_norm(n: Import) -> Sequence[Value]:
    """Its further results, mean and 1/deviation, are made of parts."""
    x = n.tensor()
    op = norm.LayerNorm(n.axis(n.attribute("axis", -1)), n.attribute("epsilon", 1e-5))
    y = n.one(op, *n.given())
    if len(n.proto.output) == 1:
        return (y,)
    if n.attribute("stash_type", 1) != 1 or x.dtype.bytes < 4:
        raise Unmodeled("its mean has another element type than its operand")
    mean_over = ReduceMean(tuple(range(op.axis, x.rank)), keepdims=True)
    mean = n.one(mean_over, x)
    deviation = n.one(Sqrt(), n.one(mean_over, (x - mean) * (x - mean)) + op.epsilon)
    return (y, mean, 1.0 / deviation)[: len(n.proto.output)]


@exporter(norm.LayerNorm)
def _write_layer_norm(e: Export, op: norm.LayerNorm) -> None:
    normalized = e.operand().shape[op.axis :]
    # runtimes differ in which broadcasts of scale and bias they take
    full = all(same_shape(v.shape, normalized) for v in e.node.operands[1:])
    if e.opset >= 17 and full:
        e.result("LayerNormalization", e.inputs, axis=op.axis, epsilon=op.epsilon)
    else:
        _parts(e, op)


@importer("RMSNormalization")
def _read_rms_norm(n: Import) -> Value:
    return n.one(norm.RMSNorm(n.axis(n.attribute("axis", -1)), n.attribute("epsilon", 1e-5)), *n.given())


@exporter(norm.RMSNorm)
def _write_rms_norm(e: Export, op: norm.RMSNorm) -> None:
    if e.opset >= 23:
        e.result("RMSNormalization", e.inputs, axis=op.axis, epsilon=op.epsilon)
    else:
        _parts(e, op)


@importer("GroupNormalization")
def _read_group_norm(n: Import) -> Value:
    """Since opset 21; onnx's checker refuses the first form, whose scale and bias were those of groups."""
    op = norm.GroupNorm(n.attribute("num_groups", 1), n.attribute("epsilon", 1e-5))
    return n.one(op, *(n.tensor(i) for i in range(3)))


@exporter(norm.GroupNorm)
def _write_group_norm(e: Export, op: norm.GroupNorm) -> None:
    if e.opset >= 21 and len(e.inputs) == 3:
        # without it runtimes compute double in float32
        stash = onnx_dtype(DType.F64) if e.operand().dtype is DType.F64 else None
        attributes = {"num_groups": op.groups, "epsilon": op.epsilon, "stash_type": stash}
        e.result("GroupNormalization", e.inputs, **attributes)
    else:
        _parts(e, op)


@importer("InstanceNormalization")
def _read_instance_norm(n: Import) -> Value:
    return n.one(norm.InstanceNorm(n.attribute("epsilon", 1e-5)), *n.given())


@exporter(norm.InstanceNorm)
def _write_instance_norm(e: Export, op: norm.InstanceNorm) -> None:
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
        a = e.add("Sub", [a, reduced(e, "ReduceMean", a, axes)])
    variance = reduced(e, "ReduceMean", e.add("Mul", [a, a]), axes)
    guarded = e.add("Add", [variance, e.number(op.epsilon)])
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
