"""Normalizations, with what is added before them fused in."""

from __future__ import annotations

from collections.abc import Sequence

from irshap.ir.core import Value
from irshap.ir.dims import same_shape
from irshap.lowering.contrib.fused import channels_first, channels_last
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import norm
from irshap.ops.elementwise import Sqrt
from irshap.ops.gated import Swish
from irshap.ops.reduce import ReduceMean
from irshap.ops.shape import reshape

__all__: list[str] = []

_SKIP_EPSILON = 1e-12


@importer("SimplifiedLayerNormalization", "com.microsoft.SimplifiedLayerNormalization")
def _read_simplified(n: Import) -> Sequence[Value]:
    """RMSNormalization before ONNX had it; its second result is 1/deviation."""
    x = n.tensor(0)
    op = norm.RMSNorm(n.axis(n.attribute("axis", -1)), n.attribute("epsilon", 1e-5))
    y = n.one(op, x, n.tensor(1))
    if len(n.proto.output) == 1:
        return (y,)
    square = n.one(ReduceMean(tuple(range(op.axis, x.rank)), keepdims=True), x * x)
    return y, 1.0 / n.one(Sqrt(), square + op.epsilon)


@importer("com.microsoft.SkipLayerNormalization")
def _read_skip_layer_norm(n: Import) -> Sequence[Value]:
    x = _with_skip(n, 4)
    op = norm.LayerNorm(x.rank - 1, n.attribute("epsilon", _SKIP_EPSILON))
    return _with_sum(n, n.one(op, x, n.tensor(2), *([n.tensor(3)] if n.has(3) else [])), x)


@importer("com.microsoft.SkipSimplifiedLayerNormalization")
def _read_skip_simplified(n: Import) -> Sequence[Value]:
    x = _with_skip(n, 3)
    return _with_sum(
        n, n.one(norm.RMSNorm(x.rank - 1, n.attribute("epsilon", _SKIP_EPSILON)), x, n.tensor(2)), x
    )


def _with_skip(n: Import, bias: int) -> Value:
    """Input and skip, which may lack the batch, and the bias."""
    x = n.tensor(0) + n.tensor(1)
    if not same_shape(x.shape, n.tensor(0).shape):
        raise Unmodeled(f"its skip {n.tensor(1).tensor} doesn't broadcast to {n.tensor(0).tensor}")
    return x + n.tensor(bias) if n.has(bias) else x


def _with_sum(n: Import, y: Value, total: Value) -> Sequence[Value]:
    """The results: the second and third, which ONNX Runtime leaves empty, have nothing in them to ask for."""
    if any(n.proto.output[1:3]):
        raise Unmodeled("its mean or deviation is used, which ONNX Runtime doesn't compute")
    return (y, total, total, total)[: len(n.proto.output)]


@importer("com.microsoft.GroupNorm")
def _read_group_norm(n: Import) -> Value:
    return _group_norm(n, n.tensor(0))


@importer("com.microsoft.SkipGroupNorm")
def _read_skip_group_norm(n: Import) -> Sequence[Value]:
    x, skip = n.tensor(0), n.tensor(3)
    if skip.rank == 2:
        ones = [1] * (x.rank - 2)
        skip = reshape(skip, (skip.shape[0], *ones, skip.shape[1]) if _last(n) else (*skip.shape, *ones))
    total = x + skip
    if not same_shape(total.shape, x.shape):
        raise Unmodeled(f"its skip {n.tensor(3).tensor} doesn't broadcast to {x.tensor}")
    if n.has(4):
        bias = n.tensor(4)
        total = total + (bias if _last(n) else reshape(bias, (*bias.shape, *[1] * (x.rank - 2))))
    return (_group_norm(n, total), total)[: len(n.proto.output)]


def _last(n: Import) -> bool:
    return bool(n.attribute("channels_last", 1))


def _group_norm(n: Import, x: Value) -> Value:
    op = norm.GroupNorm(n.attributes["groups"], n.attribute("epsilon", 1e-5))
    activation = n.attribute("activation", 0)
    if activation not in (0, 1):
        raise Unmodeled(f"irshap doesn't know its activation {activation}")
    y = n.one(op, channels_first(x) if _last(n) else x, n.tensor(1), n.tensor(2))
    if activation:
        y = n.one(Swish(1.0), y)
    return channels_last(y) if _last(n) else y
