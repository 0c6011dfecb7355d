"""gradient: every pullback becomes the derivative at the sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irshap.attribution.outputs import attributions, is_token, samples_first, source_axes
from irshap.errors import TargetError
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, NoLocalRule, Role
from irshap.ops.program import Pullback
from irshap.passes.autodiff import refuse
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Gradient"]


@dataclass(frozen=True)
class Gradient(Pass):
    """The signed gradient of the target by each source: every pullback becomes the transposed Jacobian."""

    name = "gradient"
    semantics = Semantics.EXTENDS
    requires = frozenset({"adjoint"})
    ensures = frozenset({"decided"})
    removes = frozenset({"target", "adjoint"})

    def run(self, ir: Graph, context: Context) -> Graph:
        _refuse_tokens(ir)
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
            rows = ir.output(Role.TARGET).value.shape[0]
            adjoints = [mapping[o.value] for o in ir.outputs_of(Role.ADJOINT)]
            axes = source_axes(ir)
            outputs += attributions(
                ir, [samples_first(v, a, rows) for v, a in zip(adjoints, axes, strict=True)]
            )
            return b.build(ir.name, outputs, ir.properties, like=ir)


def _refuse_tokens(graph: Graph) -> None:
    for source in graph.outputs_of(Role.SOURCE):
        if is_token(graph, source):
            raise TargetError(
                f"input {source.of!r} is integer: it has no gradient",
                mend=f"Take the gradient by the tensor that it is read into: wrt={source.name}",
            )
