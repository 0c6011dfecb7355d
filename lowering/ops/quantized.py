"""Rounding to few levels and reading them back; levels that are constants are read at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from irshap.ir.core import Value
from irshap.ir.dims import N, same
from irshap.ir.types import Array, DType, Tensor
from irshap.lowering.emitter import FLOOR, Export, exporter, onnx_dtype
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.reduce import reduced
from irshap.ops import quantized
from irshap.ops.gather import Gather
from irshap.ops.program import Constant, batch_from_shape, constant
from irshap.ops.shape import Move, reshape

__all__ = ["dequantized", "dynamic", "quantize", "spread"]

_QUANTIZED = {DType.I4: 21, DType.U4: 21, DType.I8: FLOOR, DType.U8: FLOOR, DType.I16: 21, DType.U16: 21}
_QUANTIZED |= {DType.F8E4M3FN: 19, DType.F8E4M3FNUZ: 19, DType.F8E5M2: 19, DType.F8E5M2FNUZ: 19}
_QUANTIZED |= {DType.I2: 25, DType.U2: 25, DType.I32: FLOOR}
"""The opset from which on QuantizeLinear or DequantizeLinear have an element type; int32 is only read."""


def spread(n: Import, x: Value, given: Value, axis: int) -> Value:
    """A scale or zero point that broadcasts to `x`: of the whole tensor, or one for each row of `axis`."""
    if given.rank == 0 or (same(given.tensor.size, 1) and given.rank <= x.rank):
        return reshape(given, ())
    pairs = zip(given.shape, x.shape, strict=False)
    if given.rank == x.rank > 1 and all(same(g, 1) or same(g, d) for g, d in pairs):
        return given
    if given.rank > 1:
        raise Unmodeled("its scales are for blocks of numbers that are only known at run time")
    axis = n.axis(axis, x.rank)
    return reshape(given, [given.shape[0] if a == axis else 1 for a in range(x.rank)])


def quantize(n: Import, x: Value, scale: Value, zero: Value | None, axis: int = 1) -> Value:
    """The levels of `x`, uint8 where no zero point tells their type."""
    zero = constant(0, DType.U8) if zero is None else zero
    if zero.dtype not in _QUANTIZED or zero.dtype is DType.I32:
        raise Unmodeled(f"it rounds to {zero.dtype.value}")
    scale = spread(n, x, scale, axis)
    if scale.dtype is not x.dtype:
        raise Unmodeled(f"its scale is {scale.dtype.value}, and what it rounds {x.dtype.value}")
    return n.one(quantized.Quantize(zero.dtype), x, scale, spread(n, x, zero, axis))


def dequantized(
    n: Import, q: Value, scale: Value, zero: Value | None, axis: int = 1, block: int = 0
) -> Value:
    """What the levels `q` stand for: a constant where they are one, block by block, too."""
    given = [q, scale] if zero is None else [q, scale, zero]
    constants = [v.node.op.value.array for v in given if isinstance(v.node.op, Constant)]
    if len(constants) == len(given):
        return n.one(Constant(Tensor(_folded(n, constants, axis, block))))
    whole = len(constants) == len(given) - 1 and all(a.size == 1 for a in constants)
    if whole and (rows := _looked_up(n, q, scale, zero)) is not None:
        return rows
    if block:
        raise Unmodeled("it reads blocks of numbers that are only known at run time")
    if q.dtype not in _QUANTIZED:
        raise Unmodeled(f"it reads {q.dtype.value}")
    zero = constant(0, q.dtype) if zero is None else zero
    return n.one(quantized.Dequantize(), q, spread(n, q, scale, axis), spread(n, q, zero, axis))


def _looked_up(n: Import, q: Value, scale: Value, zero: Value | None) -> Value | None:
    """Rows of a table of levels that were looked up, and perhaps moved: of the numbers these stand for.

    So an embedding whose table is quantized is one of floats, which can be attributed.  None for any other.
    """
    op, operands = q.node.op, q.node.operands
    if isinstance(op, Gather) and isinstance(operands[0].node.op, Constant):
        return n.one(op, dequantized(n, operands[0], scale, zero), operands[1])
    if not isinstance(op, Move) or len(operands) != 1 or len(q.node.results) != 1:
        return None
    rows = _looked_up(n, operands[0], scale, zero)
    return None if rows is None else n.one(op, rows)


def _folded(n: Import, given: Sequence[Array], axis: int, block: int) -> Array:
    q, scale, *zeros = given
    zero = zeros[0] if zeros else np.zeros((), q.dtype)
    wide = [_along(n, a, q, axis, block) for a in (scale, zero)]
    whole = np.int64 if q.dtype.kind in "iu" or q.dtype.name.startswith(("int", "uint")) else np.float32
    steps = q.astype(whole) - wide[1].astype(whole)
    return np.asarray(steps.astype(np.float32) * wide[0].astype(np.float32), scale.dtype)


def _along(n: Import, a: Array, q: Array, axis: int, block: int) -> Array:
    """Scales or zero points as they are spread over `q`."""
    if a.size == 1 and a.ndim <= 1:
        return a.reshape(())
    at = n.axis(axis, q.ndim)
    if block or a.ndim == q.ndim > 1:
        each = block or -(-q.shape[at] // a.shape[at])
        rows = np.repeat(a, each, at)
        return rows.take(np.arange(q.shape[at]), at)
    if a.shape != (q.shape[at],):
        raise Unmodeled(f"{a.shape} scales for axis {at} of {q.shape}")
    return a.reshape([a.size if i == at else 1 for i in range(q.ndim)])


def dynamic(n: Import, x: Value) -> tuple[Value, Value, Value]:
    """Levels, scale and zero point, over the range of each sample: as the model gives it for one alone."""
    batch = batch_from_shape(x.shape)
    if batch is not None and not same(x.shape[batch], N):
        raise Unmodeled("its range is that of samples which are merged with another axis")
    axes = tuple(a for a in range(x.rank) if a != batch)
    levels, *parameters = n.emit(quantized.DynamicQuantize(axes), x)
    # without a batch they are numbers, as ONNX has them
    scale, zero = (v if batch is not None else reshape(v, ()) for v in parameters)
    return levels, scale, zero


@importer("QuantizeLinear", "com.microsoft.QuantizeLinear")
def _read_quantize(n: Import) -> Value:
    if n.attribute("block_size", 0):
        raise Unmodeled("it rounds blocks of numbers")
    zero = n.tensor(2) if n.has(2) else None
    if zero is None and (code := n.attribute("output_dtype", 0)):
        zero = constant(0, DType.of(np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(code))))
    if zero is not None and not zero.dtype.is_integer and not n.attribute("saturate", 1):
        raise Unmodeled("beyond its range it isn't a number (saturate=0)")
    return quantize(n, n.tensor(0), n.tensor(1), zero, n.attribute("axis", 1))


@importer("DequantizeLinear", "com.microsoft.DequantizeLinear")
def _read_dequantize(n: Import) -> Value:
    zero = n.tensor(2) if n.has(2) else None
    axis, block = n.attribute("axis", 1), n.attribute("block_size", 0)
    return dequantized(n, n.tensor(0), n.tensor(1), zero, axis, block)


@importer("DynamicQuantizeLinear")
def _read_dynamic(n: Import) -> Sequence[Value]:
    return dynamic(n, n.tensor())


def _opset(op: quantized.Quantize | quantized.FakeQuantize) -> int:
    return _QUANTIZED[op.dtype]


def _lies_on(e: Export, i: int) -> tuple[bool, int | None]:
    """Whether ONNX can say how operand i is spread, and the axis along which it differs, if any."""
    shape = e.operand(i).shape
    axes = [a for a, d in enumerate(shape) if not same(d, 1)]
    return len(axes) <= 1, axes[0] + e.operand(0).rank - len(shape) if axes else None


def _parameters(e: Export) -> tuple[list[str], int | None] | None:
    """Scale and zero point as QuantizeLinear takes them, and their axis; None where it can't."""
    found = [_lies_on(e, i) for i in (1, 2)]
    axes = {axis for fits, axis in found}
    if not all(fits for fits, _ in found) or len(axes) > 1:
        return None
    (axis,) = axes
    flat = e.ints([] if axis is None else [-1])
    names = [e.inputs[i] if not e.operand(i).shape else e.add("Reshape", [e.inputs[i], flat]) for i in (1, 2)]
    return names, axis


