"""firm-guards: guards by addition become choices, which no runtime's rearranging of sums undoes."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import NoMatch, Replacement, apply, rewrite
from irshap.ops.arithmetic import Add, Div, Mul, least, where
from irshap.ops.elementwise import least_angle
from irshap.ops.logic import Equal
from irshap.ops.program import constant
from irshap.passes.rules.activations import number
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["FirmGuards"]


@rewrite(Div)
def quotient_of_copies(node: Node, dy: Value, dx: Value) -> Replacement:
    """(dy + s t)/(dx + t) = s where dx = 0, dy/dx elsewhere: of differences of copies, t the least number."""
    if (d := _guarded(dx)) is None or not isinstance(dy.node.op, Add):
        return NoMatch("it guards no quotient of differences")
    difference, share = dy.node.operands
    if not isinstance(share.node.op, Mul) or number(share.node.operands[1]) != least(dx.dtype):
        return NoMatch("its numerator isn't guarded")
    same = _is_zero(d)
    return where(same, share.node.operands[0], difference / where(same, 1.0, d))


@rewrite(Add)
def least_difference(node: Node, d: Value, guard: Value) -> Replacement:
    """d + t = t where d = 0, d elsewhere, t so small that it rounds away."""
    if (found := _guarded(node.results[0])) is None:
        return NoMatch("it adds no such number")
    return where(_is_zero(found), guard, found)


def _guarded(value: Value) -> Value | None:
    """What a guard was added to."""
    if not isinstance(value.node.op, Add):
        return None
    d, guard = value.node.operands
    told = number(guard)
    return d if told is not None and told in (least(value.dtype), least_angle(value.dtype)) else None


def _is_zero(d: Value) -> Value:
    return emit1(Equal(), d, constant(0.0, d.dtype))


@dataclass(frozen=True)
class FirmGuards(Pass):
    """Guards against 0/0 that add a least number become choices.

    OpenVINO folds (x - r) + t, with a reference r that is stored, into x + (t - r), where t rounds away:
    where sample and reference agree that is 0/0.  ONNX Runtime does not, and adds faster than it chooses.
    """

    name = "firm-guards"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        # quotients first: a slope stands beside a guard that is still there
        for rule in (quotient_of_copies, least_difference):
            ir, fired = apply(ir, [rule])
            context.statistics.update(fired)
        return ir
