"""A function of a row that jumps: what a router's choice of experts makes of its scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.batch import BatchAxes
from irshap.ir.builder import emit, emit1
from irshap.ir.core import Graph, NoLocalRule, Point, Precision, Sample, Value
from irshap.ir.dims import Dim, N, as_dim, divide, same, symbols_of
from irshap.ir.walks import upstream, varying_values
from irshap.ops.arithmetic import Abs, quotient_or_zero, where
from irshap.ops.cast import cast
from irshap.ops.closed import Closed, written
from irshap.ops.composite import pulled_back
from irshap.ops.extremum import ReduceMax
from irshap.ops.gather import Gather
from irshap.ops.index import GatherElements
from irshap.ops.logic import Equal
from irshap.ops.program import Constant, constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.samples import randn
from irshap.ops.shape import batch_size, reshape, transpose, zeros_like
from irshap.ops.top_k import TopK

__all__ = ["ByRow"]


@dataclass(frozen=True)
class _Rows:
    """An axis of x and one of y that count rows, and how many elements of each are one row."""

    x: int
    y: int
    of_x: Dim
    of_y: Dim


@dataclass(frozen=True, eq=False)
class ByRow(Closed):
    """y = g(i(x), a), where i jumps and a row of y depends on one row of x: what is looked up, or picked.

    Operands: x, then `carried` values a that g, the body's last op, is affine in (what is picked from,
    scattered, or chosen between; x itself, maybe, once more), then values that are the same in both worlds.

    i and a are two players (rules.md section 4): a gets g's adjoint, the mean of those with i of either
    world, and x what i changes, c = (Dy with a + Dy with a0) / 2, 0 where i falls alike.  Of all multipliers
    M of a row with M D = c the least (Frobenius norm) is c D^T / |D|^2, Broyden's secant: complete, as c is 0
    where D is.  So what a choice changes is shared by the squares of the scores' differences.  A jump has no
    better local rule: it falls where it is crossed, and no one element of the row crosses it.

    Rows are as small as the body's ops show them to be (Op.batch_axes), at most a sample.

    The derivative is that through floats alone, as frameworks differentiate it: positions have none.
    """

    body: Graph
    carried: int = 0
    mnemonic = "by_row"
    precision = Precision.FULL

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        self._require_known(wrt)
        op = self._counting(at.operands[0])
        return tuple(op._pulled(cts[0], at.operands, i) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        self._require_known(wrt)
        x, x0 = at.operands[0], at0.operands[0]
        op = self._counting(x)
        change = at.results[0] - at0.results[0]
        if list(wrt) != [0]:
            with_a = at.results[0] - op._value((x0, *at.operands[1:]))
            with_a0 = op._value((x, *at0.operands[1:])) - at0.results[0]
            change = (with_a + with_a0) * 0.5
        found = []
        for i in wrt:
            if i == 0:
                found.append(op._by_squares(cts[0] * change, x, x0))
                continue
            one, other = (op._pulled(cts[0], (v, *at.operands[1:]), i) for v in (x, x0))
            found.append((one + other) * 0.5 if 0 in wrt else one)
        return tuple(found)

    def _counting(self, x: Value) -> ByRow:
        """This op for as many samples as `x` has: pairs of a sample and a reference, say."""
        formal = self.body.inputs[0]
        for had, has in zip(formal.shape, x.shape, strict=True):
            if N in symbols_of([had]) and (times := divide(has, had)) is not None:
                return self if same(times, 1) else self.substitute({N: as_dim(times * N)})
        return self

    def _by_squares(self, shares: Value, x: Value, x0: Value) -> Value:
        """The multiplier that gives each row of x its shares of y."""
        rows = self.rows()
        if rows is None:
            raise NoLocalRule("its rows mix samples")
        # what is -inf in both worlds, a masked score, doesn't differ
        step = where(emit1(Equal(), x, x0), 0.0, x - x0)
        step, within = _split(step, [(r.x, r.of_x) for r in rows])
        shares, inside = _split(shares, [(r.y, r.of_y) for r in rows])
        total = emit1(ReduceSum(inside, keepdims=False), shares) if inside else shares
        by_y = sorted(range(len(rows)), key=lambda i: rows[i].y)
        total = cast(transpose(total, [by_y.index(i) for i in range(len(rows))]), x.dtype)
        total = reshape(total, [1 if a in within else d for a, d in enumerate(step.shape)])
        # squares of very small or large differences leave the range of floats
        largest = emit1(Abs(), step)
        largest = emit1(ReduceMax(within, keepdims=True), largest) if within else largest
        unit = quotient_or_zero(step, largest)
        length = emit1(ReduceSum(within, keepdims=True), unit * unit) if within else unit * unit
        multiplier = unit * quotient_or_zero(quotient_or_zero(total, length), largest)
        return reshape(multiplier, x.shape)

    def _value(self, operands: Sequence[Value]) -> Value:
        return self.parts(operands)[self.result]

    def _pulled(self, ct: Value, operands: Sequence[Value], i: int) -> Value:
        """The cotangent of operand i through the floats of the body, with the choice that `operands` make."""
        formal = self.body.inputs[i]
        found = pulled_back(self.body, [self.parts(operands)], {self.result: ct}, [formal])
        return found[formal] if formal in found else zeros_like(operands[i])

    def rows(self) -> tuple[_Rows, ...] | None:
        """How y falls into rows that depend on one row of x each; None if these mix samples."""
        x, y = self.body.inputs[0], self.result
        found: dict[int, _Rows] = {}
        for axis in range(x.rank):
            if (row := self._row(axis)) is not None:
                found.setdefault(row.y, row)
        counting = [axis for axis, d in enumerate(x.shape) if N in symbols_of([d])]
        ok = all(any(r.x == axis for r in found.values()) for axis in counting)
        return tuple(sorted(found.values(), key=lambda r: r.x)) if ok and y not in self.body.inputs else None

    def _row(self, axis: int) -> _Rows | None:
        """Rows that stand on one axis of x."""
        x, y = self.body.inputs[0], self.result
        # other operands may fall into rows as x does, and what is the same everywhere as is needed
        known: dict[Value, int | None] = dict.fromkeys(self.body.inputs)
        free = [v for v in self.body.values() if v in known or _is_uniform(v)]
        known |= {v: axis for v in free if v.rank > axis and same(v.shape[axis], x.shape[axis])}
        known[x] = axis
        axes = BatchAxes(self.body, known)
        if axes.reason(y) is not None or axes.axis(y) is None:
            return None
        above = upstream([y])
        count: Dim = x.shape[axis]
        for value in varying_values(self.body.nodes, [x]):
            if value not in above or (place := axes.axis(value)) is None:
                continue
            size = value.shape[place]
            if divide(size, count) is None:
                count = size if divide(count, size) is not None else batch_size(size)
        place = axes.axis(y)
        assert place is not None
        of_x, of_y = divide(x.shape[axis], count), divide(y.shape[place], count)
        return None if of_x is None or of_y is None else _Rows(axis, place, of_x, of_y)

    def _require_known(self, wrt: Sequence[int]) -> None:
        if not set(wrt) <= set(range(self.carried + 1)):
            raise NoLocalRule("what it reads beside its row varies, too")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        experts = randn(5, 3, dtype=np.float32)

        def looked_up(x: Value) -> Value:
            return emit1(Gather(0), constant(experts), emit(TopK(1, 2), x)[1])

        def picked(x: Value, a: Value, bias: Value) -> Value:
            return emit1(GatherElements(1), a, emit(TopK(1, 2), x + bias)[1])

        def merged(x: Value) -> Value:
            best = emit(TopK(1, 2), reshape(x, (3 * N, 5)))[1]
            return emit1(Gather(0), constant(experts), reshape(best, (6 * N,)))

        numbers = randn(4, 5, dtype=np.float32)
        yield Sample(cls(written({"x": (N, 5)}, looked_up)), (numbers,), (0,), (0,))
        body = written({"x": (N, 5), "a": (N, 5), "bias": (5,)}, picked)
        given = (numbers, randn(4, 5, seed=1, dtype=np.float32), randn(5, dtype=np.float32))
        yield Sample(cls(body, 1), given, (0, 1), (0, 0, None))
        yield Sample(cls(written({"x": (N, 15)}, merged)), (randn(2, 15, dtype=np.float32),), (0,), (0,))


def _is_uniform(v: Value) -> bool:
    """Whether all its elements are known to be equal."""
    if not isinstance(v.node.op, Constant):
        return False
    array = v.node.op.value.array
    return bool((array == array.flat[:1]).all())


def _split(v: Value, rows: Sequence[tuple[int, Dim]]) -> tuple[Value, tuple[int, ...]]:
    """Each axis of rows in two, the rows and what is in one; and which axes don't count rows."""
    sizes = dict(rows)
    shape: list[Dim] = []
    inside: list[int] = []
    for axis, size in enumerate(v.shape):
        if axis not in sizes:
            inside.append(len(shape))
            shape.append(size)
            continue
        count = divide(size, sizes[axis])
        assert count is not None
        shape.append(count)
        if not same(sizes[axis], 1):
            inside.append(len(shape))
            shape.append(sizes[axis])
    return reshape(v, shape), tuple(inside)
