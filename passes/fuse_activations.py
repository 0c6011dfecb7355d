"""fuse-activations: an activation function that a model spells out becomes one op with one chord."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import NoMatch, Replacement, apply, rewrite
from irshap.ops.arithmetic import Mul
from irshap.ops.elementwise import Sigmoid
from irshap.ops.gated import Swish
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["FuseActivations"]


@rewrite(Mul)
def swish(node: Node, a: Value, b: Value) -> Replacement:
    """x * sigmoid(x) = swish(x)."""
    for x, gate in ((a, b), (b, a)):
        if isinstance(gate.node.op, Sigmoid) and gate.node.operands[0] is x:
            return emit1(Swish(1.0), x)
    return NoMatch("no operand is the sigmoid of the other")


RULES = [swish]


@dataclass(frozen=True)
class FuseActivations(Pass):
    """Recognizes x sigmoid(x) before the derivative is taken.

    A chain of complete rules on one scalar gives Df/D, so the fused chord equals that of the parts, with far
    fewer passes over the pairs of samples and references.
    """

    name = "fuse-activations"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        graph, fired = apply(ir, RULES)
        context.statistics.update(fired)
        return graph
