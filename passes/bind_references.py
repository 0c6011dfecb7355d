"""bind-references: the reference set becomes part of the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irshap.ir.builder import current
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Tensor
from irshap.ops.program import Constant
from irshap.passes.references.binding import reference_binding, reference_values
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["BindReferences"]


@dataclass(frozen=True)
class BindReferences(Pass):
    """Replaces the inputs for references and their weights by the sets given at compile time.

    Without this pass the lowered model takes its references at run time, as inputs `<input>_references`.
    """

    name = "bind-references"
    semantics = Semantics.PRESERVES
    binds_references = True

    def run(self, ir: Graph, context: Context) -> Graph:
        if context.unbound:
            return ir
        given = reference_values(ir, context)

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            if node.results[0] not in given:
                return None
            (value,) = node.results
            return current().emit(Constant(Tensor(given[value])), names=(value.name,))

        return map_nodes(ir, visit, binding=reference_binding(context))
