"""conv-adjoint: the adjoint of a stride-1 convolution, written as a convolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import as_dim
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
        with Builder() as b:
            mapping: dict[Value, Value] = {v: b.copy(v.node, {})[0] for v in ir.inputs}
            for node in ir.nodes:
                results = _as_conv(b, node, mapping)
                if results is None:
                    results = b.copy(node, mapping)
                else:
                    context.count("rewritten")
                mapping.update(zip(node.results, results, strict=True))
            return b.rebuild(ir, mapping)


def _as_conv(b: Builder, node: Node, mapping: dict[Value, Value]) -> tuple[Value, ...] | None:
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
    flipped = b.emit(Constant(Tensor.wrap(flip_weights(weights.value.array, op.group))), origin=node.origin)[
        0
    ]
    rest = [mapping[v] for v in node.operands[2:]]
    conv = Conv(op.strides, tuple(pads), op.dilations, op.group)
    return b.emit(conv, mapping[node.operands[0]], flipped, *rest, origin=node.origin)


def flip_weights(w: Array, group: int) -> Array:
    """[in, out/group, ...] -> [out, in/group, ...], each spatial axis reversed."""
    parts = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    swapped = np.swapaxes(parts, 1, 2).reshape(w.shape[1] * group, w.shape[0] // group, *w.shape[2:])
    return np.ascontiguousarray(np.flip(swapped, axis=tuple(range(2, w.ndim))))
