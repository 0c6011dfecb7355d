"""close-loops: what a loop's body reads from around it is carried through the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sympy

from irshap.ir.builder import Builder, emit
from irshap.ir.core import Graph, Node, Output, Value
from irshap.ir.dims import symbols_of
from irshap.ir.rewrite import map_bodies, map_nodes
from irshap.ir.types import TensorType
from irshap.ops.program import new_input
from irshap.ops.scan import Scan
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["CloseLoops"]


@dataclass(frozen=True)
class CloseLoops(Pass):
    """Captured tensors of a loop become values that it carries unchanged; constants stand in its body.

    So does an input of the program for each open size that nothing else in the body tells.  OpenVINO doesn't
    read a Scan whose body names a tensor from outside of it.
    """

    name = "close-loops"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        ir = map_bodies(ir, lambda body: self.run(body, context))

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            if not isinstance(node.op, Scan) or node.op.closed:
                return None
            context.count("closed")
            return _closed(node.op, [mapping[v] for v in node.operands], [mapping[v] for v in ir.inputs])

        return map_nodes(ir, visit)


def _closed(op: Scan, operands: Sequence[Value], around: Sequence[Value]) -> tuple[Value, ...]:
    """The results of the loop that carries what this one captures; `around`: the inputs of its program."""
    first, last = op.carried, op.carried + op.scanned
    more = [v for v in around if _plain(v) & _untold(op.body)]
    captured = [*op.body.inputs[last:], *(_inside(v, i) for i, v in enumerate(more))]
    inputs = (*op.body.inputs[:first], *captured, *op.body.inputs[first:last])
    kept = [Output(f"kept_{i}", v) for i, v in enumerate(captured)]
    outputs = (*op.body.outputs[:first], *kept, *op.body.outputs[first:])
    body = replace(op.body, inputs=inputs, outputs=outputs)
    closed = replace(op, carried=first + len(captured), body=body, closed=True)
    made = emit(closed, *operands[:first], *operands[last:], *more, *operands[first:last])
    return (*made[:first], *made[first + len(captured) :])


def _untold(body: Graph) -> set[sympy.Expr]:
    """The open sizes in a body that no input of it has as an axis."""
    sizes = (t.dims for n in body.nodes for t in n.types if isinstance(t, TensorType) and t.shape is not None)
    return {s for dims in sizes for s in symbols_of(dims)} - {s for v in body.inputs for s in _plain(v)}


def _plain(value: Value) -> set[sympy.Expr]:
    """The symbols that are an axis's size by themselves."""
    shape = value.type.shape or () if isinstance(value.type, TensorType) else ()
    return {d for d in shape if isinstance(d, sympy.Symbol)}


def _inside(value: Value, i: int) -> Value:
    """An input of a body that stands for a value around it."""
    return new_input(f"sizes_{i}", value.type, builder=Builder())
