"""Recurrent layers differentiated by a loop backward in time, which needs of each step its states alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import Builder, current, emit, emit1
from irshap.ir.core import Graph, Node, Op, Output, Value, tensors
from irshap.ir.dims import as_dim, same_shape
from irshap.ir.rewrite import map_nodes
from irshap.ir.walks import descendants, live
from irshap.ops import arithmetic
from irshap.ops.arithmetic import Add, Mul, Neg, Sub
from irshap.ops.composite import pulled_back
from irshap.ops.linear import matmul, swap_last
from irshap.ops.program import Constant, Input
from irshap.ops.scan import Scan
from irshap.ops.shape import Concat, Slice, concat, reshape, zeros_like
from irshap.ops.vectorize import apply

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
    wanted: bool,
) -> tuple[list[Value], list[Value], list[Value | None]]:
    """The cotangents of what is known, [T, N, G H] each, of the start, [N, H] each, and of the weights.

    A weight has none where steps only read it by what is known.

    Args:
        step: emits a step.
        worlds: one, for derivatives, or two, for secants.
        ct_outputs: cotangents of the outputs, [T, N, H].
        ct_ends: cotangents of the states at the end, [N, H] each.
        weights: what every step reads; first R of [H, G H], by which the output before contributes.
        wanted: whether weights shall have cotangents.
    """
    states, known = len(ct_ends), len(worlds[0].known)
    each = known + states
    rows = [ct_outputs]
    for world in worlds:
        rows += [*world.known, *world.states(step, weights)]

    kinds = [v.tensor.with_shape(v.shape[1:]) for v in rows[1 : 1 + each]] + [v.tensor for v in weights]
    with Builder() as b:
        formals = [b.emit(Input(f"operand{i}"), types=(kind,))[0] for i, kind in enumerate(kinds)]
        results = step(formals[:known], formals[known:each], formals[each:])
        region = b.build("step", ())
    read = {v for node in region.nodes for v in node.operands} if wanted else set()
    summed = [formal for formal in formals[each:] if formal in read]

    def body(carried: Sequence[Value], rows: Sequence[Value], weights: Sequence[Value]) -> Sequence[Value]:
        own = [rows[1 + i * each :][:each] for i in range(len(worlds))]
        maps = [current().graft(region, dict(zip(formals, (*mine, *weights), strict=True))) for mine in own]
        seeds = dict(zip(results, (carried[0] + rows[0], *carried[1:states]), strict=True))
        found = pulled_back(region, maps, seeds, [*formals[:each], *summed])
        cts = [found[v] if v in found else zeros_like(v) for v in formals[:each]]
        # the last of what is known holds what the output before contributes
        of_h = matmul(cts[known - 1], swap_last(weights[0]))
        if formals[known] in found:
            of_h = found[formals[known]] + of_h
        sums = [total + found[v] for total, v in zip(carried[states:], summed, strict=True)]
        return [*map(_without_denormals, (of_h, *cts[known + 1 :])), *sums, *cts[:known]]

    zeros = [zeros_like(w) for w, formal in zip(weights, formals[each:], strict=True) if formal in read]
    found = scanned(body, [*ct_ends, *zeros], rows, weights, last_first=True)
    totals = dict(zip(summed, found[states:], strict=False))
    of_weights = [totals.get(formal) for formal in formals[each:]]
    return list(found[states + len(summed) :]), list(found[:states]), of_weights


def _without_denormals(x: Value) -> Value:
    """`x` to multiples of 2^-104 in float32, of 2^-1000 in float64: what is next to nothing is 0.

    A cotangent fades from step to step, and many processors are far slower on denormal numbers, which
    products with it are before it is.  Adding c and subtracting it rounds to multiples of c eps.
    """
    kind = np.finfo(x.dtype.numpy)
    c = float(kind.tiny) / float(kind.eps) * 2.0**22
    return (x + c) - c


def scanned(
    body: Body,
    carried: Sequence[Value],
    rows: Sequence[Value],
    captured: Sequence[Value],
    *,
    last_first: bool = False,
) -> Sequence[Value]:
    """Emits a loop over the first axis of `rows`: the carried values at its end, then the rows it made.

    What a trip computes of its rows alone is computed for all trips at once, outside.
    """
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
    graph = _with_joined_factors(graph, len(carried))
    formals = list(graph.inputs)
    inside = dict(zip(formals[first:last], rows, strict=True))
    outside = dict(zip(formals[last:], captured, strict=True))
    nodes = _hoisted(graph, formals[:first], inside, outside)
    with Builder() as b:
        reading = [v for n in nodes for v in n.operands] + [o.value for o in graph.outputs]
        made_here = {v for n in nodes for v in n.results}
        read = [v for v in dict.fromkeys(reading) if v not in made_here and v not in formals[:first]]
        rows_read = [v for v in read if v in inside]
        wholes = [v for v in read if v not in inside and not isinstance(v.node.op, Constant)]
        mapping: dict[Value, Value] = {}
        for i, v in enumerate((*formals[:first], *rows_read, *wholes)):
            mapping[v] = b.emit(Input(f"in{i}"), types=(v.type,), names=(f"in{i}",))[0]
        b.extend([v.node for v in read if isinstance(v.node.op, Constant)], mapping)
        b.extend(nodes, mapping)
        graph = b.build("steps", [replace(o, value=mapping[o.value]) for o in graph.outputs])
    loop = Scan(len(carried), len(rows_read), graph, last_first)
    return emit(loop, *carried, *(inside[v] for v in rows_read), *(outside[v] for v in wholes))


@dataclass(frozen=True)
class _Scaled:
    """A value that depends on what is carried, as `moving` times a factor that doesn't; None is 1."""

    moving: Value
    factor: Value | None = None


