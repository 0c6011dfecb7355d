"""What follows from the references alone, as constants: all that is left depends on the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irshap.ir.builder import current
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, Tensor
from irshap.ops.program import Constant, Input
from irshap.passes.references.binding import reference_binding, reference_values
from irshap.passes.references.fixed import FixedProgram, check_size, fixed_values, read_by_others
from irshap.pipeline.base import Context

__all__ = ["folded"]


def folded(graph: Graph, context: Context, name: str, limit: int) -> Graph:
    """`graph` with the references bound, and with constants for what others read of what follows from them.

    Args:
        name: the pass that asks, for messages.
        limit: bytes that the constants may take together.

    Raises:
        ReferencesError: some references, or their weights, aren't given.
        UserError: the limit is exceeded; before anything is computed.
    """
    if context.unbound:
        return graph
    given, binding = reference_values(graph, context), reference_binding(context)
    fixed = fixed_values(graph, given, binding)
    made = (v for v in read_by_others(graph, fixed) if not isinstance(v.node.op, Constant | Input))
    kept = tuple(dict.fromkeys(made))
    check_size(name, (v.tensor.substitute(binding) for v in kept), limit)
    program = FixedProgram(graph, kept, binding)
    arrays = dict(zip(kept, program(given), strict=True))
    program.close()
    context.count("folded", len(kept))
    context.count("stored_bytes", sum(a.nbytes for a in arrays.values()))

    def visit(node: Node, mapping: Mapping[Value, Value]) -> Sequence[Value | None] | None:
        if node.results[0] in given:
            return [_constant(v, Tensor(given[v])) for v in node.results]
        if isinstance(node.op, Constant) or not fixed.issuperset(node.results):
            return None
        return [_stored(v, arrays) for v in node.results]

    return map_nodes(graph, visit, binding=binding)


def _stored(value: Value, arrays: Mapping[Value, Array]) -> Value | None:
    return _constant(value, Tensor.wrap(arrays[value])) if value in arrays else None


def _constant(value: Value, content: Tensor) -> Value:
    return current().emit(Constant(content), names=(value.name,))[0]