def _write_levels(e: Export, x: str, scale: str, zero: str, dtype: DType) -> str:
    """round(x / scale) + zero, clipped, in the element type of x."""
    low, high = (e.number(bound) for bound in quantized.levels(dtype))
    steps = e.add("Round", [e.add("Div", [x, scale])])
    return e.add("Min", [e.add("Max", [e.add("Add", [steps, zero]), low]), high])


@exporter(quantized.Quantize, opset=_opset)
def _write_quantize(e: Export, op: quantized.Quantize) -> None:
    given = None if e.operand().dtype is DType.F64 else _parameters(e)
    if given is not None:
        (scale, zero), axis = given
        e.result("QuantizeLinear", [e.inputs[0], scale, zero], axis=axis)
        return
    zero = e.add("Cast", [e.inputs[2]], to=onnx_dtype(e.operand().dtype))
    e.result("Cast", [_write_levels(e, e.inputs[0], e.inputs[1], zero, op.dtype)], to=onnx_dtype(op.dtype))


@exporter(quantized.Dequantize)
def _write_dequantize(e: Export, op: quantized.Dequantize) -> None:
    dtype = e.operand(1).dtype
    given = None if dtype is DType.F64 or _QUANTIZED[e.operand().dtype] > e.opset else _parameters(e)
    if given is not None:
        (scale, zero), axis = given
        e.result("DequantizeLinear", [e.inputs[0], scale, zero], axis=axis)
        return
    q, zero = (e.add("Cast", [e.inputs[i]], to=onnx_dtype(dtype)) for i in (0, 2))
    e.result("Mul", [e.add("Sub", [q, zero]), e.inputs[1]])