def _product(op: Op, terms: Sequence[_Scaled | Value]) -> _Scaled | None:
    """(v a) b = v (a b)."""
    for scaled, known in (terms, terms[::-1]):
        if isinstance(scaled, _Scaled) and isinstance(known, Value):
            return _Scaled(scaled.moving, known if scaled.factor is None else scaled.factor * known)
    return None


def _sum(op: Op, terms: Sequence[_Scaled | Value]) -> _Scaled | None:
    """v a + v b = v (a + b), and so for differences."""
    a, b = terms
    if not isinstance(a, _Scaled) or not isinstance(b, _Scaled) or a.moving is not b.moving or a == b:
        return None
    return _Scaled(a.moving, arithmetic.apply(op, *(1.0 if t.factor is None else t.factor for t in (a, b))))


def _negative(op: Op, terms: Sequence[_Scaled | Value]) -> _Scaled | None:
    """-(v a) = v (-a)."""
    (a,) = terms
    return _Scaled(a.moving, -a.factor) if isinstance(a, _Scaled) and a.factor is not None else None


def _joined(op: Op, terms: Sequence[_Scaled | Value]) -> _Scaled | None:
    """concat(v a, w b) = concat(v, w) concat(a, b), and what is concatenated twice is so once."""
    assert isinstance(op, Concat)
    scaled = [t for t in terms if isinstance(t, _Scaled)]
    factors = [
        t.factor for t in scaled if t.factor is not None and same_shape(t.factor.shape, t.moving.shape)
    ]
    if not len(factors) == len(scaled) == len(terms):
        return None
    moving: list[Value] = []
    for t in scaled:
        moving += t.moving.node.operands if t.moving.node.op == op else [t.moving]
    return _Scaled(concat(moving, op.axis), _concatenated(factors, op.axis))


def _concatenated(values: Sequence[Value], axis: int) -> Value:
    """concat(a + a0, b + b0) = concat(a, b) + concat(a0, b0): two worlds are joined before they meet."""
    sums = [v.node.operands for v in values if isinstance(v.node.op, Add)]
    same_all = all(same_shape(x.shape, v.shape) for v, xs in zip(values, sums, strict=False) for x in xs)
    if len(sums) < len(values) or not same_all:
        return concat(values, axis)
    return concat([a for a, _ in sums], axis) + concat([b for _, b in sums], axis)


_FACTORED: dict[type[Op], Callable[[Op, Sequence[_Scaled | Value]], _Scaled | None]] = {
    Mul: _product,
    Add: _sum,
    Sub: _sum,
    Neg: _negative,
    Concat: _joined,
}


def _with_joined_factors(graph: Graph, carried: int) -> Graph:
    """The body with what it multiplies carried values by joined, which goes outside.

    Of a step back in time, which is linear in what is carried, this leaves as few products as there are
    values that its sums and its matrix product need.
    """
    moving = descendants(graph.nodes, graph.inputs[:carried])
    uses = Counter(v for node in graph.nodes for v in node.operands)
    scaled: dict[Value, _Scaled] = {}

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
        rule = _FACTORED.get(type(node.op))
        if rule is None or moving.isdisjoint(node.operands):
            return None
        if isinstance(node.op, Concat) and any(uses[v] > 1 for v in node.operands):
            return None  # computed once, for several: joined, its factors would be stored for each
        operands = [(x in moving, mapping[x]) for x in node.operands]
        found = rule(node.op, [scaled.get(v, _Scaled(v)) if moves else v for moves, v in operands])
        if found is None or found.factor is None:
            return None
        result = found.moving * found.factor
        scaled[result] = found
        return (result,)

    made = map_nodes(graph, visit)
    return replace(made, nodes=tuple(live(made.nodes, (o.value for o in made.outputs), made.inputs)))


def _hoisted(
    graph: Graph, carried: Sequence[Value], inside: dict[Value, Value], outside: dict[Value, Value]
) -> list[Node]:
    """The nodes of a body that depend on what is carried; the others are emitted here, for all trips at once.

    Fills where these went: `inside` are rows [T, ...], `outside` values that every trip reads.
    """
    steps = next(iter(inside.values())).shape[0]
    dependent = set(carried)
    left = []
    for node in graph.nodes:
        found: Sequence[Value] | None = None
        by_trip = [v in inside for v in node.operands]
        if dependent.isdisjoint(node.operands):
            operands = [inside[v] if v in inside else outside[v] for v in node.operands]
            if any(by_trip):
                found = apply(node.op, operands, by_trip, steps, tensors(node.types))
            else:
                found = emit(node.op, *operands)
        if found is None:
            left.append(node)
            dependent.update(node.results)
        else:
            (inside if any(by_trip) else outside).update(zip(node.results, found, strict=True))
    return left


def shifted(outputs: Value, start: Value) -> Value:
    """The output before each step, [T, N, H], of the outputs after each and of the one at the start."""
    first, steps = reshape(start, (1, *start.shape)), outputs.shape[0]
    return concat((first, emit1(Slice((0,), (0,), (as_dim(steps - 1),), (1,)), outputs)), 0)


def flipped(x: Value) -> Value:
    """The first axis from its end to its start."""
    return emit1(Slice((0,), (as_dim(x.shape[0] - 1),), (-1,), (-1,)), x)
