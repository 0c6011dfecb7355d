"""Activation functions as models spell them out, and the ops that they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Node, Op, Value
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ops.activations import Clip, LeakyRelu, ThresholdedRelu
from irshap.ops.arithmetic import Add, Div, Mul, Neg, Sub, Where
from irshap.ops.elementwise import Elu, Exp, Log, Logistic, Relu, Softplus
from irshap.ops.logic import Greater, GreaterOrEqual, Less, LessOrEqual
from irshap.ops.power import Reciprocal
from irshap.ops.program import Constant

__all__ = ["known_form", "logistic", "number", "scaled"]


@dataclass(frozen=True)
class _Switch:
    """`above` for x > threshold, `below` for x < threshold; at the threshold `above` if it is `closed`."""

    x: Value
    threshold: float
    closed: bool
    above: Value
    below: Value


def known_form(node: Node) -> tuple[Op, Value] | None:
    """The op that a `where` is, and its operand; None where it is none of those known here.

    The op's chord is in closed form, also from one piece to another, where a quotient would lose digits.
    """
    switch = _switch(node) if isinstance(node.op, Where) else None
    if switch is not None:
        for read in (_bend, _bound, _elu, _softplus):
            if (op := read(switch)) is not None:
                return op, switch.x
    return None


def _switch(node: Node) -> _Switch | None:
    condition, a, b = node.operands
    op = condition.node.op
    if not isinstance(op, Greater | GreaterOrEqual | Less | LessOrEqual):
        return None
    x, bound = condition.node.operands
    upward = isinstance(op, Greater | GreaterOrEqual)
    if number(bound) is None:
        x, bound, upward = bound, x, not upward
    threshold = number(bound)
    if threshold is None or x.type != node.results[0].type:
        return None
    at_equal = a if isinstance(op, GreaterOrEqual | LessOrEqual) else b
    above, below = (a, b) if upward else (b, a)
    return _Switch(x, threshold, at_equal is above, above, below)


def _bend(s: _Switch) -> Op | None:
    """x above, alpha x or 0 below: relu, its leaky form, or a jump."""
    if s.above is not s.x:
        return None
    alpha = 0.0 if number(s.below) == 0.0 else _factor(s.below, s.x)
    if s.threshold == 0.0 and alpha is not None:
        return Relu() if alpha == 0.0 else LeakyRelu(alpha)
    return ThresholdedRelu(s.threshold) if alpha == 0.0 and not s.closed else None


def _bound(s: _Switch) -> Op | None:
    """The threshold itself on one side, x on the other."""
    if s.below is s.x and number(s.above) == s.threshold:
        return Clip(None, s.threshold)
    return Clip(s.threshold, None) if s.above is s.x and number(s.below) == s.threshold else None


def _elu(s: _Switch) -> Op | None:
    """x above 0, alpha (e^x - 1) below."""
    if s.above is not s.x or s.threshold != 0.0:
        return None
    alpha, rest = scaled(s.below)
    op = rest.node.op
    if isinstance(op, Sub) and number(rest.node.operands[1]) == 1.0:
        power = rest.node.operands[0]
    elif isinstance(op, Add) and -1.0 in (numbers := [number(v) for v in rest.node.operands]):
        power = rest.node.operands[1 - numbers.index(-1.0)]
    else:
        return Elu(alpha * op.alpha) if isinstance(op, Elu) and rest.node.operands[0] is s.x else None
    return Elu(alpha) if isinstance(power.node.op, Exp) and power.node.operands[0] is s.x else None


def _softplus(s: _Switch) -> Op | None:
    """x above, ln(1 + e^x) below, where the two differ by no digit from the threshold on."""
    if s.above is not s.x or not np.exp(-s.threshold) < np.finfo(s.x.dtype.numpy).eps * s.threshold:
        return None
    op, operands = s.below.node.op, s.below.node.operands
    if isinstance(op, Log) and isinstance(operands[0].node.op, Add):
        terms = operands[0].node.operands
        inner = [v.node for v in terms if isinstance(v.node.op, Exp)]
        if any(number(v) == 1.0 for v in terms) and inner and inner[0].operands[0] is s.x:
            return Softplus()
    return Softplus() if isinstance(op, Softplus) and operands[0] is s.x else None


def scaled(value: Value) -> tuple[float, Value]:
    """A number and what it multiplies."""
    op, operands = value.node.op, value.node.operands
    if isinstance(op, Mul):
        for factor, other in (operands, operands[::-1]):
            if (scale := number(factor)) is not None:
                return scale, other
    if isinstance(op, Div) and (divisor := number(operands[1])):
        return 1.0 / divisor, operands[0]
    return (-1.0, operands[0]) if isinstance(op, Neg) else (1.0, value)


def _factor(value: Value, x: Value) -> float | None:
    """What x is multiplied by, in a multiple of it."""
    alpha, rest = scaled(value)
    return alpha if rest is x else None


def number(value: Value) -> float | None:
    """The one number that a constant holds."""
    op = value.node.op
    if not isinstance(op, Constant) or op.value.array.dtype.kind not in "fiu" or not op.value.array.size:
        return None
    first = op.value.array.flat[0]
    return float(first) if bool((op.value.array == first).all()) else None


@rewrite(Reciprocal, Div)
def logistic(node: Node, *operands: Value) -> Replacement:
    """1 / (1 + e^-x) = logistic(x), whose chord doesn't overflow on the way."""
    if isinstance(node.op, Div) and number(operands[0]) != 1.0:
        return NoMatch("it divides something else than 1")
    total = operands[-1].node
    if not isinstance(total.op, Add):
        return NoMatch("it doesn't divide by a sum")
    for one, power in (total.operands, total.operands[::-1]):
        if number(one) == 1.0 and isinstance(power.node.op, Exp):
            x = _negated(power.node.operands[0])
            if x is not None and x.type == node.results[0].type:
                return emit1(Logistic(), x)
    return NoMatch("the sum isn't 1 + e^-x")


def _negated(value: Value) -> Value | None:
    """What a value is the negative of."""
    op = value.node.op
    if isinstance(op, Neg):
        return value.node.operands[0]
    if isinstance(op, Mul):
        a, b = value.node.operands
        return a if number(b) == -1.0 else b if number(a) == -1.0 else None
    return None
