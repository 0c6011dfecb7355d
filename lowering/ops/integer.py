"""Layers on integers, as quantizers write them: what they read is dequantized, what they give is quantized.

A layer in floats between the two is what ONNX defines them by, up to the rounding of floats; it runs
anywhere, and is what explaining looks through (the pass `quantized`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.quantized import dequantized, dynamic, quantize
from irshap.ops.cast import cast
from irshap.ops.linear import Gemm, MatMul
from irshap.ops.program import constant

__all__: list[str] = []


def _read(n: Import, i: int, axis: int = 1, *, scale: int | None = None, zero: int | None = None) -> Value:
    """Input i, whose scale and zero point follow unless they are said to be elsewhere."""
    scale, zero = (i + 1 if scale is None else scale), (i + 2 if zero is None else zero)
    return dequantized(n, n.tensor(i), n.tensor(scale), _given(n, zero), axis)


def _written(n: Import, y: Value, i: int) -> Value:
    """`y` by the scale and the zero point that are inputs i and i + 1."""
    return quantize(n, y, n.tensor(i), _given(n, i + 1))


def _given(n: Import, i: int) -> Value | None:
    return n.tensor(i) if n.has(i) else None


def _of_channels(n: Import) -> None:
    if n.attribute("channels_last", 0):
        raise Unmodeled("its channels come last")


def _attributes(n: Import, *names: str) -> dict[str, Any]:
    return {name: n.attributes[name] for name in names if name in n.attributes}


_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")


@importer("QLinearConv", "com.microsoft.QLinearConv")
def _read_conv(n: Import) -> Value:
    _of_channels(n)
    x, w = _read(n, 0), _read(n, 3, 0)
    bias = None
    if n.has(8):
        bias = constant(n.static(8).astype(np.float32) * n.static(1).reshape(()) * n.static(4).reshape(-1))
    return _written(n, n.call("Conv", x, w, bias, **_attributes(n, "group", *_WINDOW)), 6)


@importer("QLinearMatMul")
def _read_matmul(n: Import) -> Value:
    return _written(n, n.call("MatMul", _read(n, 0, -2), _read(n, 3, -1)), 6)


@importer("com.microsoft.QGemm")
def _read_gemm(n: Import) -> Value:
    flags = bool(n.attribute("transA", 0)), bool(n.attribute("transB", 0))
    a, b, alpha = _read(n, 0), _read(n, 3, 0 if flags[1] else 1), n.attribute("alpha", 1.0)
    given = [a, b]
    if n.has(6):
        unit = n.static(1).reshape(()) * n.static(4).reshape(-1) * np.float32(alpha)
        given.append(constant(n.static(6).astype(np.float32) * unit))
    y = n.one(Gemm(alpha, 1.0, *flags), *given)
    return _written(n, y, 7) if n.has(7) else y


def _pair(kind: str) -> None:
    @importer(f"com.microsoft.QLinear{kind}")
    def read(n: Import) -> Value:
        return _written(n, n.call(kind, _read(n, 0), _read(n, 3)), 6)


def _single(kind: str, *names: str) -> None:
    @importer(f"com.microsoft.QLinear{kind}")
    def read(n: Import) -> Value:
        _of_channels(n)
        return _written(n, n.call(kind, _read(n, 0), **_attributes(n, *names)), 3)


_pair("Add")
_pair("Mul")
_single("Sigmoid")
_single("LeakyRelu", "alpha")
_single("GlobalAveragePool")
_single("AveragePool", "ceil_mode", "count_include_pad", *_WINDOW)


@importer("com.microsoft.QLinearSoftmax")
def _read_softmax(n: Import) -> Value:
    if n.attribute("opset", 13) < 13 and n.axis(n.attribute("axis", -1)) != n.tensor().rank - 1:
        raise Unmodeled("it flattens the axes behind its own (opset below 13)")
    return _written(n, n.call("Softmax", _read(n, 0), **_attributes(n, "axis")), 3)


@importer("com.microsoft.QLinearReduceMean")
def _read_reduce_mean(n: Import) -> Value:
    axes = constant(n.attribute("axes", list(range(n.tensor().rank))), DType.I64)
    return _written(n, n.call("ReduceMean", _read(n, 0), axes, **_attributes(n, "keepdims")), 3)


@importer("com.microsoft.QLinearConcat")
def _read_concat(n: Import) -> Value:
    parts = [_read(n, i) for i in range(2, len(n.inputs), 3)]
    return _written(n, n.call("Concat", *parts, axis=n.attributes["axis"]), 0)


@importer("com.microsoft.QLinearWhere")
def _read_where(n: Import) -> Value:
    return _written(n, n.call("Where", n.tensor(0), _read(n, 1), _read(n, 4)), 7)


def _steps(n: Import, q: Value, zero: Value | None, axis: int) -> Value:
    """Levels less their zero point, as floats: whole numbers, which float32 multiplies exactly enough."""
    return dequantized(n, q, constant(1.0, DType.F32), zero, axis)


@importer("MatMulInteger")
def _read_matmul_integer(n: Import) -> Value:
    a, b = _steps(n, n.tensor(0), _given(n, 2), -2), _steps(n, n.tensor(1), _given(n, 3), -1)
    return cast(n.call("MatMul", a, b), DType.I32)


@importer("ConvInteger")
def _read_conv_integer(n: Import) -> Value:
    x, w = _steps(n, n.tensor(0), _given(n, 2), 1), _steps(n, n.tensor(1), _given(n, 3), 0)
    return cast(n.call("Conv", x, w, **_attributes(n, "group", *_WINDOW)), DType.I32)


def _scaled(n: Import, a: Value, b: Value, scale: Value, bias: int) -> Value:
    """Steps times steps, as floats, and what they are multiplied by."""
    y = n.one(MatMul(), a, b) * scale
    return y + n.tensor(bias) if n.has(bias) else y


@importer("com.microsoft.MatMulIntegerToFloat")
def _read_matmul_to_float(n: Import) -> Value:
    a, b = _steps(n, n.tensor(0), _given(n, 4), -2), _steps(n, n.tensor(1), _given(n, 5), -1)
    return _scaled(n, a, b, n.tensor(2) * n.tensor(3), 6)


@importer("com.microsoft.DynamicQuantizeMatMul")
def _read_dynamic_matmul(n: Import) -> Value:
    levels, scale, zero = dynamic(n, n.tensor(0))
    b = _steps(n, n.tensor(1), _given(n, 3), -1)
    return _scaled(n, _steps(n, levels, zero, -2), b, scale * n.tensor(2), 4)


@importer("com.microsoft.QAttention")
def _read_attention(n: Import) -> Value:
    if len([name for name in n.proto.output if name]) > 1:
        raise Unmodeled("its keys and values are used")
    x, w = _read(n, 0, scale=3, zero=6), _read(n, 1, scale=4, zero=7)
    rest = [_given(n, i) for i in (2, 5, 8)]
    return n.call("com.microsoft.Attention", x, w, *rest, **n.attributes)


@importer("com.microsoft.DynamicQuantizeLSTM")
def _read_lstm(n: Import) -> Sequence[Value]:
    raise Unmodeled("it quantizes its states at each step: leave LSTM out of op_types_to_quantize")
