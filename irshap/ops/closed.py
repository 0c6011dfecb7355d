"""Closed programs of a few ops that stand as one op, until a method has decided the pullbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TypeVar

import sympy

from irshap.ir.batch import BatchAxes
from irshap.ir.builder import Builder, current
from irshap.ir.core import Axes, Graph, MixesBatch, Node, Op, Output, Value, require, tensors
from irshap.ir.degrees import Broken, Degree, NotHomogeneous, degrees_of
from irshap.ir.dims import Dim
from irshap.ir.evaluator import evaluate_values
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, DType, TensorType, Type, same_type
from irshap.ir.walks import structure
from irshap.ops.program import new_input

_ClosedT = TypeVar("_ClosedT", bound="Closed")

__all__ = ["Closed", "in_parts", "written"]


class Closed(Op, family=True):
    """An op that is a program: `body` has an input for each operand, in this order, and one output.

    A leaf is a dataclass(frozen=True, eq=False) with the field `body`, and gives the rule of the whole.
    """

    body: Graph

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def with_bodies(self: _ClosedT, bodies: Sequence[Graph]) -> _ClosedT:
        (body,) = bodies
        return replace(self, body=body)  # type: ignore[type-var]

    def substitute(self: _ClosedT, binding: Mapping[sympy.Expr, Dim]) -> _ClosedT:
        return replace(self, body=map_nodes(self.body, binding=binding))  # type: ignore[type-var]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        inputs = self.body.inputs
        require(len(types) == len(inputs) > 0, f"the body takes {len(inputs)} operands")
        for value, kind in zip(inputs, types, strict=True):
            require(same_type(value.type, kind), lambda v=value, k=kind: f"{v!r} of the body gets {k}")  # type: ignore[misc]
        require(len(self.body.outputs) == 1, "the body has one output")
        return (self.result.type,)

    @property
    def result(self) -> Value:
        """The body's output."""
        return self.body.outputs[0].value

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        found = degrees_of(self.body.nodes, dict(zip(self.body.inputs, degrees, strict=True)))[self.result]
        if isinstance(found, Broken):
            raise NotHomogeneous(f"{found.node.op.title} in it: {found.reason}")
        return found

    def parts(self, operands: Sequence[Value]) -> dict[Value, Value]:
        """Emits the body's ops; tells where its values went."""
        return current().graft(self.body, dict(zip(self.body.inputs, operands, strict=True)))

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        given = dict(zip(self.body.inputs, arrays, strict=True))
        return (evaluate_values(self.body.nodes, given, [self.result])[self.result],)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        total: Dim = 0
        for node in self.body.nodes:
            total = total + node.op.flops(tensors([v.type for v in node.operands]), tensors(node.types))
        return total

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        inside = BatchAxes(self.body, dict(zip(self.body.inputs, axes, strict=True)))
        if (why := inside.reason(self.result)) is not None:
            raise MixesBatch(why)
        return (inside.axis(self.result),)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    @property
    def _structure(self) -> tuple[object, ...]:
        settings = (getattr(self, f.name) for f in fields(self) if f.name != "body")  # type: ignore[arg-type]
        return (*settings, *structure(self.body))

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Closed) and type(other) is type(self) and self._structure == other._structure
        )

    def __hash__(self) -> int:
        return hash((type(self), self._structure))


def in_parts(graph: Graph) -> Graph:
    """`graph` with the parts of closed programs in their place."""

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
        if not isinstance(node.op, Closed):
            return None
        return (node.op.parts([mapping[v] for v in node.operands])[node.op.result],)

    found = any(isinstance(node.op, Closed) for node in graph.nodes)
    return map_nodes(graph, visit) if found else graph


def written(inputs: Mapping[str, tuple[Dim, ...]], make: Callable[..., Value]) -> Graph:
    """The body that `make` emits, of float32 inputs."""
    with Builder() as b:
        given = [new_input(name, TensorType(DType.F32, shape)) for name, shape in inputs.items()]
        return b.build("body", [Output("y", make(*given))])
