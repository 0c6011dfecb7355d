"""quantized: what is rounded to integers and read back is explained as the clip that it steps around."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import current, emit1
from irshap.ir.core import Graph, Node, Op, Value
from irshap.ir.dims import same, same_shape
from irshap.ir.rewrite import live_nodes, map_nodes
from irshap.ir.types import Array, DType
from irshap.ops.arithmetic import Mul
from irshap.ops.cast import Cast
from irshap.ops.conv import Conv
from irshap.ops.gather import Gather
from irshap.ops.linear import MatMul
from irshap.ops.pool import MaxPool
from irshap.ops.program import Constant, constant
from irshap.ops.quantized import Dequantize, DynamicFakeQuantize, DynamicQuantize, FakeQuantize, Quantize
from irshap.ops.reduce import Expand
from irshap.ops.shape import Concat, Move, Pad, Reshape, reshape
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Quantized"]


@dataclass(frozen=True)
class Quantized(Pass):
    """Joins what rounds activations to integers with what reads these back, so that explaining gets through.

    `dequantize` of `quantize`, also where moves and max-pooling stand between, becomes one op from floats to
    floats with the same result: predictions stay those of the quantized model.  Its local map is that of the
    clip to the range of the levels (of a range found at run time: the identity), around which it steps.  So
    attributions leave out what rounding contributes; f(x) - base - sum of attributions, where f is the
    quantized model, is the output completeness_error.
    """

    name = "quantized"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            found = None
            if isinstance(node.op, Dequantize):
                found = _read_back(node, mapping)
            elif isinstance(node.op, Mul):
                found = _integer_layer(node, mapping)
            if found is None:
                return None
            context.count("joined")
            return (found,)

        return live_nodes(map_nodes(ir, visit))


@dataclass(frozen=True)
class _Real:
    """The number that a level stands for, with the scale and the zero point by which it does (old values)."""

    value: Value
    scale: Value
    zero: Value


def _read_back(node: Node, mapping: Mapping[Value, Value]) -> Value | None:
    q, scale, zero = node.operands
    real = _real(q, mapping)
    if real is None:
        return None
    if _same(scale, real.scale) and _same(zero, real.zero):
        return real.value
    numbers = [_array(v) for v in (scale, zero, real.scale, real.zero)]
    if any(a is None for a in numbers):
        return None
    # read back by another scale: the same levels stand for other numbers
    s, z, s0, z0 = (np.asarray(a, np.float64) for a in numbers)
    factor, offset = (constant(a, real.value.dtype) for a in (s / s0, (z0 - z) * s))
    return real.value * factor + offset


def _real(q: Value, mapping: Mapping[Value, Value]) -> _Real | None:
    """What an integer value stands for, emitted into the current builder; None where that isn't known."""
    node = q.node
    op = node.op
    if isinstance(op, Quantize):
        _, scale, zero = node.operands
        return _Real(emit1(FakeQuantize(op.dtype), *(mapping[v] for v in node.operands)), scale, zero)
    if isinstance(op, DynamicQuantize) and q.index == 0:
        return _Real(emit1(DynamicFakeQuantize(op.axes), mapping[node.operands[0]]), *node.results[1:])
    if isinstance(op, Concat):
        parts = [p for v in node.operands if (p := _real(v, mapping)) is not None]
        alike = all(_same(p.scale, parts[0].scale) and _same(p.zero, parts[0].zero) for p in parts)
        if not alike or len(parts) < len(node.operands):
            return None
        return _moved(op, parts[0], [p.value for p in parts], q)
    if not isinstance(op, Move | Expand | MaxPool | Gather):
        return None
    real = _real(node.operands[0], mapping)
    if real is None:
        return None
    if isinstance(op, Pad):
        padding = _array(real.zero)
        if padding is None or padding.size != 1 or float(padding.reshape(())) != op.value:
            return None
        op = Pad(op.before, op.after, 0.0)
    return _moved(op, real, [real.value, *(mapping[v] for v in node.operands[1:])], q)


def _moved(op: Op, real: _Real, operands: list[Value], q: Value) -> _Real | None:
    """The real numbers moved as their levels are, where one scale is that of all."""
    if real.scale.rank or real.zero.rank:
        return None
    results = current().emit(op, *operands)
    return _Real(results[q.index], real.scale, real.zero)


def _same(a: Value, b: Value) -> bool:
    """Whether two scales or zero points are the same, in whatever shape."""
    if _bare(a) is _bare(b):
        return True
    x, y = _array(a), _array(b)
    return x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y)


def _bare(value: Value) -> Value:
    while isinstance(value.node.op, Reshape):
        (value,) = value.node.operands
    return value


def _array(value: Value) -> Array | None:
    return value.node.op.value.array if isinstance(value.node.op, Constant) else None


def _integer_layer(node: Node, mapping: Mapping[Value, Value]) -> Value | None:
    """A product of levels, less their zero points, with weights: times the scale of these levels.

    layer(q - zero, w) (scale c) = layer(real, w) c
    """
    for i in (0, 1):
        product, factor = node.operands[i], node.operands[1 - i]
        layer = _layer(product)
        if layer is None:
            continue
        q, _, zero = layer.operands[0].node.operands
        real = _real(q, mapping)
        rest = _without(factor, real.scale, mapping) if real is not None else None
        if real is None or rest is None or not _same(zero, real.zero):
            continue
        y = emit1(layer.op, real.value, *(mapping[v] for v in layer.operands[1:]))
        return y if rest == 1.0 else y * rest
    return None


def _layer(value: Value) -> Node | None:
    """The product of levels with weights that a value is, maybe kept as an int32 in between."""
    node = value.node
    if isinstance(node.op, Cast) and isinstance(node.operands[0].node.op, Cast):
        inner = node.operands[0].node
        node = inner.operands[0].node if inner.op == Cast(DType.I32) else node
    if not isinstance(node.op, MatMul | Conv) or len(node.operands) != 2:
        return None
    steps = node.operands[0].node
    unit = _array(steps.operands[1]) if isinstance(steps.op, Dequantize) else None
    return node if unit is not None and (unit == 1).all() else None


def _without(factor: Value, scale: Value, mapping: Mapping[Value, Value]) -> Value | float | None:
    """What is left of a product without one of its factors; None where it isn't one."""
    if _same(factor, scale):
        return 1.0
    if isinstance(factor.node.op, Mul):
        a, b = factor.node.operands
        for one, other in ((a, b), (b, a)):
            rest = _without(one, scale, mapping)
            if rest is not None:
                return mapping[other] if rest == 1.0 else mapping[other] * rest
    if isinstance(factor.node.op, Reshape):
        rest = _without(factor.node.operands[0], scale, mapping)
        return rest if not isinstance(rest, Value) else _spread_as(rest, factor)
    whole, part = _array(factor), _array(scale)
    if whole is None or part is None or part.size != 1:
        return None
    return constant(whole / part.reshape(()), factor.dtype)


def _spread_as(rest: Value, factor: Value) -> Value | None:
    """The rest of a reshaped product, spread as that is: one number, or the last axes alone."""
    if same(rest.tensor.size, 1):
        return reshape(rest, ())
    last = factor.shape[factor.rank - rest.rank :]
    return rest if rest.rank < factor.rank and same_shape(last, rest.shape) else None
