"""bind-references: the reference set becomes part of the program."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from irshap.builder import Builder
from irshap.dims import Dim, R
from irshap.errors import ReferencesError
from irshap.graph import Graph, Value
from irshap.ops.program import Constant, Input
from irshap.pass_base import Context, Pass, Semantics
from irshap.types import Tensor

__all__ = ["BindReferences"]


@dataclass(frozen=True)
class BindReferences(Pass):
    """Replaces the inputs for references and their weights by the sets given at compile time.

    Without this pass the lowered model takes its references at run time, as inputs `<input>_references`.
    """

    name = "bind-references"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        counts = {len(a) for a in context.references.values()}
        if len(counts) > 1:
            raise ReferencesError(f"the reference sets have different sizes: {sorted(counts)}")
        with Builder() as b:
            mapping: dict[Value, Value] = {}
            binding: dict[sympy.Expr, Dim] = {R: n for n in counts}
            for value in ir.inputs:
                mapping[value] = self._bound(b, value, context)
            for node in ir.nodes:
                mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
            return b.rebuild(ir, mapping)

    def _bound(self, b: Builder, value: Value, context: Context) -> Value:
        op = value.node.op
        assert isinstance(op, Input)
        if op.kind == "references":
            if op.of not in context.references:
                raise ReferencesError(f"no references were given for input {op.of!r}")
            array = context.references[op.of].astype(value.dtype.numpy, copy=False)
        elif op.kind == "weights":
            if context.weights is None:
                raise ReferencesError("no weights of the references were given")
            array = context.weights.astype(value.dtype.numpy, copy=False)
        else:
            return b.copy(value.node, {})[0]
        return b.emit(Constant(Tensor(array)), names=(value.name,))[0]
