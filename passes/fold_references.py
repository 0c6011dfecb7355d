"""fold-references: what depends on the references and the weights alone is computed while compiling."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Value
from irshap.ir.types import Tensor
from irshap.ops.program import Constant, Input
from irshap.passes.bind_references import reference_binding, reference_values
from irshap.passes.references.fixed import Part, check_size, fixed_values, read_by_others
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["FoldReferences"]


@dataclass(frozen=True)
class FoldReferences(Pass):
    """Binds the references, evaluates everything that follows from them with ONNX Runtime, and stores it.

    What is left depends on the sample.  `limit`: bytes that the stored values may take together; more is an
    error before anything is computed.
    """

    limit: int = 16 * 2**30
    name = "fold-references"
    semantics = Semantics.PRESERVES
    binds_references = True
    stores = True
    requires = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        if context.unbound:
            return ir
        given = reference_values(ir, context)
        binding = reference_binding(context)
        fixed = fixed_values(ir, given, binding)
        made = (v for v in read_by_others(ir, fixed) if not isinstance(v.node.op, Constant | Input))
        kept = tuple(dict.fromkeys(made))
        check_size(self.name, (v.tensor.substitute(binding) for v in kept), self.limit)
        arrays = dict(zip(kept, Part(ir, kept, binding)(given), strict=True))
        with Builder() as b:
            mapping: dict[Value, Value] = {}
            for value in ir.inputs:
                if value in given:
                    mapping[value] = b.emit(Constant(Tensor(given[value])), names=(value.name,))[0]
                else:
                    mapping[value] = b.copy(value.node, {})[0]
            for node in ir.nodes:
                if all(v in fixed for v in node.results) and not isinstance(node.op, Constant):
                    for v in node.results:
                        if v in arrays:
                            constant = Constant(Tensor.wrap(arrays[v]))
                            mapping[v] = b.emit(constant, origin=node.origin, names=(v.name,))[0]
                else:
                    mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
            context.count("folded", len(kept))
            context.count("stored_bytes", sum(a.nbytes for a in arrays.values()))
            return b.rebuild(ir, mapping)
