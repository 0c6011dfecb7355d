"""Recurrent layers: LSTM, GRU and the plain one."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    MixesBatch,
    NoLocalRule,
    Point,
    Precision,
    Sample,
    Stacked,
    Value,
    require,
    tensors,
)
from irshap.ir.dims import Dim, as_dim, product, same, same_shape
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.activations import HardSigmoid
from irshap.ops.composite import Composite
from irshap.ops.elementwise import Relu, Sigmoid, Softplus, Tanh
from irshap.ops.families import Elementwise
from irshap.ops.linear import matmul, swap_last
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import Slice, concat, reshape, split, to_front, transpose
from irshap.ops.through_time import Direction, back, flipped, shifted

__all__ = ["ACTIVATIONS", "DIRECTIONS", "Gru", "Lstm", "Recurrent", "Rnn"]

ACTIVATIONS: dict[str, Elementwise] = {
    "HardSigmoid": HardSigmoid(0.2, 0.5),
    "Relu": Relu(),
    "Sigmoid": Sigmoid(),
    "Softplus": Softplus(),
    "Tanh": Tanh(),
}
"""What a layer may apply, by ONNX's names."""

DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
"""For each direction of a layer, which of its passes run backward in time."""

FEW_STEPS = 16
"""The longest sequence, over all directions, that is spelled out where it is differentiated."""


def _part(x: Value, i: int) -> Value:
    """One entry of the first axis, without the axis."""
    cut = emit1(Slice((0,), (i,), (i + 1,), (1,)), x)
    return reshape(cut, x.shape[1:])


def _of_way(x: Value, way: int) -> Value:
    """One direction's part of [T, D, N, H]."""
    cut = emit1(Slice((1,), (way,), (way + 1,), (1,)), x)
    return reshape(cut, (x.shape[0], *x.shape[2:]))


def _flat(x: Value) -> Value:
    """[T, N, H] as [T N, H]."""
    return reshape(x, (product(x.shape[:-1]), x.shape[-1]))


def _outer(ct: Value, x: Value) -> Value:
    """sum_tn ct_tni x_tnj."""
    return matmul(swap_last(_flat(ct)), _flat(x))


def _total(ct: Value) -> Value:
    """sum_tn ct_tni."""
    return emit1(ReduceSum((0, 1), keepdims=False), ct)


def _unturned(x: Value) -> Value:
    return x


