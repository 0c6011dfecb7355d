"""A function of one number that a model spells out in elementwise ops, comparisons and choices among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import (
    Graph,
    Node,
    NoLocalRule,
    Point,
    Precision,
    Sample,
    Value,
    require,
    tensors,
)
from irshap.ir.dims import N, same_shape
from irshap.ir.types import Array, DType, Type
from irshap.ir.walks import is_float, varying_values
from irshap.ops.arithmetic import Abs, Where, between, quotient_or_zero, share_quotient, where
from irshap.ops.cast import Cast, cast
from irshap.ops.closed import Closed, written
from irshap.ops.elementwise import Exp, Log
from irshap.ops.families import Elementwise, NonDifferentiable
from irshap.ops.logic import Equal, Floor, Greater, IsInf, IsNaN, Less, Mod, Xor
from irshap.ops.parts import Parts, Sharing, curve, only, replaced
from irshap.ops.program import constant
from irshap.ops.reduce import Expand
from irshap.ops.samples import randn

__all__ = ["Piecewise", "guards"]

Slope = Value | float
"""A slope by the one number, elementwise; a plain number is the same everywhere."""


@dataclass(frozen=True, eq=False)
class Piecewise(Closed):
    """y_i = f(x_i; fixed), f being a program of elementwise ops in which choices may depend on x_i.

    Operands: x, maybe a second number of the same shape, then values that are the same in both worlds and
    broadcast against x.  The body is closed: it has an input for each, in this order, and one output of the
    shape of x.

    Rules.md section 2, the one-dimensional lemma: any chain of complete rules on one scalar gives Dy/D.  The
    slope follows the program forward, each op by its own rule, which doesn't cancel.  Where a choice falls
    the same way in both worlds it picks the slope, too; where it doesn't, and at steps, the slope is Dv/D of
    what came out, v: D isn't 0 there.  Taken forward, unlike a cotangent, a slope that is infinite or NaN in
    a branch that wasn't chosen is never multiplied.

    Of two numbers that vary each gets the mean of its chords with the other one in either world: the Shapley
    value of two players (section 4).

    It stands in programs from the pass piecewise until a method has decided the pullbacks.
    """

    body: Graph
    mnemonic = "piecewise"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (y,) = super().infer(*types)
        x, y_ = tensors([types[0], y])
        require(same_shape(x.dims, y_.dims), f"{x} and {y_} differ in shape")
        return (y,)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        self._require_numbers(wrt)
        slopes = [self._slope(i, at.operands, [at]) for i in wrt]
        return tuple(cast(cts[0] * s, at.operands[i].dtype) for i, s in zip(wrt, slopes, strict=True))

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        self._require_numbers(wrt)
        slopes: Sequence[Slope]
        if len(wrt) == 1:
            slopes = [self._slope(wrt[0], at.operands, [at, at0])]
        else:
            means = [self._mean(i, at, at0) for i in wrt]
            slopes = self._where_finite(means, at, at0, wrt) if guards(self.body.nodes) else means
        return tuple(cast(cts[0] * s, at.operands[i].dtype) for i, s in zip(wrt, slopes, strict=True))

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        i = only(frozenset(parts), frozenset({0, 1}))
        if reveal and len(at.operands) > 1:
            raise NoLocalRule("RevealCancel has no rule for choices that depend on other values, too")
        if reveal and not self._is_finite():
            raise NoLocalRule("RevealCancel looks at r + D+ and r + D-, where it may be undefined")
        return curve(self, between(self, at, i), at, at0, i, parts[i], reveal)

    def _is_finite(self) -> bool:
        """Whether it is defined for numbers of ordinary size."""
        (x,) = self.body.inputs
        numbers = np.linspace(-8.0, 8.0, 65, dtype=x.dtype.numpy).reshape(-1, *[1] * x.rank)
        return bool(np.isfinite(self.values_at(numbers)).all())

    def values_at(self, *operands: Array) -> Array:
        """Its values for operands of any shapes and widths that broadcast."""
        arrays = dict(zip(self.body.inputs, operands, strict=True))
        for node in self.body.nodes:
            results = node.op.evaluate(*(arrays[v] for v in node.operands))
            arrays.update(zip(node.results, results, strict=True))
        return arrays[self.result]

    def _require_numbers(self, wrt: Sequence[int]) -> None:
        shapes = [self.body.inputs[i].shape for i in wrt]
        if not set(wrt) <= {0, 1} or not all(same_shape(s, self.result.shape) for s in shapes):
            raise NoLocalRule("what its pieces depend on varies, too")

    def _slope(self, i: int, operands: Sequence[Value], points: Sequence[Point]) -> Slope:
        """The slope by operand i, the others being `operands`: at one point, or between two."""
        worlds = [self.parts(replaced(Point(tuple(operands), ()), i, p.operands[i])) for p in points]
        x = self.body.inputs[i]
        slopes = _Slopes(worlds, x, varying_values(self.body.nodes, [x]))
        for node in self.body.nodes:
            slopes.visit(node)
        return slopes.total(self.result)

    def _mean(self, i: int, at: Point, at0: Point) -> Value:
        """The two-player form: the mean of the chords with the other number as in each world."""
        a, b = (self._slope(i, point.operands, [at, at0]) for point in (at, at0))
        total = a + b
        return (total if isinstance(total, Value) else constant(total, at.results[0].dtype)) * 0.5

    def _where_finite(
        self, slopes: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]
    ) -> list[Value]:
        """Where the numbers of two worlds don't go together (r/0), the first that differs gets all of Dy."""
        y, y0 = at.results[0], at0.results[0]
        steps = [cast(at.operands[i] - at0.operands[i], y.dtype) for i in wrt]
        reach = emit1(Abs(), slopes[0] * steps[0]) + emit1(Abs(), slopes[1] * steps[1])
        finite = emit1(Less(), reach, constant(float("inf"), y.dtype))
        still = emit1(Equal(), steps[0], constant(0.0, y.dtype))
        alone = [quotient_or_zero(y - y0, d) for d in steps]
        first, second = where(still, 0.0, alone[0]), where(still, alone[1], 0.0)
        return [where(finite, slopes[0], first), where(finite, slopes[1], second)]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        half = 0.5

        def above(x: Value, bound: Value | float) -> Value:
            return emit1(Greater(), x, bound if isinstance(bound, Value) else constant(bound, x.dtype))

        def steps(x: Value) -> Value:
            return emit1(Floor(), x) * half + cast(above(x * x, 1.0), x.dtype)

        def guarded(x: Value) -> Value:
            y = emit1(Log(), x)
            return where(emit1(IsNaN(), y), 0.0, y)

        for make in (
            lambda x: where(above(x, half), x, emit1(Log(), emit1(Exp(), x) + 1.0)),
            lambda x: where(above(emit1(Abs(), x), half), x, 0.0),
            lambda x: where(above(x, 0.0), x, (emit1(Exp(), x) - 1.0) * half),
            lambda x: emit1(Mod(truncated=True), x, constant(half, x.dtype)) * x,
            steps,
            guarded,
        ):
            yield Sample(cls(written({"x": (N, 7)}, make)), (randn(2, 7, dtype=np.float32) * 2,), (0,), (0,))
        body = written({"x": (N, 3), "bound": (3,)}, lambda x, bound: where(above(x, bound), x, bound * x))
        yield Sample(cls(body), tuple(randn(*s, dtype=np.float32) for s in ((4, 3), (3,))), (0,), (0, None))
        numbers = tuple(randn(4, 3, seed=i, dtype=np.float32) for i in range(2))
        body = written({"x": (N, 3), "z": (N, 3)}, lambda x, z: where(above(x, z), x * z, x + 1.0))
        yield Sample(cls(body), numbers, (0, 1), (0, 0))


