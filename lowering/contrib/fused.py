"""Activations, and products and convolutions with one fused in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irshap.ir.core import Value
from irshap.ir.dims import same_shape
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import gated
from irshap.ops.linear import matmul, swap_last
from irshap.ops.shape import split, transpose

__all__ = ["channels_first", "channels_last"]

_ACTIVATIONS: Mapping[str, Mapping[str, float]] = {
    "Celu": {"alpha": 1.0},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "HardSwish": {},
    "Identity": {},
    "LeakyRelu": {"alpha": 0.01},
    "Relu": {},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "Sigmoid": {},
    "Softplus": {},
    "Softsign": {},
    "Tanh": {},
    "ThresholdedRelu": {"alpha": 1.0},
}
"""What may be fused into a product, and its attributes with ONNX's defaults."""

_CONVOLUTION = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


@importer("com.microsoft.Gelu", "com.microsoft.BiasGelu")
def _read_gelu(n: Import) -> Value:
    return n.one(gated.Gelu(False), _summed(n, 2))


@importer("com.microsoft.FastGelu")
def _read_fast_gelu(n: Import) -> Value:
    return n.one(gated.Gelu(True), _summed(n, 2))


@importer("com.microsoft.QuickGelu")
def _read_quick_gelu(n: Import) -> Value:
    return n.one(gated.Swish(n.attribute("alpha", 1.702)), n.tensor())


@importer("com.microsoft.GemmFastGelu")
def _read_gemm_fast_gelu(n: Import) -> Value:
    product = n.call("MatMul", n.tensor(0), n.tensor(1))
    return n.one(gated.Gelu(True), product + n.tensor(2) if n.has(2) else product)


@importer("com.microsoft.BiasSplitGelu")
def _read_bias_split_gelu(n: Import) -> Value:
    x = _summed(n, 2)
    size = x.shape[-1]
    if not isinstance(size, int) or size % 2:
        raise Unmodeled(f"{size} channels have no halves")
    left, right = split(x, x.rank - 1, (size // 2, size // 2))
    return left * n.one(gated.Gelu(False), right)


@importer("com.microsoft.BiasAdd")
def _read_bias_add(n: Import) -> Value:
    return _summed(n, 3)


@importer("com.microsoft.BiasSoftmax")
def _read_bias_softmax(n: Import) -> Value:
    """Before opset 13, where it comes from, all axes from `axis` on count as one."""
    x = n.tensor(0) + n.tensor(1)
    if not same_shape(x.shape, n.tensor(0).shape):
        raise Unmodeled(f"its bias {n.tensor(1).tensor} doesn't broadcast to {n.tensor(0).tensor}")
    return n.call("Softmax", x, opset=11, axis=n.attribute("axis", 1))


def _summed(n: Import, count: int) -> Value:
    """The sum of the first inputs that are given."""
    x = n.tensor(0)
    for i in range(1, count):
        x = x + n.tensor(i) if n.has(i) else x
    return x


@importer("com.microsoft.FusedConv")
def _read_fused_conv(n: Import) -> Value:
    return _activated(n, _convolved(n, n.tensor(0), n.tensor(3) if n.has(3) else None), _parameters(n))


@importer("com.microsoft.NhwcConv", "com.microsoft.NhwcFusedConv")
def _read_nhwc_conv(n: Import) -> Value:
    """Data have the channels last; the weights are those of Conv."""
    added = channels_first(n.tensor(3)) if n.has(3) else None
    return channels_last(_activated(n, _convolved(n, channels_first(n.tensor(0)), added), _parameters(n)))


@importer("com.microsoft.NhwcMaxPool")
def _read_nhwc_max_pool(n: Import) -> Value:
    return channels_last(n.call("MaxPool", channels_first(n.tensor(0)), **n.attributes))


def channels_first(x: Value) -> Value:
    """[n, ..., channels] as [n, channels, ...]."""
    return transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def channels_last(x: Value) -> Value:
    """[n, channels, ...] as [n, ..., channels]."""
    return transpose(x, (0, *range(2, x.rank), 1))


def _convolved(n: Import, x: Value, added: Value | None) -> Value:
    given = {k: v for k, v in n.attributes.items() if k in _CONVOLUTION}
    y = n.call("Conv", x, n.tensor(1), *([n.tensor(2)] if n.has(2) else []), **given)
    if added is None:
        return y
    if not same_shape(added.shape, y.shape):
        raise Unmodeled(f"what it adds, {added.tensor}, is no {y.tensor}")
    return y + added


def _parameters(n: Import) -> list[float]:
    return list(n.attribute("activation_params", []))


def _activated(n: Import, x: Value, parameters: list[float]) -> Value:
    """Behind a convolution: the parameters are a list."""
    kind = n.attribute("activation", "")
    if kind == "Clip":
        low, high = parameters
        return n.call("Clip", x, opset=7, min=low, max=high)
    return _activation(n, kind, x, dict(zip(_ACTIVATIONS.get(kind, ()), parameters, strict=False)))


def _activation(n: Import, kind: str, x: Value, parameters: Mapping[str, Any]) -> Value:
    if not kind:
        return x
    if kind not in _ACTIVATIONS:
        raise Unmodeled(f"irshap doesn't know the activation {kind!r} in it")
    return n.call(kind, x, **{**_ACTIVATIONS[kind], **parameters})


def _of_product(n: Import, x: Value) -> Value:
    """Behind a matrix product: the parameters have names."""
    kind = n.attribute("activation", "")
    names = ("alpha", "beta", "gamma", "axis")
    given = {k: n.attributes[f"activation_{k}"] for k in names if f"activation_{k}" in n.attributes}
    if kind in ("LogSoftmax", "Softmax"):
        return n.call(kind, x, **{k: v for k, v in given.items() if k == "axis"})
    return _activation(n, kind, x, {k: v for k, v in given.items() if k in _ACTIVATIONS.get(kind, ())})


@importer("com.microsoft.FusedGemm")
def _read_fused_gemm(n: Import) -> Value:
    given = {k: v for k, v in n.attributes.items() if k in ("alpha", "beta", "transA", "transB")}
    return _of_product(n, n.call("Gemm", *n.given(), **given))


@importer("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul")
def _read_fused_matmul(n: Import) -> Value:
    a, b = _factor(n, 0, "A"), _factor(n, 1, "B")
    y = matmul(a, b) if min(a.rank, b.rank) > 1 else n.call("MatMul", a, b)
    alpha = n.attribute("alpha", 1.0)
    return y if alpha == 1 else y * alpha


@importer("com.microsoft.FusedMatMulActivation")
def _read_fused_matmul_activation(n: Import) -> Value:
    return _of_product(n, _read_fused_matmul(n))


def _factor(n: Import, i: int, side: str) -> Value:
    """A factor with its axes in the order of a product; flags don't count for a vector."""
    x = n.tensor(i)
    if x.rank < 2:
        return x
    if n.attribute(f"transBatch{side}", 0):
        # the first axis belongs to the matrices, those between to the stack
        x = transpose(x, (*range(1, x.rank - 1), 0, x.rank - 1))
    return swap_last(x) if n.attribute(f"trans{side}", 0) else x
