"""fold-references: what depends on the references and the weights alone is computed while compiling."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from irshap.builder import Builder
from irshap.dims import Dim
from irshap.errors import UserError
from irshap.evaluator import evaluate
from irshap.graph import Graph, Node, Output, Value
from irshap.ops.program import Constant, Input, Opaque
from irshap.pass_base import Context, Pass, Semantics
from irshap.passes.bind_references import reference_binding, reference_values
from irshap.types import Array, Tensor, TensorType

__all__ = ["FoldReferences"]

_CHEAP = 4096
"""Values of up to this many bytes are not worth counting against the limit."""


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
    requires = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        given = reference_values(ir, context)
        binding = reference_binding(context)
        fixed = _fixed(ir, set(given), binding)
        kept = _read_by_others(ir, fixed)
        self._check_size(kept, binding)
        arrays = _evaluate(ir, given, kept, binding)
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
                        if v in kept:
                            constant = Constant(Tensor.wrap(arrays[str(kept[v])]))
                            mapping[v] = b.emit(constant, origin=node.origin, names=(v.name,))[0]
                else:
                    mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
            context.count("folded", len(kept))
            context.count("stored_bytes", sum(a.nbytes for a in arrays.values()))
            return b.rebuild(ir, mapping)

    def _check_size(self, kept: dict[Value, str], binding: dict[sympy.Expr, Dim]) -> None:
        total = 0
        for value in kept:
            size = value.tensor.substitute(binding).nbytes
            assert isinstance(size, int)
            total += size if size > _CHEAP else 0
        if total > self.limit:
            raise UserError(
                f"the references' activations take {total / 2**30:.1f} GiB, over the limit of "
                f"{self.limit / 2**30:.1f} GiB",
                mend="Use fewer references, or fold-references{limit=BYTES}",
            )


def _fixed(graph: Graph, given: set[Value], binding: dict[sympy.Expr, Dim]) -> set[Value]:
    """The values that follow from constants and the given inputs, and have a known shape."""
    fixed = set(given)
    for node in graph.nodes:
        static = all(_is_static(t.substitute(binding)) for t in node.types)
        if static and not isinstance(node.op, Input | Opaque) and all(v in fixed for v in node.operands):
            fixed.update(node.results)
    return fixed


def _is_static(type: object) -> bool:
    return (
        isinstance(type, TensorType)
        and type.shape is not None
        and all(isinstance(d, int) for d in type.shape)
    )


def _read_by_others(graph: Graph, fixed: set[Value]) -> dict[Value, str]:
    """The fixed values that a node which isn't fixed, or an output, reads: those are stored."""
    readers = [(v, n) for n in graph.nodes if n.results[0] not in fixed for v in n.operands]
    found = [v for v, _ in readers] + [o.value for o in graph.outputs]
    wanted = [v for v in found if v in fixed and not isinstance(v.node.op, Constant | Input)]
    return {v: f"fixed_{i}" for i, v in enumerate(dict.fromkeys(wanted))}


def _evaluate(
    graph: Graph, given: dict[Value, Array], kept: dict[Value, str], binding: dict[sympy.Expr, Dim]
) -> dict[str, Array]:
    """Runs the fixed part of the graph, with the references as its inputs."""
    from irshap.lowering.lower import lower
    from irshap.lowering.session import RuntimeRefusal, Session

    if not kept:
        return {}
    needed: set[Node] = {v.node for v in kept}
    with Builder() as b:
        mapping: dict[Value, Value] = {}
        for node in reversed(graph.nodes):
            if node in needed:
                needed.update(v.node for v in node.operands)
        for value in given:
            if value.node in needed:
                type = value.type.substitute(binding)
                mapping[value] = b.emit(value.node.op, types=(type,), names=(value.name,))[0]
        for node in graph.nodes:
            if node in needed:
                mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
        part = b.build("references", [Output(name, mapping[v]) for v, name in kept.items()])
    feeds = {str(v.name): given[v] for v in given if v in mapping}
    try:
        values = Session(lower(part), threads=0, optimize=False).run(feeds)
    except RuntimeRefusal:
        # it has no kernel for float64 convolutions, and its fusion of Relu with Clip throws in float64
        return evaluate(part, feeds)
    return dict(zip(kept.values(), values, strict=True))