class _Cell:
    """What a step of one direction is made of, on arrays."""

    def __init__(self, op: Recurrent, way: int, w: Any, r: Any, b: Any, extras: Sequence[Any]) -> None:
        self.op, self.way = op, way
        self.w, self.r = self.transposed(w), self.transposed(r)
        self.before, self.own = self.split(b, (op.gates, op.gates), 0)
        self.extras = extras

    def transposed(self, x: Any) -> Any:
        return x.T

    def activate(self, kind: Elementwise, x: Any) -> Any:
        return kind.numpy(x)

    def cut(self, x: Any, sizes: Sequence[int], axis: int) -> Sequence[Any]:
        return np.split(x, np.cumsum(sizes)[:-1], axis)

    def split(self, x: Any, gates: Sequence[int], axis: int = 1) -> Sequence[Any]:
        """`x` cut into so many gates each."""
        return self.cut(x, [n * self.op.hidden for n in gates], axis)

    def apply(self, i: int, x: Any) -> Any:
        """The i-th activation."""
        names = self.op.activations
        return self.activate(ACTIVATIONS[names[self.way * (len(names) // len(self.op.backward)) + i]], x)

    def recur(self, h: Any, gates: slice = slice(None)) -> Any:
        """What the output before contributes to some gates, with their biases."""
        some = range(self.op.gates)[gates]
        if len(some) == self.op.gates:
            return self.product(h, self.r) + self.own
        sizes = (some.start, len(some), self.op.gates - some.stop)
        kept = [n for n in sizes if n]
        at = 1 if some.start else 0
        return self.product(h, self.split(self.r, kept)[at]) + self.split(self.own, kept, 0)[at]

    def sums(self, x: Any, h: Any) -> Any:
        """What the input and the output before contribute together."""
        return x + self.recur(h)

    def product(self, a: Any, b: Any) -> Any:
        return a @ b


class _Formula(_Cell):
    """The same, on values of the IR."""

    def transposed(self, x: Any) -> Any:
        return swap_last(x)

    def activate(self, kind: Elementwise, x: Any) -> Any:
        return emit1(kind, x)

    def cut(self, x: Any, sizes: Sequence[int], axis: int) -> Sequence[Any]:
        return split(x, axis, sizes)

    def product(self, a: Any, b: Any) -> Any:
        return matmul(a, b)


class _Recalled(_Formula):
    """The same for one step of which it is known what the output `h` before contributes.

    `known` holds what stands for the input's part and for that of `h`, or for their sum.
    """

    def __init__(
        self, op: Recurrent, way: int, known: Sequence[Value], h: Value, weights: Sequence[Value]
    ) -> None:
        self.op, self.way, self.known, self.h = op, way, known, h
        self.r, self.own, *self.extras = weights

    def recur(self, h: Any, gates: slice = slice(None)) -> Any:
        if h is not self.h:
            return super().recur(h, gates)
        start, stop, _ = gates.indices(self.op.gates)
        sizes = [n for n in (start, stop - start, self.op.gates - stop) if n]
        return self.known[1] if len(sizes) == 1 else self.split(self.known[1], sizes)[1 if start else 0]

    def sums(self, x: Any, h: Any) -> Any:
        return x if len(self.known) == 1 else super().sums(x, h)


class Recurrent(Composite, family=True):
    """Steps of a cell along the first axis, once for each direction.

    Operands: x [T, N, I], weights [D, G H, I] and [D, G H, H] of the G gates, biases [D, 2 G H] of both, and
    the states that each direction begins with, [D, N, H].  Results: the output of each step [T, D, N, H], and
    the states at the end.  Differentiated step by step, by the chords of products and activations: spelled
    out for few steps, else in a loop backward in time (ops/through_time.py).
    """

    REQUIRED: ClassVar[dict[str, str]] = {
        "step": "def step(self, cell, x, states) -> states after one step, the output first",
    }
    gates: ClassVar[int]
    states: ClassVar[int] = 1
    adds: ClassVar[bool] = True
    """Whether the input and the output before only count by the sum of what they contribute to the gates."""
    hidden: int
    direction: str
    activations: tuple[str, ...]
    precision = Precision.FULL

    @abstractmethod
    def step(self, cell: _Cell, x: Any, states: Sequence[Any]) -> tuple[Any, ...]:
        """One step of one direction, on arrays and values of the IR alike.

        Args:
            cell: what it is made of.
            x: what the input contributes to the gates, with the input's biases, [N, G H].
            states: those before, the output first.
        """

    @property
    def backward(self) -> tuple[bool, ...]:
        """For each pass over the sequence, whether it runs backward."""
        return DIRECTIONS[self.direction]

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, *others = tensors(types)
        require(self.direction in DIRECTIONS, f"no direction is called {self.direction!r}")
        ways, size = len(self.backward), self.gates * self.hidden
        known = set(self.activations) <= set(ACTIVATIONS)
        require(known and len(self.activations) % ways == 0, f"no such activations: {self.activations}")
        require(x.rank == 3, f"takes x [T, N, I], not {x}")
        steps, rows, width = x.dims
        state = (ways, rows, self.hidden)
        wanted: list[tuple[Dim, ...]] = [(ways, size, width), (ways, size, self.hidden), (ways, 2 * size)]
        wanted += [state] * self.states + self.extra_shapes(len(others) - 3 - self.states)
        fits = len(others) == len(wanted) and all(
            t.dtype is x.dtype and same_shape(t.dims, s) for t, s in zip(others, wanted, strict=True)
        )
        require(fits, lambda: f"takes operands {wanted} beside {x}, not {', '.join(map(str, others))}")
        return (x.with_shape((steps, *state)), *[x.with_shape(state)] * self.states)

    def extra_shapes(self, count: int) -> list[tuple[Dim, ...]]:
        """The shapes of `count` operands behind the states."""
        return [()] * count

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        width = operands[0].dims[2]
        return product((*results[0].dims, 2 * self.gates)) * (width + self.hidden + 3)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if tuple(axes) != (1, None, None, None, *[1] * self.states, *[None] * (len(axes) - 4 - self.states)):
            raise MixesBatch("steps along the batch, or its weights or states don't go with its rows")
        return (2, *[1] * self.states)

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        rowwise = (0, *range(4, 4 + self.states))
        if any(many for i, many in enumerate(at.batched) if i not in rowwise):
            return None
        led, operands = at.led(), list(at.operands)
        rows = led[0].shape[2]
        for i in rowwise:
            first, _, width = led[i].shape[1:]
            operands[i] = reshape(transpose(led[i], (1, 0, 2, 3)), (first, as_dim(at.count * rows), width))
        results = emit(self, *operands)
        apart = (reshape(v, (*v.shape[:-2], at.count, rows, self.hidden)) for v in results)
        return tuple(to_front(v, v.rank - 3) for v in apart)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, w, r, b, *rest = arrays
        found, ends = np.empty((len(x), len(w), x.shape[1], self.hidden), x.dtype), []
        for way, backward in enumerate(self.backward):
            state, extras = self._of(way, rest, lambda v, i: v[i])
            cell = _Cell(self, way, w[way], r[way], b[way], extras)
            for t in reversed(range(len(x))) if backward else range(len(x)):
                state = self.step(cell, x[t] @ cell.w + cell.before, state)
                found[t, way] = state[0]
            ends.append(state)
        return (found, *(np.stack(kind) for kind in zip(*ends, strict=True)))

    def _of(self, way: int, rest: Sequence[Any], part: Any) -> tuple[tuple[Any, ...], list[Any]]:
        """The states and what is behind them, of one direction."""
        found = [part(v, way) for v in rest]
        return tuple(found[: self.states]), found[self.states :]

    def in_worlds(
        self, cts: Sequence[Value], worlds: Sequence[Point], wrt: Sequence[int]
    ) -> tuple[Value, ...]:
        steps = worlds[0].operands[0].shape[0]
        if same(steps, 0):
            raise NoLocalRule("it makes no steps")
        if isinstance(steps, int) and steps * len(self.backward) <= FEW_STEPS:
            return super().in_worlds(cts, worlds, wrt)
        weights = not {0, *range(4, 4 + self.states)}.issuperset(wrt)
        if weights and len(worlds) > 1:
            raise NoLocalRule("its weights vary")
        ways = [self._back(way, cts, worlds, weights) for way in range(len(self.backward))]

        def joined(i: int) -> Value:
            if i == 0:
                return reduce(operator.add, (of[0] for of in ways))
            return concat([reshape(of[i], (1, *of[i].shape)) for of in ways], 0)

        return tuple(map(joined, wrt))

    def _back(
        self, way: int, cts: Sequence[Value], worlds: Sequence[Point], weights: bool
    ) -> dict[int, Value]:
        """The cotangents of what one direction reads, by operand; without `weights` of x and the states."""
        x, w, r, b, *rest = worlds[0].operands
        _, extras = self._of(way, rest, _part)
        whole = _Formula(self, way, _part(w, way), _part(r, way), _part(b, way), extras)
        turn = flipped if self.backward[way] else _unturned

        def step(
            known: Sequence[Value], states: Sequence[Value], weights: Sequence[Value]
        ) -> tuple[Value, ...]:
            return self.step(_Recalled(self, way, known, states[0], weights), known[0], states)

        directions = []
        for world in worlds:
            state, _ = self._of(way, world.operands[4:], _part)
            gates = turn(matmul(world.operands[0], whole.w) + whole.before)
            outputs = turn(_of_way(world.results[0], way))
            before = shifted(outputs, state[0])
            of_h = matmul(before, whole.r) + whole.own
            known = [gates + of_h] if self.adds else [gates, of_h]
            directions.append(Direction(known, state, before))
        ends = [_part(ct, way) for ct in cts[1:]]
        read = (whole.r, whole.own, *extras)
        of_outputs = turn(_of_way(cts[0], way))
        of_known, starts, (of_r, of_own, *of_extras) = back(step, directions, of_outputs, ends, read, weights)
        of_gates = turn(of_known[0])
        found = {0: matmul(of_gates, _part(w, way)), **dict(enumerate(starts, 4))}
        if not weights:
            return found
        # what is known is x W + b and h R + b: over all steps at once
        found[1], found[2] = _outer(of_gates, x), _outer(of_known[-1], directions[0].before)
        own = _total(of_known[-1])
        if of_r is not None:
            found[2] = found[2] + swap_last(of_r)
        if of_own is not None:
            own = own + of_own
        found[3] = concat([_total(of_gates), own], 0)
        return found | {i: v for i, v in enumerate(of_extras, 4 + self.states) if v is not None}

    def decompose(self, *operands: Value) -> tuple[Value, ...]:
        x, w, r, b, *rest = operands
        steps = x.shape[0]
        assert isinstance(steps, int)
        ways, ends = [], []
        for way, backward in enumerate(self.backward):
            state, extras = self._of(way, rest, _part)
            cell = _Formula(self, way, _part(w, way), _part(r, way), _part(b, way), extras)
            whole = matmul(x, cell.w) + cell.before
            outputs = []
            for t in reversed(range(steps)) if backward else range(steps):
                state = self.step(cell, _part(whole, t), state)
                outputs.append(reshape(state[0], (1, 1, *state[0].shape)))
            ways.append(concat(outputs[::-1] if backward else outputs, 0))
            ends.append([reshape(s, (1, *s.shape)) for s in state])
        return (concat(ways, 1), *(concat(kind, 0) for kind in zip(*ends, strict=True)))

    @classmethod
    def case(cls, direction: str, *activations: str, **options: Any) -> Sample:
        """A sample of 3 rows of 2 steps."""
        d, h, i = len(DIRECTIONS[direction]), 2, 4
        op: Any = cls
        op = op(hidden=h, direction=direction, activations=activations * d, **options)
        shapes = [(d, cls.gates * h, i), (d, cls.gates * h, h), (d, 2 * cls.gates * h)]
        shapes += [(d, 3, h)] * cls.states
        others = [randn(*s, seed=k) for k, s in enumerate(shapes)]
        states = range(4, 4 + cls.states)
        return Sample(op, (randn(2, 3, i), *others), (0, *states), (1, None, None, None, *[1] * cls.states))


@dataclass(frozen=True)
class Rnn(Recurrent):
    """h = f(x W + h R + biases)."""

    hidden: int
    direction: str
    activations: tuple[str, ...]
    mnemonic = "rnn"
    gates = 1

    def step(self, cell: _Cell, x: Any, states: Sequence[Any]) -> tuple[Any, ...]:
        return (cell.apply(0, cell.sums(x, states[0])),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield cls.case("reverse", "Tanh")


@dataclass(frozen=True)
class Gru(Recurrent):
    """z, r = f(...), n = g(x + r h), h = n + z (h - n); `late`: r scales what h contributes, bias and all."""

    hidden: int
    direction: str
    activations: tuple[str, ...]
    late: bool
    mnemonic = "gru"
    gates = 3
    adds = False

    def step(self, cell: _Cell, x: Any, states: Sequence[Any]) -> tuple[Any, ...]:
        (h,) = states
        x_gates, x_new = cell.split(x, (2, 1))
        if self.late:
            h_gates, h_new = cell.split(cell.recur(h), (2, 1))
            z, r = cell.split(cell.apply(0, x_gates + h_gates), (1, 1))
            new = cell.apply(1, x_new + r * h_new)
        else:
            z, r = cell.split(cell.apply(0, x_gates + cell.recur(h, slice(0, 2))), (1, 1))
            new = cell.apply(1, x_new + cell.recur(r * h, slice(2, 3)))
        return (new + z * (h - new),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield cls.case("forward", "Sigmoid", "Tanh", late=False)
        yield cls.case("bidirectional", "HardSigmoid", "Softplus", late=True)


@dataclass(frozen=True)
class Lstm(Recurrent):
    """i, o, f = f(...), c = f c + i g(...), h = o h(c); a last operand [D, 3 H] lets gates i, o, f see c."""

    hidden: int
    direction: str
    activations: tuple[str, ...]
    mnemonic = "lstm"
    gates = 4
    states = 2

    def extra_shapes(self, count: int) -> list[tuple[Dim, ...]]:
        return [(len(self.backward), 3 * self.hidden)] * min(count, 1)

    def step(self, cell: _Cell, x: Any, states: Sequence[Any]) -> tuple[Any, ...]:
        h, c = states
        sums = cell.sums(x, h)
        if not cell.extras:
            gates, new = cell.split(sums, (3, 1))
            i, o, f = cell.split(cell.apply(0, gates), (1, 1, 1))
            c = f * c + i * cell.apply(1, new)
            return (o * cell.apply(2, c), c)
        of_i, of_o, of_f, new = cell.split(sums, (1, 1, 1, 1))
        seen_i, seen_o, seen_f = cell.split(cell.extras[0], (1, 1, 1), 0)
        f, i = cell.apply(0, of_f + seen_f * c), cell.apply(0, of_i + seen_i * c)
        c = f * c + i * cell.apply(1, new)
        return (cell.apply(0, of_o + seen_o * c) * cell.apply(2, c), c)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield cls.case("forward", "Sigmoid", "Tanh", "Tanh")
        sample = cls.case("reverse", "Sigmoid", "Tanh", "Relu")
        assert sample.batch is not None
        operands, batch = (*sample.operands, randn(1, 6, seed=7)), (*sample.batch, None)
        yield Sample(sample.op, operands, sample.varying, batch)
