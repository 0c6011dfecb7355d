"""conv-adjoint: the adjoint of a stride-1 convolution, written as a convolution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import as_dim
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, Tensor
from irshap.ops.conv import Conv, ConvTranspose
from irshap.ops.program import Constant
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["ConvAdjoint"]


@dataclass(frozen=True)
class ConvAdjoint(Pass):
    """ConvTranspose with stride 1 and constant weights becomes Conv with flipped, transposed weights.

    ONNX Runtime's CPU provider has blocked kernels for Conv only.  For larger strides ConvTranspose stays: a
    convolution over zero-filled rows does the same work several times over.
    """

    name = "conv-adjoint"
    semantics = Semantics.PRESERVES
    into_bodies = True

    def run(self, ir: Graph, context: Context) -> Graph:
        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            found = _as_conv(node, mapping)
            if found is not None:
                context.count("rewritten")
            return found

        return map_nodes(ir, visit)


def _as_conv(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
    op = node.op
    if not isinstance(op, ConvTranspose) or any(s != 1 for s in op.strides):
        return None
    weights = node.operands[1].node.op
    if not isinstance(weights, Constant):
        return None
    kernel = weights.value.array.shape[2:]
    pads = []
    for i, k in enumerate(kernel):
        reach = op.dilations[i] * (k - 1)
        grown = as_dim(op.out[i] - node.operands[0].shape[2 + i])
        before = reach - op.pads[i][0]
        after = as_dim(grown - before + reach)
        if not isinstance(after, int) or before < 0 or after < 0:
            return None
        pads.append((before, after))
    flipped = emit1(Constant(Tensor.wrap(flip_weights(weights.value.array, op.group))))
    rest = [mapping[v] for v in node.operands[2:]]
    conv = Conv(op.strides, tuple(pads), op.dilations, op.group)
    return emit(conv, mapping[node.operands[0]], flipped, *rest)


def flip_weights(w: Array, group: int) -> Array:
    """[in, out/group, ...] -> [out, in/group, ...], each spatial axis reversed."""
    parts = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    swapped = np.swapaxes(parts, 1, 2).reshape(w.shape[1] * group, w.shape[0] // group, *w.shape[2:])
    return np.ascontiguousarray(np.flip(swapped, axis=tuple(range(2, w.ndim))))
