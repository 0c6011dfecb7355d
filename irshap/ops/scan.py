"""A loop over the leading axis of some operands, with values carried from trip to trip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import sympy

from irshap.ir.batch import BatchAxes
from irshap.ir.builder import Builder, current, emit
from irshap.ir.core import (
    Axes,
    Graph,
    MixesBatch,
    Output,
    Point,
    Precision,
    Sample,
    Value,
    require,
    tensors,
)
from irshap.ir.dims import Dim, N, same
from irshap.ir.evaluator import evaluate_values
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, DType, TensorType, Type, same_type
from irshap.ir.walks import is_float, structure
from irshap.ops.composite import InWorlds, pulled_back
from irshap.ops.program import new_input
from irshap.ops.samples import randn
from irshap.ops.shape import zeros_like

__all__ = ["Scan"]


@dataclass(frozen=True, eq=False)
class Scan(InWorlds):
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

    def in_worlds(
        self, cts: Sequence[Value], worlds: Sequence[Point], wrt: Sequence[int]
    ) -> tuple[Value, ...]:
        """A loop the other way round, which has of each trip the values carried into it (Werbos 1990)."""
        inputs, first, last = self.body.inputs, self.carried, self.carried + self.scanned
        results = [o.value for o in self.body.outputs]
        before = [Output(f"before_{i}", v) for i, v in enumerate(inputs[:first])]
        keeping = replace(self, body=replace(self.body, outputs=(*self.body.outputs, *before)))
        rows: list[Value] = []
        captured: list[Value] = []
        for world in worlds:
            carried = emit(keeping, *world.operands)[len(results) :] if before else ()
            rows += [*carried, *world.operands[first:last]]
            captured += world.operands[last:]
        floats = [i for i, v in enumerate(results) if is_float(v)]
        states = {i: ct for i, ct in zip(floats, cts, strict=True) if i < first}
        made = {i: ct for i, ct in zip(floats, cts, strict=True) if i >= first}
        summed = {i: zeros_like(worlds[0].operands[i]) for i in wrt if i >= last}
        sliced = [i for i in wrt if first <= i < last]

        def body(given: Sequence[Value]) -> list[Value]:
            parts = iter(given)
            own = {i: next(parts) for i in states}
            totals = {i: next(parts) for i in summed}
            seeds: dict[Value, Value] = {}
            for i, ct in [*own.items(), *((i, next(parts)) for i in made)]:
                seeds[results[i]] = seeds[results[i]] + ct if results[i] in seeds else ct
            slices = [[next(parts) for _ in inputs[:last]] for _ in worlds]
            maps = []
            for each in slices:
                whole = [next(parts) for _ in inputs[last:]]
                maps.append(current().graft(self.body, dict(zip(inputs, (*each, *whole), strict=True))))
            wanted = [inputs[i] for i in (*states, *summed, *sliced)]
            found = pulled_back(self.body, maps, seeds, wanted)
            found = {v: found[v] if v in found else zeros_like(maps[0][v]) for v in wanted}
            sums = [total + found[inputs[i]] for i, total in totals.items()]
            return [*(found[inputs[i]] for i in states), *sums, *(found[inputs[i]] for i in sliced)]

        carried_cts = [*states.values(), *summed.values()]
        scanned_rows = [*made.values(), *rows]
        kinds = [v.tensor for v in carried_cts]
        kinds += [v.tensor.with_shape(v.shape[1:]) for v in scanned_rows]
        kinds += [v.tensor for v in captured]
        with Builder() as b:
            given = [new_input(f"in{i}", kind) for i, kind in enumerate(kinds)]
            graph = b.build("back", [Output(f"out{i}", v) for i, v in enumerate(body(given))])
        loop = Scan(len(carried_cts), len(scanned_rows), graph, not self.last_first, self.closed)
        ends = dict(
            zip((*states, *summed, *sliced), emit(loop, *carried_cts, *scanned_rows, *captured), strict=True)
        )
        return tuple(ends[i] for i in wrt)

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
        yield Sample(cls(1, 1, sums), tuple(arrays), (2,), batch=(0, None, 0))
        both = _body(
            {"a": ("i64", (2,)), "b": ("f32", ()), "i": ("i64", (2,)), "f": ("f32", ())},
            lambda a, b, i, f: [i, b + f],
        )
        running = _body(
            {"total": ("f32", (N, 3)), "row": ("f32", (N, 3))},
            lambda total, row: [total + row, total * row, row],
        )
        given = tuple(randn(*shape, dtype=np.float32) for shape in ((2, 3), (4, 2, 3)))
        yield Sample(cls(1, 1, running), given, (0, 1), batch=(0, 1))
        yield Sample(cls(1, 1, running, last_first=True, closed=True), given, (0, 1), batch=(0, 1))
        state, rows = (np.zeros(2, np.int64), np.array(1.0, np.float32)), np.arange(6).reshape(3, 2)
        yield Sample(cls(2, 2, both), (*state, rows, np.array([0.5, -2.0, 4.0], np.float32)))


def _body(inputs: Mapping[str, tuple[str, tuple[Dim, ...]]], make: Callable[..., Sequence[Value]]) -> Graph:
    with Builder() as b:
        given = [new_input(name, TensorType(DType(kind), shape)) for name, (kind, shape) in inputs.items()]
        return b.build("body", [Output(f"next_{i}", v) for i, v in enumerate(make(*given))])
