"""Families: from a few facts about a leaf op they derive the rest of its facets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from irshap.ir.builder import emit
from irshap.ir.core import (
    Axes,
    MixesBatch,
    NoLocalRule,
    Op,
    Point,
    Stacked,
    TypeMismatch,
    Value,
    numel,
    require,
    tensors,
)
from irshap.ir.degrees import Degree, joined
from irshap.ir.dims import Dim, Shape, divide, product, same
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.parts import Parts, Sharing, curve

__all__ = ["Bilinear", "Elementwise", "Linear", "NonDifferentiable", "ZippedElementwise"]
__all__ += ["broadcast", "zip_axes"]


class Linear(Op, family=True):
    """Affine in all its varying operands together: the same adjoint under every rule."""

    REQUIRED: ClassVar[dict[str, str]] = {"adjoint": "def adjoint(self, ct, at, i) -> cotangent of operand i"}

    def linear_in(self, varying: frozenset[int]) -> bool:
        return True

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return joined(degrees)

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return tuple(self.adjoints(cts, at, i) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return self.derivative(cts, at, wrt)


class Bilinear(Op, family=True):
    """Linear in each operand apart: z = B(u, v).

    The secant is B's adjoint at the operands' midpoints: B(u, v) - B(u0, v0) = B(Du, mean v) + B(mean u, Dv),
    exact without a division, and the two-player Shapley value (rules.md section 4).
    """

    REQUIRED: ClassVar[dict[str, str]] = {"adjoint": "def adjoint(self, ct, at, i) -> cotangent of operand i"}
    factors: ClassVar[tuple[int, int]] = (0, 1)
    """The two operands whose product is formed; the op is affine in any others."""

    def linear_in(self, varying: frozenset[int]) -> bool:
        return not set(self.factors) <= varying

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        factors, others = [degrees[i] for i in self.factors], list(degrees)
        for i in sorted(self.factors, reverse=True):
            del others[i]
        known = [d for d in factors if d is not None]
        return joined([sum(known) if len(known) == len(factors) else None, *others])

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        raise NoLocalRule("RevealCancel needs all factors but one to be the same in both worlds")

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return tuple(self.adjoints(cts, at, i) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return tuple(self._at_midpoint(cts, at, at0, i, wrt) for i in wrt)

    def _at_midpoint(self, cts: Sequence[Value], at: Point, at0: Point, i: int, wrt: Sequence[int]) -> Value:
        """The adjoint of operand i at the other factor's midpoint; the half goes to the smaller tensor."""
        others = [j for j in self.factors if j in wrt and j != i and i in self.factors]
        if not others:
            return self.adjoints(cts, at, i)
        (j,) = others
        after = smaller(at.operands[i].shape, at.operands[j].shape)
        # each world apart is smaller than what both make
        ends = [p.operands[j] if after else p.operands[j] * 0.5 for p in (at, at0)]
        operands = list(at.operands)
        operands[j] = ends[0] + ends[1]
        result = self.adjoints(cts, Point(tuple(operands), at.results), i)
        return result * 0.5 if after else result


