"""Importing this module registers its pass and its method; the entry point names it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Node, Op, Point, Value
from irshap.ir.rewrite import NoMatch, Replacement, apply, rewrite
from irshap.ops.arithmetic import Max, maximum
from irshap.ops.elementwise import Relu
from irshap.ops.program import Constant
from irshap.passes.methods.base import LocalMethod, Sum
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Deconvnet", "MaxAsRelu"]


@dataclass(frozen=True)
class Deconvnet(LocalMethod):
    """The deconvolutional network (Zeiler and Fergus 2014): ReLU hands back what is positive there."""

    name = "deconvnet"
    sums_to = Sum.NOTHING
    tokens = False

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        if isinstance(op, Relu):
            return (maximum(cts[0], 0.0),)
        return op.derivative(cts, at, wrt)

    def score(self, m: Value, x: Value) -> Value:
        return m

    @classmethod
    def cases(cls) -> Iterable[Deconvnet]:
        yield cls()


@rewrite(Max)
def max_with_zero(node: Node, a: Value, b: Value) -> Replacement:
    """max(x, 0) = relu(x)"""
    if not isinstance(b.node.op, Constant) or b.node.op.value.array.any():
        return NoMatch("the second operand isn't 0")
    if a.shape != node.results[0].shape:
        return NoMatch("the first operand is broadcast")
    return emit1(Relu(), a)


@dataclass(frozen=True)
class MaxAsRelu(Pass):
    """Writes max(x, 0) as relu(x), so that rules for ReLU see it."""

    name = "max-as-relu"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        graph, fired = apply(ir, [max_with_zero])
        context.statistics.update(fired)
        return graph
