"""Chains of reshapes."""

from __future__ import annotations

from irshap.ir.core import Node, Value
from irshap.ir.dims import same_shape
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ops.shape import Reshape, reshape

__all__ = ["reshape_of_reshape"]


@rewrite(Reshape)
def reshape_of_reshape(node: Node, x: Value) -> Replacement:
    """reshape(reshape(x)) = reshape(x), and x where it has the shape already."""
    source = x.node.operands[0] if isinstance(x.node.op, Reshape) else x
    if source is x and not same_shape(x.shape, node.results[0].shape):
        return NoMatch("the operand is no reshape, and the shape changes")
    return reshape(source, node.results[0].shape)
