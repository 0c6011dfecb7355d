"""Guards of models against NaN and division by nearly nothing, and the ops that have a rule for them."""

from __future__ import annotations

from irshap.ir.core import Node, Op, Value
from irshap.ops.activations import Clip
from irshap.ops.arithmetic import Add, Div, Max, Where
from irshap.ops.floored import FlooredDiv, PartOfSum
from irshap.ops.logic import IsNaN
from irshap.ops.reduce import Expand, ReduceSum
from irshap.ops.shape import Reshape
from irshap.ops.softmax import MaskedSoftmax, Softmax
from irshap.passes.rules.activations import number

__all__ = ["floored_quotient", "masked_softmax", "part_of_sum"]

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


def part_of_sum(node: Node) -> tuple[Op, Value, Value] | None:
    """A division of a term by its sum: the op that it is, and its operands.

    A guard may have been added to both: (p + [s = 0])/(s + n [s = 0]), s = sum p.
    """
    if type(node.op) is not Div:
        return None
    u, v = node.operands
    whole = v
    while isinstance(whole.node.op, Expand | Reshape):
        whole = whole.node.operands[0]
    parts, sums = _terms(u), _terms(whole)
    summed = {t.node.operands[0] for t in sums if isinstance(t.node.op, ReduceSum)}
    return None if parts.isdisjoint(summed | sums) else (PartOfSum(), u, v)


def _terms(value: Value) -> set[Value]:
    """What additions made a value of, and their own results."""
    found, ahead = set(), [value]
    while ahead:
        term = ahead.pop()
        found.add(term)
        if isinstance(term.node.op, Add):
            ahead += [v for v in term.node.operands if v not in found]
    return found
