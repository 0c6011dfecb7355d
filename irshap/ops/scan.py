"""A loop over the leading axis of some operands, with values carried from trip to trip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import sympy

from irshap.ir.batch import BatchAxes
from irshap.ir.builder import Builder
from irshap.ir.core import Axes, Graph, MixesBatch, Output, Precision, Sample, Value, require, tensors
from irshap.ir.dims import Dim, N, same
from irshap.ir.evaluator import evaluate_values
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, DType, TensorType, Type, same_type
from irshap.ir.walks import structure
from irshap.ops.families import NonDifferentiable
from irshap.ops.program import new_input
from irshap.ops.samples import randn

__all__ = ["Scan"]


@dataclass(frozen=True, eq=False)
class Scan(NonDifferentiable):
    """carried, row = body(carried, slices of the scanned operands, captured operands), once for each slice.

    Operands: the `carried` values' initial state, `scanned` tensors [trips, ...], which the body sees one
    slice [...] at a time, and captured values, which every trip sees whole.  The body is closed: it has an
    input for each, in this order, and an output for each carried value; any further ones are rows.  Results:
    the carried values' final state, then the rows of all trips, [trips, ...].  `last_first`: from the last
    slice to the first.  `closed`: what it captures is nothing, and so it stays where it is written down.
    """

    carried: int
    scanned: int
    body: Graph
    last_first: bool = False
    closed: bool = False
    mnemonic = "scan"
    precision = Precision.FULL
    reason = "loops are made after differentiation"

    @property
    def bodies(self) -> tuple[Graph, ...]:
        return (self.body,)

    def with_bodies(self, bodies: Sequence[Graph]) -> Scan:
        (body,) = bodies
        return replace(self, body=body)

    def substitute(self, binding: Mapping[sympy.Expr, Dim]) -> Scan:
        return replace(self, body=map_nodes(self.body, binding=binding))

    def infer(self, *types: Type) -> tuple[Type, ...]:
        sliced = tensors(types[self.carried : self.carried + self.scanned])
        require(len(types) == len(self.body.inputs), f"the body takes {len(self.body.inputs)} operands")
        require(self.carried >= 0 < self.scanned, "it needs something to scan, which counts the trips")
        captured = len(types) - self.carried - self.scanned
        require(not (self.closed and captured), "a closed loop captures nothing")
        require(len(self.body.outputs) >= self.carried, "the body has an output for each carried value")
        require(
            all(t.rank and same(t.dims[0], sliced[0].dims[0]) for t in sliced),
            "what is scanned has a leading axis of one length",
        )
        slices = [t.with_shape(t.dims[1:]) for t in sliced]
        given = (*types[: self.carried], *slices, *types[self.carried + self.scanned :])
        for value, kind in zip(self.body.inputs, given, strict=True):
            require(same_type(value.type, kind), lambda v=value, k=kind: f"{v!r} of the body gets {k}")  # type: ignore[misc]
        for output, kind in zip(self.body.outputs[: self.carried], types, strict=False):
            require(
                same_type(output.value.type, kind),
                lambda o=output, k=kind: f"{o.name!r} is carried as {k}, and comes back as {o.value.type}",  # type: ignore[misc]
            )
        rows = tensors([o.value.type for o in self.body.outputs[self.carried :]])
        return (*types[: self.carried], *(t.with_shape((sliced[0].dims[0], *t.dims)) for t in rows))

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        state, rows = arrays[: self.carried], arrays[self.carried : self.carried + self.scanned]
        captured = arrays[self.carried + self.scanned :]
        wanted = [o.value for o in self.body.outputs]
        stacked: list[list[Array]] = [[] for _ in wanted[self.carried :]]
        for slices in zip(*(v[::-1] if self.last_first else v for v in rows), strict=True):
            given = dict(zip(self.body.inputs, (*state, *slices, *captured), strict=True))
            found = evaluate_values(self.body.nodes, given, wanted)
            state = tuple(found[v] for v in wanted[: self.carried])
            for made, value in zip(stacked, wanted[self.carried :], strict=True):
                made.append(found[value])
        return (*state, *(np.stack(made[::-1] if self.last_first else made) for made in stacked))

    def trips(self, operands: Sequence[TensorType]) -> Dim:
        """How often the body runs."""
        return operands[self.carried].dims[0]

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return self._each_trip(operands, "flops")

    def nbytes(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return self._each_trip(operands, "nbytes")

    def _each_trip(self, operands: Sequence[TensorType], facet: str) -> Dim:
        total: Dim = 0
        for node in self.body.nodes:
            total = total + getattr(node.op, facet)(tensors([v.type for v in node.operands]), node.types)
        return total * self.trips(operands)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        last = self.carried + self.scanned
        if 0 in axes[self.carried : last]:
            raise MixesBatch("loops over the batch")
        slices = [None if a is None else a - 1 for a in axes[self.carried : last]]
        known = dict(zip(self.body.inputs, (*axes[: self.carried], *slices, *axes[last:]), strict=True))
        inside = BatchAxes(self.body, known)
        for output in self.body.outputs:
            if (why := inside.reason(output.value)) is not None:
                raise MixesBatch(why)
        for output, axis in zip(self.body.outputs, axes[: self.carried], strict=False):
            if inside.axis(output.value) != axis:
                raise MixesBatch("a carried value has the batch on another axis after a trip")
        rows = (inside.axis(o.value) for o in self.body.outputs[self.carried :])
        return (*axes[: self.carried], *(None if a is None else a + 1 for a in rows))

    @cached_property
    def _structure(self) -> tuple[object, ...]:
        """What makes two loops the same."""
        return (self.carried, self.scanned, self.last_first, self.closed, *structure(self.body))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Scan) and self._structure == other._structure)

    def __hash__(self) -> int:
        return hash(self._structure)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        sums = _body(
            {"total": ("f32", (N, 3)), "row": ("f32", (3,)), "x": ("f32", (N, 3))},
            lambda total, row, x: [total + x * row],
        )
        arrays = (randn(*shape, dtype=np.float32) for shape in ((2, 3), (4, 3), (2, 3)))
        yield Sample(cls(1, 1, sums), tuple(arrays), batch=(0, None, 0))
        both = _body(
            {"a": ("i64", (2,)), "b": ("f32", ()), "i": ("i64", (2,)), "f": ("f32", ())},
            lambda a, b, i, f: [i, b + f],
        )
        running = _body(
            {"total": ("f32", (N, 3)), "row": ("f32", (N, 3))},
            lambda total, row: [total + row, total * row, row],
        )
        given = tuple(randn(*shape, dtype=np.float32) for shape in ((2, 3), (4, 2, 3)))
        yield Sample(cls(1, 1, running), given, batch=(0, 1))
        yield Sample(cls(1, 1, running, last_first=True), given, batch=(0, 1))
        yield Sample(cls(1, 1, running, closed=True), given, batch=(0, 1))
        state, rows = (np.zeros(2, np.int64), np.array(1.0, np.float32)), np.arange(6).reshape(3, 2)
        yield Sample(cls(2, 2, both), (*state, rows, np.array([0.5, -2.0, 4.0], np.float32)))


def _body(inputs: Mapping[str, tuple[str, tuple[Dim, ...]]], make: Callable[..., Sequence[Value]]) -> Graph:
    with Builder() as b:
        given = [new_input(name, TensorType(DType(kind), shape)) for name, (kind, shape) in inputs.items()]
        return b.build("body", [Output(f"next_{i}", v) for i, v in enumerate(make(*given))])
