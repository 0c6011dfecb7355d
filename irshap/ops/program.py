"""Ops that make up a program rather than compute: inputs, constants, held values, pullbacks, opaque nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from irshap.errors import IRError
from irshap.ir.builder import Builder, current, emit, emit1
from irshap.ir.core import (
    Axes,
    MixesBatch,
    Node,
    NoLocalRule,
    Op,
    Point,
    Precision,
    Sample,
    Stacked,
    Value,
    require,
)
from irshap.ir.degrees import Degree
from irshap.ir.dims import Dim, N, Shape, symbols_of
from irshap.ir.types import Array, DType, Tensor, TensorType, Type, differ
from irshap.ops.families import Linear, NonDifferentiable, zip_axes

__all__ = ["MASK", "PARAMETER", "PLACES", "STATE", "TRAINING", "Constant", "Dims", "Dropout", "Full"]
__all__ += ["Hold", "Input", "Opaque", "Pullback", "Tap", "constant", "new_input", "without_tap"]

NOTHING_VARIES = "it has no operand that varies"

PARAMETER = "parameter"
"""The kind of an input that was an initializer and is trained."""

STATE = "state"
"""The kind of an input that a training step hands on: momenta, running statistics, the count of steps."""

TRAINING = "training"
"""The kind of an input that only a training step has: labels, weights, rates; `of` says which."""

MASK = "mask"
"""The kind of an input that says what of the input `of` must not count."""

PLACES = "places"
"""The kind of an input that says where between references and samples of the input `of` gradients are."""


def constant(array: ArrayLike, dtype: DType | None = None) -> Value:
    """Emits a constant tensor."""
    value = np.asarray(array, dtype=None if dtype is None else dtype.numpy)
    return emit1(Constant(Tensor(value)))


def batch_from_shape(shape: Shape) -> int | None:
    """The axis of a shape made from nothing that holds the batch: the one whose dimension has N in it."""
    axes = [i for i, d in enumerate(shape) if N in symbols_of([d])]
    if len(axes) > 1:
        raise MixesBatch(f"the shape {shape} has the number of samples on several axes")
    return axes[0] if axes else None


@dataclass(frozen=True)
class Input(NonDifferentiable):
    """An input of the program.

    `kind`: "model" (the model's own), "references" (the reference set of the input `of`), "weights" (one
    for each reference), "target" (the class to explain), "target weights" (of the explained sum), and for
    training `PARAMETER`, `STATE`, `TRAINING`, and `MASK` and `PLACES` for the input `of`.
    """

    name: str
    kind: str = "model"
    of: str | None = None
    mnemonic = "input"
    precision = Precision.DATA
    is_input = True
    types_given = True
    reason = NOTHING_VARIES

    def infer(self, *types: Type) -> tuple[Type, ...]:
        raise IRError("an input's type is given")

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        raise IRError(f"no value was given for input {self.name!r}")

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        shape = getattr(results[0], "shape", None)  # a sequence has none
        return (batch_from_shape(shape or ()),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return ()


def new_input(
    name: str, type: Type, kind: str = "model", of: str | None = None, builder: Builder | None = None
) -> Value:
    """Emits an input of the program, by default into the current builder."""
    return (builder or current()).emit(Input(name, kind, of), types=(type,), names=(name,))[0]


@dataclass(frozen=True)
class Constant(NonDifferentiable):
    """A tensor known at compile time."""

    value: Tensor
    mnemonic = "constant"
    precision = Precision.DATA
    reason = NOTHING_VARIES

    def infer(self, *types: Type) -> tuple[Type, ...]:
        return (self.value.type,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (self.value.array,)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        number = self.value.array.dtype.kind in "fiub"
        return None if number and not self.value.array.any() else 0.0

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def nbytes(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (None,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        numbers = np.array([[1.5, -np.inf]], np.float32)
        for array in (numbers, np.int64(7), np.array([True, False]), np.zeros((0, 3))):
            yield Sample(cls(Tensor(array)), ())


@dataclass(frozen=True)
class Dims(NonDifferentiable):
    """A vector (or, with `scalar`, a single number) of dimensions, in int64: shape arithmetic, done."""

    values: Shape
    scalar: bool = False
    mnemonic = "dims"
    precision = Precision.DATA
    reason = NOTHING_VARIES

    def infer(self, *types: Type) -> tuple[Type, ...]:
        return (TensorType(DType.I64, () if self.scalar else (len(self.values),)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.array(self.values[0] if self.scalar else self.values, dtype=np.int64),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (None,)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((2, 3)), ())
        yield Sample(cls((5,), scalar=True), ())


@dataclass(frozen=True)
class Full(NonDifferentiable):
    """A tensor of one repeated value."""

    value: float
    dtype: DType
    shape: Shape
    mnemonic = "full"
    precision = Precision.DATA
    reason = NOTHING_VARIES

    def infer(self, *types: Type) -> tuple[Type, ...]:
        return (TensorType(self.dtype, self.shape),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.full([int(d) for d in self.shape], self.value, dtype=self.dtype.numpy),)

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return 0.0 if self.value else None

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (batch_from_shape(self.shape),)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0.5, DType.F32, (2, 3)), ())
        yield Sample(cls(3.0, DType.I64, ()), ())


class _Mark(Op, family=True):
    """y = x for the runtime; what it means stands in how differences pass."""

    precision = Precision.DATA

    def infer(self, *types: Type) -> tuple[Type, ...]:
        require(len(types) == 1, "takes one operand")
        return types

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return arrays

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def nbytes(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return tuple(axes)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(self, *at.operands)


@dataclass(frozen=True)
class Hold(_Mark):
    """The sample's value in both worlds: y = x, but no difference between sample and reference passes.

    Explained classes and inputs given as context are held.
    """

    mnemonic = "hold"
    stops_change = True

    def linear_in(self, varying: frozenset[int]) -> bool:
        return True

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule("a held value is constant by definition")

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule("a held value is constant by definition")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.array([[1.0, 2.0]], np.float32),), batch=(0,))


@dataclass(frozen=True)
class Tap(Linear, _Mark):
    """y = x, an attributed tensor: no rewrite looks through it, so that the target keeps depending on it.

    Once the reverse pass is there, it has done its work.
    """

    mnemonic = "tap"
    nonnegative = True

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return ct

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (np.array([[1.0, 2.0]], np.float32),), (0,), batch=(0,))


@dataclass(frozen=True)
class Dropout(Linear, _Mark):
    """y = x, where a network that is trained may drop elements with the probability `ratio`.

    `at` tells two of one tensor apart, which drop others.
    """

    ratio: float
    at: str
    mnemonic = "dropout"

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return ct

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(0.5, "y"), (np.array([[1.0, 2.0]], np.float32),), (0,), batch=(0,))


def without_tap(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
    """A visit (`Builder.extend`) that leaves taps out, where they have done their work."""
    return (mapping[node.operands[0]],) if isinstance(node.op, Tap) else None


@dataclass(frozen=True)
class Pullback(Op):
    """The transposed local linear map of `of`, not yet decided (an attribution method rewrites it).

    Operands: a cotangent for each float result of `of`, then its operands, then its results.
    Results: the cotangents of the operands listed in `wrt`.
    """

    of: Op
    wrt: tuple[int, ...]
    cotangents: int
    inputs: int
    mnemonic = "pullback"
    precision = Precision.FULL

    def parts(self, values: Sequence[Value]) -> tuple[Sequence[Value], Point]:
        """Splits this node's operands into cotangents and the point."""
        cts, rest = values[: self.cotangents], values[self.cotangents :]
        return cts, Point(tuple(rest[: self.inputs]), tuple(rest[self.inputs :]))

    def infer(self, *types: Type) -> tuple[Type, ...]:
        require(len(types) >= self.cotangents + self.inputs, "operands are missing")
        cts, rest = types[: self.cotangents], types[self.cotangents :]
        operands, results = rest[: self.inputs], rest[self.inputs :]
        made = results if self.of.types_given else self.of.infer(*operands)
        fit = len(made) == len(results) and not any(map(differ, made, results))
        require(fit, f"the results of {self.of.mnemonic} are of other types")
        floats = [t for t in results if isinstance(t, TensorType) and t.dtype.is_float]
        fit = len(floats) == len(cts) and not any(map(differ, floats, cts))
        require(fit, f"the cotangents of {self.of.mnemonic} are of other types than its results")
        return tuple(operands[i] for i in self.wrt)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        raise IRError("a pullback has no value before a method has decided it", where=self.of.mnemonic)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        raise IRError("a pullback has no cost before a method has decided it", where=self.of.mnemonic)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return tuple(axes[self.cotangents + i] for i in self.wrt)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return varying <= set(range(self.cotangents))

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule("second derivatives are not supported")

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule("second derivatives are not supported")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return ()


