"""Recurrent layers differentiated by a loop backward in time, which needs of each step its states alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from irshap.ir.builder import Builder, current, emit, emit1
from irshap.ir.core import Output, Value
from irshap.ir.dims import as_dim
from irshap.ops.composite import pulled_back
from irshap.ops.linear import matmul, swap_last
from irshap.ops.program import Input
from irshap.ops.scan import Scan
from irshap.ops.shape import Slice, concat, reshape, zeros_like

__all__ = ["Direction", "Step", "back", "flipped", "shifted"]

Step = Callable[[Sequence[Value], Sequence[Value], Sequence[Value]], tuple[Value, ...]]
"""Emits one step: (what is known of it, states before, weights) -> the states after, the output first."""

Body = Callable[[Sequence[Value], Sequence[Value], Sequence[Value]], Sequence[Value]]
"""Emits one trip of a loop: (carried values, rows, captured values) -> the next carried values, then rows."""


@dataclass(frozen=True)
class Direction:
    """One direction of a layer in one world, its steps in the order in which they run.

    `known`: what is known of each step, [T, N, G H]: what the input and the output before contribute to the
    gates, or their sum.  `start`: the states [N, H] that it begins with; `before`: the output before each
    step, [T, N, H].
    """

    known: Sequence[Value]
    start: Sequence[Value]
    before: Value

    def states(self, step: Step, weights: Sequence[Value]) -> list[Value]:
        """The states before each step, [T, N, H]: those besides the output are found by a loop."""
        if len(self.start) == 1:
            return [self.before]

        def body(
            carried: Sequence[Value], rows: Sequence[Value], weights: Sequence[Value]
        ) -> Sequence[Value]:
            _, *after = step(rows[1:], (rows[0], *carried), weights)
            return [*after, *carried]

        found = scanned(body, self.start[1:], [self.before, *self.known], weights)
        return [self.before, *found[len(self.start) - 1 :]]


def back(
    step: Step,
    worlds: Sequence[Direction],
    ct_outputs: Value,
    ct_ends: Sequence[Value],
    weights: Sequence[Value],
) -> tuple[list[Value], list[Value]]:
    """The cotangents of what is known, [T, N, G H] each, and of the start, [N, H] each.

    Args:
        step: emits a step.
        worlds: one, for derivatives, or two, for secants.
        ct_outputs: cotangents of the outputs, [T, N, H].
        ct_ends: cotangents of the states at the end, [N, H] each.
        weights: what every step reads; first R of [H, G H], by which the output before contributes.
    """
    states, known = len(ct_ends), len(worlds[0].known)
    rows = [ct_outputs]
    for world in worlds:
        rows += [*world.known, *world.states(step, weights)]

    def body(carried: Sequence[Value], rows: Sequence[Value], weights: Sequence[Value]) -> Sequence[Value]:
        each = known + states
        own = [rows[1 + i * each :][:each] for i in range(len(worlds))]
        with Builder() as b:
            formals = [
                b.emit(Input(f"operand{i}"), types=(v.type,))[0] for i, v in enumerate((*own[0], *weights))
            ]
            results = step(formals[:known], formals[known:each], formals[each:])
            region = b.build("step", ())
        maps = [current().graft(region, dict(zip(formals, (*mine, *weights), strict=True))) for mine in own]
        seeds = dict(zip(results, (carried[0] + rows[0], *carried[1:]), strict=True))
        found = pulled_back(region, maps, seeds, formals[:each])
        cts = [found[v] if v in found else zeros_like(v) for v in formals[:each]]
        # the last of what is known holds what the output before contributes
        of_h = cts[known] + matmul(cts[known - 1], swap_last(weights[0]))
        return [of_h, *cts[known + 1 :], *cts[:known]]

    found = scanned(body, ct_ends, [flipped(v) for v in rows], weights)
    return [flipped(v) for v in found[states:]], list(found[:states])


def scanned(
    body: Body, carried: Sequence[Value], rows: Sequence[Value], captured: Sequence[Value]
) -> Sequence[Value]:
    """Emits a loop over the first axis of `rows`: the carried values at its end, then the rows it made."""
    kinds = [v.tensor for v in carried]
    kinds += [v.tensor.with_shape(v.shape[1:]) for v in rows]
    kinds += [v.tensor for v in captured]
    with Builder() as b:
        formals = [
            b.emit(Input(f"in{i}"), types=(kind,), names=(f"in{i}",))[0] for i, kind in enumerate(kinds)
        ]
        first, last = len(carried), len(carried) + len(rows)
        made = body(formals[:first], formals[first:last], formals[last:])
        graph = b.build("steps", [Output(f"out{i}", v) for i, v in enumerate(made)])
    return emit(Scan(len(carried), len(rows), graph), *carried, *rows, *captured)


def shifted(outputs: Value, start: Value) -> Value:
    """The output before each step, [T, N, H], of the outputs after each and of the one at the start."""
    first, steps = reshape(start, (1, *start.shape)), outputs.shape[0]
    return concat((first, emit1(Slice((0,), (0,), (as_dim(steps - 1),), (1,)), outputs)), 0)


def flipped(x: Value) -> Value:
    """The first axis from its end to its start."""
    return emit1(Slice((0,), (as_dim(x.shape[0] - 1),), (-1,), (-1,)), x)
