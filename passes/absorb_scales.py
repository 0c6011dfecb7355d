"""absorb-scales: factors of single channels go into the weights of the convolution before them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import current, emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import same_shape
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, Tensor
from irshap.ops.arithmetic import Mul
from irshap.ops.conv import Conv, ConvTranspose
from irshap.ops.program import Constant
from irshap.ops.shape import Reshape, reshape
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["AbsorbScales"]


@dataclass(frozen=True)
class AbsorbScales(Pass):
    """(W' c) * m * s = ((s W)' c) * m for a constant s of one number for each channel.

    The adjoint of a batch normalization behind a nonlinearity (m its multiplier) is such a factor, and one
    memory pass over all pairs of samples and references.  Only where nothing else reads W' c.
    """

    name = "absorb-scales"
    semantics = Semantics.PRESERVES
    into_bodies = True

    def run(self, ir: Graph, context: Context) -> Graph:
        uses = Counter(v for n in ir.nodes for v in n.operands) + Counter(o.value for o in ir.outputs)

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
            absorbed = _absorbed(node, uses, mapping)
            if absorbed is None:
                return None
            context.count("absorbed")
            return (absorbed,)

        return map_nodes(ir, visit)


def _absorbed(node: Node, uses: Counter[Value], mapping: Mapping[Value, Value]) -> Value | None:
    """The product with its constant factor inside a convolution's weights; None where it has no such form."""
    if not isinstance(node.op, Mul):
        return None
    for product, factor in (node.operands, node.operands[::-1]):
        scale, inner = factor.node.op, product.node
        if not isinstance(scale, Constant) or uses[product] > 1:
            continue
        if isinstance(inner.op, Mul) and same_shape(product.shape, node.results[0].shape):
            for convolved, other in (inner.operands, inner.operands[::-1]):
                if same_shape(convolved.shape, product.shape):
                    scaled = _scaled(convolved, scale.value.array, uses, mapping)
                    if scaled is not None:
                        return emit1(Mul(), scaled, mapping[other])
    return None


def _scaled(value: Value, scale: Array, uses: Counter[Value], mapping: Mapping[Value, Value]) -> Value | None:
    """`value`, a convolution's result or a reshape of it, times `scale`, which goes into the weights."""
    source = value.node.operands[0] if isinstance(value.node.op, Reshape) else value
    node, rank = source.node, source.rank
    if not isinstance(node.op, Conv | ConvTranspose) or uses[value] > 1 or uses[source] > 1:
        return None
    weights = node.operands[1].node.op
    aligned = value.rank >= rank and same_shape(value.shape[value.rank - rank + 1 :], source.shape[1:])
    if not isinstance(weights, Constant) or len(node.operands) > 2 or not aligned:
        return None
    channels = source.shape[1]
    by_channel = scale.shape[scale.ndim - rank + 1 :] if scale.ndim >= rank - 1 else ()
    if scale.size != channels or by_channel != (channels, *(1,) * (rank - 2)):
        return None
    array = weights.value.array
    if isinstance(node.op, Conv):
        scaled = array * scale.reshape(-1, *(1,) * (array.ndim - 1))
    else:  # [in, out/group, ...], the inputs of one group after those of another
        parts = array.reshape(node.op.group, -1, *array.shape[1:])
        scaled = (parts * scale.reshape(node.op.group, 1, -1, *(1,) * (array.ndim - 2))).reshape(array.shape)
    constant = Constant(Tensor.wrap(np.ascontiguousarray(scaled)))
    with current().at(node.origin):
        result = emit1(node.op, mapping[node.operands[0]], emit1(constant))
    return reshape(result, value.shape)
