"""How softmax and normalizations are lifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irshap.ir.core import Op, Value
from irshap.ir.dims import product
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import norm, response, softmax
from irshap.ops.elementwise import Sqrt
from irshap.ops.reduce import ReduceMean
from irshap.ops.shape import reshape

__all__: list[str] = []

_AXIS: dict[str, Callable[[int], Op]] = {
    "Hardmax": softmax.Hardmax,
    "LogSoftmax": softmax.LogSoftmax,
    "Softmax": softmax.Softmax,
}


@importer(*_AXIS)
def _axis(n: Import) -> Value:
    """Before opset 13 all axes from `axis` on count as one."""
    x, make = n.tensor(), _AXIS[n.proto.op_type]
    if n.opset >= 13:
        return n.one(make(n.axis(n.attribute("axis", -1))), x)
    given = n.attribute("axis", 1)
    axis = given + x.rank if given < 0 else given
    wide = [a for a in range(axis, x.rank) if x.shape[a] != 1]
    if len(wide) == 1:
        return n.one(make(wide[0]), x)
    flat = reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))
    return reshape(n.one(make(1), flat), x.shape)


@importer("LayerNormalization")
def _layer_norm(n: Import) -> Sequence[Value]:
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


@importer("RMSNormalization")
def _rms_norm(n: Import) -> Value:
    return n.one(norm.RMSNorm(n.axis(n.attribute("axis", -1)), n.attribute("epsilon", 1e-5)), *n.given())


@importer("InstanceNormalization")
def _instance_norm(n: Import) -> Value:
    return n.one(norm.InstanceNorm(n.attribute("epsilon", 1e-5)), *n.given())


@importer("GroupNormalization")
def _group_norm(n: Import) -> Value:
    """Since opset 21; onnx's checker refuses the first form, whose scale and bias were those of groups."""
    op = norm.GroupNorm(n.attribute("num_groups", 1), n.attribute("epsilon", 1e-5))
    return n.one(op, *(n.tensor(i) for i in range(3)))


@importer("LpNormalization")
def _lp_normalization(n: Import) -> Value:
    return n.one(response.LpNormalization(n.axis(n.attribute("axis", -1)), n.attribute("p", 2)), n.tensor())


@importer("LRN")
def _lrn(n: Import) -> Value:
    alpha, beta, bias = (n.attribute(k, v) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return n.one(response.LRN(alpha, beta, bias, n.attributes["size"]), n.tensor())
