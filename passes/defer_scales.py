"""defer-scales: the factors of a batch normalization go behind its ReLU, into the weights that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, Tensor
from irshap.ir.walks import readers_of
from irshap.ops.arithmetic import Add
from irshap.ops.conv import Conv
from irshap.ops.elementwise import Relu
from irshap.ops.linear import BatchNorm
from irshap.ops.program import Constant
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["DeferScales"]

_FARTHEST = 2.0**30
"""Factors between this and its reciprocal leave room to float32's ends."""


@dataclass(frozen=True)
class DeferScales(Pass):
    """W relu(s x + b) = (W s) relu(x + b/s) for s > 0 of one number for each channel, before autodiff.

    ReLU is nonnegatively homogeneous, and so is its chord.  Where a convolution doesn't stand in front, the
    batch normalization behind a concatenation in DenseNet, say, is then a sum: ONNX Runtime runs the
    normalization on one thread, between nodes that share theirs, and of the references it is computed again
    for each chunk.  Only where all factors are positive, and nothing but convolutions reads the ReLU.
    """

    name = "defer-scales"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        readers = readers_of(ir.nodes)
        kept = {output.value for output in ir.outputs}
        shifts, factors = dict[Node, Array](), dict[Value, Array]()
        for node in ir.nodes:
            if not isinstance(node.op, BatchNorm) or not kept.isdisjoint(node.results):
                continue
            relu, parts = _only_relu(readers[node.results[0]]), _factor_and_shift(node)
            if relu is None or parts is None or relu in kept or not _all_convolve(relu, readers[relu]):
                continue
            factors[relu], shifts[node] = parts
            context.count("deferred")

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            if node in shifts:
                return (emit1(Add(), mapping[node.operands[0]], _constant(shifts[node])),)
            if node.operands and node.operands[0] in factors and isinstance(node.op, Conv):
                x, weights, *rest = node.operands
                scaled = _scaled(_array(weights), factors[x], node.op.group)
                return (emit1(node.op, mapping[x], _constant(scaled), *(mapping[v] for v in rest)),)
            return None

        return map_nodes(ir, visit)


def _only_relu(readers: Sequence[Node]) -> Value | None:
    """The ReLU of a value that nothing else reads."""
    if len(readers) == 1 and isinstance(readers[0].op, Relu):
        return readers[0].results[0]
    return None


def _all_convolve(value: Value, readers: Sequence[Node]) -> bool:
    """Whether a value is read by convolutions alone, with weights that are constants."""
    return bool(readers) and all(
        isinstance(n.op, Conv) and n.operands[0] is value and isinstance(n.operands[1].node.op, Constant)
        for n in readers
    )


def _factor_and_shift(node: Node) -> tuple[Array, Array] | None:
    """s, and b/s for each channel, of a normalization s x + b; None where it has no such form."""
    x, *statistics = node.operands
    if not all(isinstance(v.node.op, Constant) for v in statistics):
        return None
    assert isinstance(node.op, BatchNorm)
    scale, bias, mean, var = (_array(v).astype(np.float64) for v in statistics)
    factor = scale / np.sqrt(var + node.op.epsilon)
    if not ((factor > 1 / _FARTHEST) & (factor < _FARTHEST)).all():
        return None
    shift = (bias / factor - mean).astype(x.dtype.numpy)
    return factor, shift.reshape(-1, *[1] * (x.rank - 2))


def _scaled(weights: Array, factor: Array, group: int) -> Array:
    """W[o, i] s[i], the inputs of one group after those of another."""
    by_group = weights.reshape(group, -1, *weights.shape[1:])
    aligned = factor.reshape(group, 1, -1, *[1] * (weights.ndim - 2))
    return np.asarray(by_group * aligned, weights.dtype).reshape(weights.shape)


def _array(value: Value) -> Array:
    assert isinstance(value.node.op, Constant)
    return value.node.op.value.array


def _constant(array: Array) -> Value:
    return emit1(Constant(Tensor.wrap(np.ascontiguousarray(array))))
