"""autodiff: the reverse pass, with every nonlinear op's part left open as a pullback."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from irshap import contract
from irshap.errors import TargetError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, NoLocalRule, Output, Point, Role, Value
from irshap.ir.types import differ
from irshap.ir.walks import varying_values
from irshap.ops.program import Full, Pullback, without_tap
from irshap.ops.reverse import LocalMap, reverse
from irshap.ops.shape import zeros_like
from irshap.pipeline.base import Context, Pass, Semantics, graph_property

__all__ = ["AdjointOrPullback", "Autodiff", "differentiate"]


@graph_property("adjoint", Role.ADJOINT)
def _has_adjoints(graph: Graph) -> str | None:
    sources, adjoints = graph.outputs_of(Role.SOURCE), graph.outputs_of(Role.ADJOINT)
    if not len(sources) == len(adjoints) > 0:
        return "not every source has an adjoint"
    for source, adjoint in zip(sources, adjoints, strict=True):
        if differ(source.value.type, adjoint.value.type):
            return f"source {source.name!r} is {source.value.type}, and its adjoint {adjoint.value.type}"
    return None


@graph_property("decided")
def _no_pullbacks(graph: Graph) -> str | None:
    left = [n.label for n in graph.nodes if isinstance(n.op, Pullback)]
    return f"pullbacks are left: {left[0]}" if left else None


@dataclass(frozen=True)
class Autodiff(Pass):
    """Appends the adjoint of each source: d target / d source, through the reverse of every op on the way.

    A linear op contributes its adjoint.  Every other op contributes one `pullback`, which an attribution
    method decides: its derivative, or its secant between the sample and a reference.  Several sources are one
    cut: an adjoint doesn't count what goes through a later source.
    """

    name = "autodiff"
    semantics = Semantics.EXTENDS
    requires = frozenset({"target"})
    ensures = once = frozenset({"adjoint"})

    def run(self, ir: Graph, context: Context) -> Graph:
        with Builder() as b:
            local = AdjointOrPullback(b)
            mapping, found = differentiate(b, ir, local)
            sources = [mapping[o.value] for o in ir.outputs_of(Role.SOURCE)]
            outputs = [replace(o, value=mapping[o.value]) for o in ir.outputs]
            for output, source in zip(ir.outputs_of(Role.SOURCE), sources, strict=True):
                adjoint = found[source] if source in found else zeros_like(source)
                name = contract.free(f"{output.name}_adjoint", {o.name for o in outputs})
                outputs.append(Output(name, adjoint, Role.ADJOINT, output.name))
            context.count("pullbacks", local.pullbacks)
            return b.build(ir.name, outputs, ir.properties, like=ir)


def differentiate(b: Builder, graph: Graph, local: LocalMap) -> tuple[dict[Value, Value], dict[Value, Value]]:
    """Emits the graph and its reverse; returns where its values went, and the cotangents of those.

    Taps end here: the cotangents of what they mark are wanted, and the reverse walk ends there.
    """
    mapping = b.extend(graph.statements, {}, without_tap)
    target = mapping[graph.output(Role.TARGET).value]
    sources = _apart(graph, mapping)
    nodes = b.nodes
    seed = emit1(Full(1.0, target.dtype, target.shape))
    varying = varying_values(nodes, sources)
    return mapping, reverse(nodes, varying, {target: seed}, local, cut=sources)


def _apart(graph: Graph, mapping: dict[Value, Value]) -> list[Value]:
    """The sources, none of which may be another one: without taps, a reshape to the same shape is nothing."""
    names: dict[Value, str] = {}
    for output in graph.outputs_of(Role.SOURCE):
        source = mapping[output.value]
        if source in names:
            raise TargetError(
                f"{output.name!r} and {names[source]!r} are one tensor: it would be counted twice",
                mend="Name one of them",
            )
        names[source] = output.name
    return list(names)


class AdjointOrPullback:
    """The local reverse of one node: an adjoint, or a pullback."""

    def __init__(self, builder: Builder) -> None:
        self.builder, self.pullbacks = builder, 0

    def __call__(
        self, node: Node, cts: Sequence[Value], wrt: Sequence[int], changing: frozenset[int]
    ) -> Sequence[Value]:
        with self.builder.at(node.origin):
            if node.op.linear_in(changing):
                at = Point(node.operands, node.results)
                # one without an adjoint is left to the method, as every op without a rule
                with suppress(NoLocalRule):
                    return [node.op.adjoints(cts, at, i) for i in wrt]
            self.pullbacks += 1
            op = Pullback(node.op, tuple(wrt), len(cts), len(node.operands))
            return self.builder.emit(op, *cts, *node.operands, *node.results)
