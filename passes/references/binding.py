"""The reference set of a compilation, and the inputs that it is bound to."""

from __future__ import annotations

import sympy

from irshap.errors import ReferencesError
from irshap.ir.core import Graph, Value
from irshap.ir.dims import Dim, R
from irshap.ir.types import Array
from irshap.ops.program import Input
from irshap.pipeline.base import Context

__all__ = ["reference_binding", "reference_inputs", "reference_values"]

_KINDS = ("references", "weights")


def reference_binding(context: Context) -> dict[sympy.Expr, Dim]:
    """R, bound to the number of references if any are given."""
    counts = {len(a) for a in context.references.values()}
    if len(counts) > 1:
        raise ReferencesError(f"the reference sets have different sizes: {sorted(counts)}")
    return dict.fromkeys([R], counts.pop()) if counts else {}


def reference_inputs(graph: Graph) -> list[Value]:
    """The graph's inputs for references and their weights."""
    return [v for v in graph.inputs if isinstance(v.node.op, Input) and v.node.op.kind in _KINDS]


def reference_values(graph: Graph, context: Context) -> dict[Value, Array]:
    """What the graph's inputs for references and weights are bound to.

    Raises:
        ReferencesError: one of them isn't given.
    """
    given: dict[Value, Array] = {}
    for value in graph.inputs:
        op = value.node.op
        assert isinstance(op, Input)
        if op.kind == "references":
            if op.of is None or op.of not in context.references:
                raise ReferencesError(f"no references were given for input {op.of!r}")
            given[value] = context.references[op.of].astype(value.dtype.numpy, copy=False)
        elif op.kind == "weights":
            if context.weights is None:
                raise ReferencesError("no weights of the references were given")
            given[value] = context.weights.astype(value.dtype.numpy, copy=False)
    return given