class _Slopes:
    """Slopes of the values of a body, forward: its derivative in one world, its chord between two."""

    def __init__(self, worlds: Sequence[Mapping[Value, Value]], x: Value, varying: set[Value]) -> None:
        self.at, self.at0 = worlds[0], worlds[-1]
        self.chord = len(worlds) > 1
        self.x, self.varying = x, varying
        self.slopes: dict[Value, Slope] = {x: 1.0}
        self.cancels = False

    def of(self, value: Value) -> Slope:
        """0 for what doesn't vary."""
        return self.slopes.get(value, 0.0)

    def total(self, result: Value) -> Slope:
        """The slope of the whole, which is Dy/D itself where a sum over parts may cancel and Dy doesn't."""
        slope = self.of(result)
        if not (self.chord and self.cancels):
            return slope
        y, y0 = self.at[result], self.at0[result]
        large = emit1(Greater(), emit1(Abs(), y - y0) * 4.0, emit1(Abs(), y) + emit1(Abs(), y0))
        return where(large, self._quotient(result), self._whole(slope, result))

    def visit(self, node: Node) -> None:
        """Finds the slope of a node's result, where it is float and varies."""
        (result,) = node.results
        if result not in self.varying or not is_float(result):
            return
        changing = [i for i, v in enumerate(node.operands) if v in self.varying]
        if isinstance(node.op, Where):
            found = self._choice(node)
        elif isinstance(node.op, Mod):
            found = self._remainder(node, changing)
        elif isinstance(node.op, NonDifferentiable) or not all(is_float(node.operands[i]) for i in changing):
            found = self._step(result)
        elif isinstance(node.op, Cast):
            slope = self.of(node.operands[0])
            found = cast(slope, result.dtype) if isinstance(slope, Value) else slope
        else:
            found = self._smooth(node, changing)
        self.slopes[result] = found

    def _smooth(self, node: Node, changing: Sequence[int]) -> Slope:
        at, at0 = (self._point(node, world) for world in (self.at, self.at0))
        if isinstance(node.op, Elementwise):
            (x,), (y,), (x0,), (y0,) = at.operands, at.results, at0.operands, at0.results
            own = node.op.chord(x, x0, y, y0) if self.chord else node.op.slope(x, y)
            before = self.of(node.operands[0])
            return own if before == 1.0 else own * before
        linear = node.op.linear_in(frozenset(changing))
        # parts of sin(x)/x, say, grow without bound near 0
        self.cancels |= len(changing) > 1 and not linear
        total: Slope = 0.0
        for k, i in enumerate(changing):
            slope = self.of(node.operands[i])
            if slope == 0.0:
                continue
            # its transposed map is the map itself, element by element: the slope goes in as a cotangent does
            ct = [self._whole(slope, node.results[0])]
            if linear:
                found = node.op.adjoints(ct, at, i)
            elif self.chord:
                found = node.op.secant(ct, at, at0, changing)[k]
            else:
                found = node.op.derivative(ct, at, changing)[k]
            total = found if total == 0.0 else total + found
        return total

    def _choice(self, node: Node) -> Slope:
        """A choice that falls the same way picks the slope; else it is that of what was chosen."""
        condition, a, b = node.operands
        one, other = self.of(a), self.of(b)
        chosen = self._picked(self.at[condition], one, other, node.results[0].dtype)
        if not self.chord or condition not in self.varying:
            return chosen
        crossed = emit1(Xor(), self.at[condition], self.at0[condition])
        between = self._quotient(node.results[0])
        if guards(v.node for v in _conditions(condition)):
            # a guard that fired in one world alone, of what is itself the number: D isn't finite, and no
            # multiplier makes up for it.  0 leaves the difference to the completeness error
            between = where(emit1(IsNaN(), between), 0.0, between)
        return where(crossed, between, chosen)

    def _remainder(self, node: Node, changing: Sequence[int]) -> Slope:
        """That of the operand, unless a multiple of the divisor lies between the worlds."""
        operand, divisor = node.operands
        slope, (result,) = self.of(operand), node.results
        if list(changing) != [0]:
            if self.chord:
                return self._quotient(result)
            raise NoLocalRule("the divisor of a remainder varies")
        if not self.chord:
            return slope
        (y, y0), (a, a0) = ((self.at[v], self.at0[v]) for v in (result, operand))
        half = emit1(Abs(), self.at[divisor]) * 0.5
        crossed = emit1(Greater(), emit1(Abs(), (y - y0) - (a - a0)), half)
        return where(crossed, self._quotient(result), self._whole(slope, result))

    def _step(self, result: Value) -> Slope:
        """Flat, but between the worlds."""
        return self._quotient(result) if self.chord else 0.0

    def _quotient(self, value: Value) -> Value:
        """Dv/D, for what differs only where D isn't 0."""
        d = cast(self.at[self.x] - self.at0[self.x], value.dtype)
        return share_quotient(self.at[value] - self.at0[value], d)

    def _picked(self, condition: Value, one: Slope, other: Slope, dtype: DType) -> Slope:
        if isinstance(one, Value) or isinstance(other, Value):
            return where(condition, one, other)
        return one if one == other else where(condition, constant(one, dtype), other)

    def _whole(self, slope: Slope, like: Value) -> Value:
        """The slope in the shape of a result."""
        if not isinstance(slope, Value):
            slope = constant(slope, like.dtype)
        shape = self.at[like].shape
        return slope if same_shape(slope.shape, shape) else emit1(Expand(shape), slope)

    def _point(self, node: Node, world: Mapping[Value, Value]) -> Point:
        return Point(tuple(world[v] for v in node.operands), tuple(world[v] for v in node.results))


def guards(nodes: Iterable[Node]) -> bool:
    """Whether something in there asks for NaN or infinity."""
    return any(isinstance(node.op, IsNaN | IsInf) for node in nodes)


def _conditions(value: Value) -> Iterable[Value]:
    """A truth value and those that it is made of."""
    yield value
    for operand in value.node.operands:
        if operand.dtype is DType.BOOL:
            yield from _conditions(operand)