@dataclass(frozen=True)
class Opaque(NonDifferentiable):
    """An ONNX node that irshap doesn't model: it lifts, runs and lowers untouched.

    `proto` is the serialized NodeProto; `opsets` are the operator sets that it and its subgraphs use, with
    their versions; `present` tells which of its inputs exist; the operands after those are values that its
    subgraphs capture, under the names `captures`.  `elementwise` and `rows` tell where the batch goes: on the
    same axis, or from one axis of each operand to one of each result (-1: none).
    """

    kind: str
    domain: str
    opsets: tuple[tuple[str, int], ...]
    proto: bytes
    present: tuple[bool, ...]
    outputs: tuple[bool, ...]
    captures: tuple[str, ...] = ()
    why: str = "irshap has no rule for this op"
    elementwise: bool = False
    rows: tuple[tuple[int, ...], ...] = ()
    mnemonic = "opaque"
    precision = Precision.FULL
    types_given = True
    modeled = False
    reason = "irshap has no rule for this op"
    runner: ClassVar[Callable[[Opaque, Sequence[Array]], tuple[Array, ...]] | None] = None
    """What runs ONNX nodes: `irshap.lowering.opaque` sets it."""

    @property
    def title(self) -> str:
        return self.kind

    def infer(self, *types: Type) -> tuple[Type, ...]:
        raise IRError("an opaque node's types are given")

    def require_fit(self, operands: int, results: int) -> None:
        taken, made = sum(self.present) + len(self.captures), sum(self.outputs)
        require(operands == taken, f"{self.kind} takes {taken} operands and has {operands}")
        require(results == made, f"{self.kind} makes {made} results and has {results}")

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        if Opaque.runner is None:
            raise IRError(f"nothing runs {self.kind}", mend="import irshap.lowering.opaque beforehand")
        return Opaque.runner(self, arrays)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        raise IRError(f"irshap doesn't model {self.kind}: its cost is unknown")

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if all(a is None for a in axes):
            return (None,) * len(results)
        if self.elementwise and all(getattr(t, "shape", None) is not None for t in (*operands, *results)):
            return (zip_axes(axes, operands, results[0]),) * len(results)
        if self.rows:
            given, told = self.rows
            if all(a is None or a == at for a, at in zip(axes, given, strict=True)):
                return tuple(None if a < 0 else a for a in told)
        raise MixesBatch(f"irshap doesn't model {self.kind}: its rows may depend on each other")

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule(f"{self.kind}: {self.why}")

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        raise NoLocalRule(f"{self.kind}: {self.why}")

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        return ()
