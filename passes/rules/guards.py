"""Guards of models against NaN and division by zero, and the ops that have a rule for them."""

from __future__ import annotations

from irshap.ir.core import Node, Op, Value
from irshap.ops.activations import Clip
from irshap.ops.arithmetic import Div, Max, Where
from irshap.ops.floored import FlooredDiv
from irshap.ops.logic import IsNaN
from irshap.ops.reduce import Expand
from irshap.ops.softmax import MaskedSoftmax, Softmax
from irshap.passes.rules.activations import number

__all__ = ["floored_quotient", "masked_softmax"]

GUARD = 1e-3
"""A floor under a divisor of up to this size is there for divisors of 0."""


def masked_softmax(node: Node) -> tuple[Op, Value] | None:
    """0 where a softmax makes NaN: the op that it is, and its operand."""
    if not isinstance(node.op, Where):
        return None
    condition, zero, y = node.operands
    guards = isinstance(condition.node.op, IsNaN) and condition.node.operands[0] is y
    if not guards or type(y.node.op) is not Softmax or number(zero) != 0.0:
        return None
    return MaskedSoftmax(y.node.op.axis), y.node.operands[0]


def floored_quotient(node: Node) -> tuple[Op, Value, Value] | None:
    """A division by max(v, epsilon), maybe expanded: the op that it is, and its operands."""
    if not isinstance(node.op, Div):
        return None
    u, divisor = node.operands
    if isinstance(divisor.node.op, Expand) and divisor.rank == divisor.node.operands[0].rank:
        divisor = divisor.node.operands[0]
    op, operands = divisor.node.op, divisor.node.operands
    if isinstance(op, Clip) and op.high is None:
        floors = [(op.low, operands[0])]
    elif isinstance(op, Max):
        floors = [
            (number(v), other) for v, other in (operands, operands[::-1]) if v.rank == 0 or v.shape == (1,)
        ]
    else:
        return None
    for low, v in floors:
        if low is not None and 0.0 < low <= GUARD and v.rank == divisor.rank:
            return FlooredDiv(low), u, v
    return None
