"""gradient: every pullback becomes the derivative at the sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irshap.builder import Builder
from irshap.graph import Graph, Output, Role, Value
from irshap.ops.base import NoLocalRule
from irshap.ops.program import Pullback
from irshap.ops.shape import reshape
from irshap.pass_base import Context, Pass, Semantics
from irshap.passes.autodiff import refuse

__all__ = ["Gradient", "by_class"]


def by_class(rows: Value, graph: Graph) -> Value:
    """Rows of (sample, class) pairs as [N, K, ...], or as they are when each sample has one class."""
    index = graph.output(Role.TARGET_INDEX).value
    return rows if index.rank == 1 else reshape(rows, (*index.shape, *rows.shape[1:]))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Gradient(Pass):
    """The signed gradient of the target by each source: every pullback becomes the transposed Jacobian."""

    name = "gradient"
    semantics = Semantics.EXTENDS
    requires = frozenset({"adjoint"})
    ensures = frozenset({"decided"})
    removes = frozenset({"target", "adjoint"})

    def run(self, ir: Graph, context: Context) -> Graph:
        with Builder() as b:
            mapping = {v: b.copy(v.node, {})[0] for v in ir.inputs}
            for node in ir.nodes:
                if isinstance(node.op, Pullback):
                    cts, at = node.op.parts([mapping[v] for v in node.operands])
                    with b.at(node.origin):
                        try:
                            results = node.op.of.derivative(cts, at, node.op.wrt)
                        except NoLocalRule as error:
                            raise refuse(node, error) from None
                else:
                    results = b.copy(node, mapping)
                mapping.update(zip(node.results, results, strict=True))
            keep = (Role.MODEL, Role.TARGET_INDEX)
            outputs = [replace(o, value=mapping[o.value]) for o in ir.outputs if o.role in keep]
            for o in ir.outputs_of(Role.ADJOINT):
                gradient = by_class(mapping[o.value], ir)
                outputs.append(Output(f"{o.of}_attributions", gradient, Role.ATTRIBUTION, o.of))
            return b.build(ir.name, outputs, ir.properties, like=ir)