class Elementwise(Op, family=True):
    """y_i = f(x_i).  The leaf gives f in numpy, its slope and its chord, which should not cancel."""

    REQUIRED: ClassVar[dict[str, str]] = {
        "numpy": "def numpy(self, x) -> f(x)",
        "slope": "def slope(self, x, y) -> f'(x), in terms of x and y = f(x)",
        "chord": "def chord(self, x, x0, y, y0) -> (y - y0) / (x - x0), without cancellation",
        "cost": "flops for each element",
    }
    cost: ClassVar[int]

    @abstractmethod
    def numpy(self, x: Array) -> Array:
        """f(x) in numpy."""

    @abstractmethod
    def slope(self, x: Value, y: Value) -> Value:
        """f'(x)."""

    @abstractmethod
    def chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        """(f(x) - f(x0)) / (x - x0), and f'(x) where x is x0."""

    def lone_chord(self, x: Value, x0: Value, y: Value, y0: Value) -> Value:
        """The chord where x0 is the only reference: what is computed of x alone takes as long as of both.

        Ends exchanged by default: `chord` spends more on the first one, which is then x0, a constant.
        """
        return self.chord(x0, x, y0, y)

    def infer(self, *types: Type) -> tuple[Type, ...]:
        require(len(types) == 1 and isinstance(types[0], TensorType), "takes one tensor")
        return (types[0],)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (np.asarray(self.numpy(arrays[0]), dtype=arrays[0].dtype),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return self.cost * numel(results)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(self, *at.operands)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return (cts[0] * self.slope(at.operands[0], at.results[0]),)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        chord = self.lone_chord if at0.alone else self.chord
        return (cts[0] * chord(at.operands[0], at0.operands[0], at.results[0], at0.results[0]),)

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        if reveal and not np.isfinite(self.evaluate(np.linspace(-8.0, 8.0, 65))[0]).all():
            raise NoLocalRule("RevealCancel looks at r + D+ and r + D-, where it may be undefined")
        return curve(self, self.chord, at, at0, 0, parts[0], reveal)


class ZippedElementwise(Op, family=True):
    """z_i = f(u_i, v_i, ...) with numpy's broadcasting."""

    REQUIRED: ClassVar[dict[str, str]] = {
        "numpy": "def numpy(self, *arrays)",
        "cost": "flops for each element",
    }
    cost: ClassVar[int]

    @abstractmethod
    def numpy(self, *arrays: Array) -> Array:
        """f in numpy."""

    def infer(self, *types: Type) -> tuple[Type, ...]:
        operands = tensors(types)
        require(len(operands) == 2, "takes two operands")
        require(len({t.dtype for t in operands}) == 1, "operands have different element types")
        return (operands[0].with_shape(broadcast([t.dims for t in operands])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        with np.errstate(all="ignore"):
            return (np.asarray(self.numpy(*arrays)),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return self.cost * numel(results)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (zip_axes(axes, operands, results[0]),)

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        return emit(self, *at.aligned())


class NonDifferentiable(Op, family=True):
    """An op without a local linear map; differentiating through it is an error that gives `reason`."""

    REQUIRED: ClassVar[dict[str, str]] = {"reason": "why no local rule exists, for the user"}
    reason: str
    flat: ClassVar[bool] = False
    """Whether its derivative is 0 almost everywhere: then training, which follows slopes, passes over it."""

    def linear_in(self, varying: frozenset[int]) -> bool:
        return False

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule(self.reason)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule(self.reason)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """numpy's broadcasting on symbolic shapes; two dimensions not known to agree are refused."""
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for axis in range(-rank, 0):
        dim: Dim = 1
        for shape in shapes:
            other = shape[axis] if -axis <= len(shape) else 1
            if same(other, 1) or same(other, dim):
                continue
            if not same(dim, 1):
                raise TypeMismatch(f"can't tell that {dim} == {other} on axis {axis} of {shapes}")
            dim = other
        result.append(dim)
    return tuple(result)


def smaller(a: Shape, b: Shape) -> bool:
    """Whether a tensor of shape `a` certainly has fewer elements than one of shape `b`."""
    ratio = divide(product(b), product(a))
    return isinstance(ratio, int) and ratio > 1


def zip_axes(axes: Axes, operands: Sequence[TensorType], result: TensorType) -> int | None:
    """The batch axis of a broadcast result: operands that have it must agree, counted from the right."""
    found = {a - t.rank for a, t in zip(axes, operands, strict=True) if a is not None}
    if not found:
        return None
    if len(found) > 1:
        raise MixesBatch("its operands have the batch on different axes")
    (axis,) = found
    for a, t in zip(axes, operands, strict=True):
        if a is None and -axis <= t.rank and not same(t.dims[axis], 1):
            raise MixesBatch("an operand without a batch has a dimension where the others have it")
    return result.rank + axis
