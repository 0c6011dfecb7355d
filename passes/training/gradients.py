"""gradients: the second reverse pass, of loss and prior by the parameters, through the attributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from irshap import contract
from irshap.errors import NotDifferentiable
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, NoLocalRule, Output, Point, Role, Value
from irshap.ir.walks import varying_values
from irshap.ops.cast import cast
from irshap.ops.families import NonDifferentiable
from irshap.ops.program import PARAMETER, STATE, TRAINING, Full, Hold, Input, Tap
from irshap.ops.reverse import reverse
from irshap.ops.shape import zeros_like
from irshap.passes.training.trainable import UnreadParameters
from irshap.pipeline.base import Context, Pass, Semantics, graph_property

__all__ = ["Gradients"]


@graph_property("gradients")
def _has_gradients(graph: Graph) -> str | None:
    return None if graph.outputs_of(Role.GRADIENT) else "it has no gradients by parameters"


@dataclass(frozen=True)
class Gradients(Pass):
    """Leaves loss and prior, and appends the gradient of loss + prior_weight prior by every parameter.

    Attributions are ordinary ops by now, and so are the derivatives that they are made of: each is
    differentiated by its own rule, as the model was.  What only compares or rounds is flat almost everywhere,
    and nothing passes it.  What a step hands on as state stays an output.
    """

    name = "gradients"
    semantics = Semantics.REPLACES
    requires = frozenset({"loss"})
    ensures = once = frozenset({"gradients"})
    removes = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        with Builder() as b:
            # what attributions hold fixed, and what they were taken by, are values like any other now
            mapping = b.extend(ir.statements, {}, _without_marks)
            kept = [o for o in ir.outputs if o.role in (Role.LOSS, Role.PRIOR)]
            parts = {o.role: mapping[o.value] for o in kept}
            whole = parts[Role.LOSS]
            if Role.PRIOR in parts:
                weighted = _input(ir, mapping, contract.PRIOR_WEIGHT) * parts[Role.PRIOR]
                whole = whole + cast(weighted, whole.dtype)
            parameters = {str(v.name): mapping[v] for v in ir.inputs if _kind(v) == PARAMETER}
            nodes = b.nodes
            seed = {whole: emit1(Full(1.0, whole.dtype, whole.shape))}
            varying = varying_values(nodes, parameters.values())
            found = reverse(nodes, varying, seed, _Slopes(b))
            outputs = [replace(o, value=mapping[o.value]) for o in kept]
            if unread := [name for name, value in parameters.items() if value not in found]:
                raise UnreadParameters("the loss doesn't depend on", unread)
            for name, value in parameters.items():
                outputs.append(Output(contract.gradient(name), found[value], Role.GRADIENT, name))
            states = {str(v.name) for v in ir.inputs if _kind(v) == STATE}
            handed = [o for o in ir.outputs_of(Role.MODEL) if o.of in states]
            outputs += [replace(o, value=mapping[o.value], role=Role.NEXT) for o in handed]
            return b.build(ir.name, outputs, ir.properties, like=ir)


class _Slopes:
    """The local reverse of one node: its adjoint, or its derivative."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def __call__(
        self, node: Node, cts: Sequence[Value], wrt: Sequence[int], changing: frozenset[int]
    ) -> Sequence[Value]:
        at = Point(node.operands, node.results)
        with self.builder.at(node.origin):
            if isinstance(node.op, NonDifferentiable) and node.op.flat:
                return [zeros_like(node.operands[i]) for i in wrt]
            if node.op.linear_in(changing):
                with suppress(NoLocalRule):
                    return [node.op.adjoints(cts, at, i) for i in wrt]
            try:
                return node.op.derivative(cts, at, wrt)
            except NoLocalRule as error:
                raise NotDifferentiable(
                    f"what is minimized depends on a parameter through an op without a derivative: {error}",
                    where=node.label,
                    mend="choose another method or prior, or leave the parameters before it out",
                ) from None


def _without_marks(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
    return (mapping[node.operands[0]],) if isinstance(node.op, Hold | Tap) else None


def _kind(value: Value) -> str:
    return value.node.op.kind if isinstance(value.node.op, Input) else ""


def _input(graph: Graph, mapping: Mapping[Value, Value], of: str) -> Value:
    ops = ((v, v.node.op) for v in graph.inputs)
    (found,) = (v for v, op in ops if isinstance(op, Input) and (op.kind, op.of) == (TRAINING, of))
    return mapping[found]