@exporter(quantized.FakeQuantize, opset=_opset)
def _write_fake(e: Export, op: quantized.FakeQuantize) -> None:
    given = None if e.operand().dtype is DType.F64 else _parameters(e)
    if given is not None:
        (scale, zero), axis = given
        levels = e.add("QuantizeLinear", [e.inputs[0], scale, zero], axis=axis)
        e.result("DequantizeLinear", [levels, scale, zero], axis=axis)
        return
    zero = e.add("Cast", [e.inputs[2]], to=onnx_dtype(e.operand().dtype))
    levels = _write_levels(e, e.inputs[0], e.inputs[1], zero, op.dtype)
    e.result("Mul", [e.add("Sub", [levels, zero]), e.inputs[1]])


def _write_range(e: Export, axes: Sequence[int], scale_to: str | None = None) -> tuple[str, str]:
    """Scale and zero point, as floats, over the range of the operand."""
    zero = e.number(0.0)
    low, high = (reduced(e, f"Reduce{kind}", e.inputs[0], axes) for kind in ("Min", "Max"))
    low, high = e.add("Min", [low, zero]), e.add("Max", [high, zero])
    flat = e.add("Equal", [low, high])
    steps = e.add("Div", [e.add("Sub", [high, low]), e.number(255.0)])
    into = None if scale_to is None else [scale_to]
    scale = e.add("Where", [flat, e.number(1.0), steps], into=into)
    rounded = e.add("Round", [e.add("Div", [e.add("Neg", [low]), scale])])
    return scale, e.add("Min", [e.add("Max", [rounded, zero]), e.number(255.0)])


@exporter(quantized.DynamicQuantize)
def _write_dynamic(e: Export, op: quantized.DynamicQuantize) -> None:
    levels, scale, zero = e.outputs
    _, offset = _write_range(e, op.axes, scale)
    e.add("Cast", [offset], into=[zero], to=onnx.TensorProto.UINT8)
    whole = _write_levels(e, e.inputs[0], scale, offset, DType.U8)
    e.add("Cast", [whole], into=[levels], to=onnx.TensorProto.UINT8)


@exporter(quantized.DynamicFakeQuantize)
def _write_dynamic_fake(e: Export, op: quantized.DynamicFakeQuantize) -> None:
    scale, offset = _write_range(e, op.axes)
    levels = _write_levels(e, e.inputs[0], scale, offset, DType.U8)
    e.result("Mul", [e.add("Sub", [levels, offset]), scale])
