"""Ops that move elements: linear, the same under every rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from irshap.errors import NotDifferentiable
from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    LinearPart,
    MixesBatch,
    Point,
    Precision,
    Sample,
    Stacked,
    TypeMismatch,
    Value,
    require,
    tensors,
)
from irshap.ir.degrees import Degree, joined
from irshap.ir.dims import Dim, N, R, Shape, as_dim, divide, floor_div, product, same, same_shape
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.families import Linear
from irshap.ops.program import Full
from irshap.ops.samples import randn

__all__ = ["Concat", "Dilate", "Move", "Pad", "Reshape", "Slice", "Split", "Transpose", "concat", "reshape"]
__all__ += ["from_front", "ranked", "split", "to_front", "transpose", "zeros_like"]


def reshape(x: Value, shape: Sequence[Dim]) -> Value:
    """Emits a reshape, or nothing when the shape is already right."""
    return x if same_shape(x.shape, tuple(shape)) else emit1(Reshape(tuple(shape)), x)


def transpose(x: Value, perm: Sequence[int]) -> Value:
    """Emits a transpose, or nothing for the identity."""
    return x if list(perm) == list(range(len(perm))) else emit1(Transpose(tuple(perm)), x)


def to_front(x: Value, axis: int) -> Value:
    """Emits `x` with `axis` before all others."""
    return transpose(x, [axis, *(a for a in range(x.rank) if a != axis)])


def from_front(x: Value, axis: int) -> Value:
    """Emits `x` with its first axis as `axis` of the result: what undoes `to_front`."""
    return transpose(x, [*range(1, axis + 1), 0, *range(axis + 1, x.rank)])


def concat(values: Sequence[Value], axis: int) -> Value:
    """Emits a concatenation, or nothing for a single value."""
    return values[0] if len(values) == 1 else emit1(Concat(axis), *values)


def split(x: Value, axis: int, sizes: Sequence[Dim]) -> tuple[Value, ...]:
    """Emits a split."""
    return emit(Split(axis, tuple(sizes)), x)


def zeros_like(x: Value) -> Value:
    """Emits zeros of the type of `x`."""
    return emit1(Full(0.0, x.dtype, ranked(x).shape))


def ranked(x: Value) -> Value:
    """`x`, if its rank is known: cotangents are of its shape.

    Raises:
        NotDifferentiable: nothing tells its rank.
    """
    if x.tensor.shape is None:
        op = x.node.op
        # an op that isn't modeled: the reason why it isn't comes first
        why = "" if op.modeled else f" of an op without a complete rule ({op.why})"  # type: ignore[attr-defined]
        raise NotDifferentiable(
            f"the path from what is attributed to the target crosses a tensor{why} whose rank nothing tells",
            where=x.node.label,
            mend="Attribute a tensor behind it (wrt), or explain another output",
        )
    return x


class Move(Linear, family=True):
    """Rearranges elements without arithmetic."""

    precision: ClassVar[Precision] = Precision.DATA
    nonnegative = True

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0


@dataclass(frozen=True)
class Reshape(Move):
    """The same elements, in row-major order, under another shape."""

    shape: Shape
    mnemonic = "reshape"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(same(x.size, product(self.shape)), lambda: f"{x.size} elements don't fit into {self.shape}")
        return (x.with_shape(self.shape),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].reshape([int(d) for d in self.shape]),)

    def nbytes(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        axis = axes[0]
        if axis is None:
            return (None,)
        # rows stay together when as many elements stand before the batch axis as did before, and the new
        # dimension there still counts whole samples
        dims, samples = operands[0].dims, batch_size(operands[0].dims[axis])
        for new in range(len(self.shape)):
            if (
                same(product(self.shape[:new]), product(dims[:axis]))
                and divide(self.shape[new], samples) is not None
            ):
                return (new,)
        raise MixesBatch(f"reshape {dims} -> {self.shape} tears the batch on axis {axis} apart")

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(Reshape((at.count, *self.shape)), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return reshape(ct, at.operands[0].shape)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((2, 12)), (randn(2, 3, 4),), (0,))
        yield Sample(cls((N, 12)), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls((3 * N, 4)), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls((4, 6)), (randn(2, 3, 4),), (0,))
        yield Sample(cls((1, 1)), (randn(),), (0,))


def batch_size(dim: Dim) -> Dim:
    """The part of a dimension that counts samples (or pairs of them and references): its symbolic factor.

    Not a factor that is the open size of another axis, merged with them.
    """
    if isinstance(dim, int):
        return dim
    rows = product(s for s in (N, R) if s in dim.free_symbols)
    merged = not same(rows, 1) and divide(dim, rows) is not None
    return rows if merged else as_dim(dim.as_coeff_Mul()[1])


@dataclass(frozen=True)
class Transpose(Move):
    """Axis i of the result is axis perm[i] of the operand."""

    perm: tuple[int, ...]
    mnemonic = "transpose"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(sorted(self.perm) == list(range(x.rank)), f"{self.perm} permutes no {x.rank} axes")
        return (x.with_shape(tuple(x.dims[p] for p in self.perm)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.asarray(arrays[0].transpose(self.perm), order="C"),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (None if axes[0] is None else self.perm.index(axes[0]),)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(Transpose((0, *(p + 1 for p in self.perm))), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return transpose(ct, [self.perm.index(a) for a in range(len(self.perm))])

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1, 2, 0)), (randn(2, 3, 4),), (0,), (0,))
        yield Sample(cls((1, 0)), (randn(2, 3),), (0,), (1,))


@dataclass(frozen=True)
class Concat(Move):
    """Operands one after the other along `axis`."""

    axis: int
    mnemonic = "concat"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        operands = tensors(types)
        require(bool(operands), "needs an operand")
        first = operands[0]
        require(0 <= self.axis < first.rank, f"axis {self.axis} is not one of {first.rank}")
        total: Dim = 0
        for t in operands:
            others = zip(t.dims, first.dims, strict=False)
            fits = t.rank == first.rank and all(
                same(a, b) for axis, (a, b) in enumerate(others) if axis != self.axis
            )
            require(fits and t.dtype is first.dtype, f"{t} doesn't line up with {first}")
            total = total + t.dims[self.axis]
        return (first.with_shape((*first.dims[: self.axis], total, *first.dims[self.axis + 1 :])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.concatenate(arrays, axis=self.axis),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        found = set(axes)
        if len(found) > 1:
            raise MixesBatch("joins operands whose batch is on different axes, or that have none")
        if self.axis in found:
            raise MixesBatch("joins along the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(Concat(self.axis + 1), *at.led())

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return split(ct, self.axis, [v.shape[self.axis] for v in at.operands])[i]

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1), (randn(2, 3), randn(2, 1), randn(2, 4)), (0, 1, 2), (0, 0, 0))
        yield Sample(cls(0), (randn(2, 3), randn(1, 3)), (0, 1))


@dataclass(frozen=True)
class Split(Move):
    """Consecutive parts along `axis`."""

    axis: int
    sizes: Shape
    mnemonic = "split"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        total: Dim = 0
        for size in self.sizes:
            total = total + size
        require(
            0 <= self.axis < x.rank and same(total, x.dims[self.axis]), f"{self.sizes} don't add up to {x}"
        )
        return tuple(x.with_shape((*x.dims[: self.axis], s, *x.dims[self.axis + 1 :])) for s in self.sizes)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        cuts = np.cumsum([int(s) for s in self.sizes])[:-1]
        return tuple(np.split(arrays[0], cuts, axis=self.axis))

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("splits the batch")
        return (axes[0],) * len(self.sizes)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.operands)

    def adjoints(self, cts: Sequence[Value], at: Point, i: int) -> Value:
        return concat(cts, self.axis)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return self.adjoints([ct], at, i)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, (2, 1, 3)), (randn(2, 6),), (0,), (0,))
        yield Sample(cls(0, (2, 2)), (randn(4, 3),), (0,))


@dataclass(frozen=True)
class Slice(Move):
    """start, start + step, ... before stop, on each axis of `axes`.

    Starts and stops are normalized: within the dimension, -1 as stop of a negative step meaning "through 0".
    """

    axes: tuple[int, ...]
    starts: Shape
    stops: Shape
    steps: tuple[int, ...]
    mnemonic = "slice"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        dims = list(x.dims)
        for axis, start, stop, step in zip(self.axes, self.starts, self.stops, self.steps, strict=True):
            require(0 <= axis < x.rank and step != 0, f"axis {axis} or step {step} is wrong for {x}")
            span = as_dim((stop - start) if step > 0 else (start - stop))
            if isinstance(span, int):
                dims[axis] = max(0, -(-span // abs(step)))
            else:
                # in the form in which windows are counted, so that both are seen to be equal
                steps = abs(step)
                dims[axis] = span if steps == 1 else as_dim(floor_div(as_dim(span - 1), steps) + 1)
        return (x.with_shape(tuple(dims)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        cut: list[slice] = [slice(None)] * arrays[0].ndim
        for axis, start, stop, step in zip(self.axes, self.starts, self.stops, self.steps, strict=True):
            cut[axis] = slice(int(start), None if step < 0 and stop == -1 else int(stop), step)
        return (np.asarray(arrays[0][tuple(cut)], order="C"),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] in self.axes and not same(operands[0].dims[axes[0]], results[0].dims[axes[0]]):
            raise MixesBatch("takes a part of the batch")
        if axes[0] in self.axes and self.steps[self.axes.index(axes[0])] < 0:
            raise MixesBatch("reverses the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axes=tuple(a + 1 for a in self.axes)), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        shape = at.operands[0].shape
        if any(same(ct.shape[axis], 0) for axis in self.axes):
            return zeros_like(at.operands[0])
        before, after, total = [0] * len(shape), [0] * len(shape), list(ct.shape)
        pads_before: list[Dim] = list(before)
        pads_after: list[Dim] = list(after)
        for axis, start, step in zip(self.axes, self.starts, self.steps, strict=True):
            if step < 0:
                ct = flip(ct, axis)
                start, step = as_dim(start + (ct.shape[axis] - 1) * step), -step
            if step > 1:
                ct = emit1(Dilate(axis, step), ct)
            total[axis] = ct.shape[axis]
            pads_before[axis] = start
            pads_after[axis] = as_dim(shape[axis] - start - total[axis])
        if all(same(p, 0) for p in (*pads_before, *pads_after)):
            return ct
        return emit1(Pad(tuple(pads_before), tuple(pads_after), 0.0), ct)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((1,), (1,), (4,), (1,)), (randn(2, 5),), (0,), (0,))
        yield Sample(cls((1, 2), (0, 1), (5, 6), (2, 3)), (randn(2, 5, 7),), (0,), (0,))
        yield Sample(cls((1,), (4,), (-1,), (-1,)), (randn(2, 5),), (0,), (0,))
        yield Sample(cls((1,), (5,), (0,), (-2,)), (randn(2, 7),), (0,), (0,))
        yield Sample(cls((1,), (3,), (3,), (1,)), (randn(2, 5),))
        yield Sample(cls((1,), (3,), (3,), (2,)), (randn(2, 5),), (0,), (0,))


@dataclass(frozen=True)
class Dilate(Linear):
    """step - 1 zeros between neighbours on `axis`: the adjoint of a strided slice."""

    axis: int
    step: int
    mnemonic = "dilate"
    precision = Precision.DATA
    nonnegative = True

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        length = as_dim((x.dims[self.axis] - 1) * self.step + 1)
        if isinstance(length, int) and length < 0:
            raise TypeMismatch("can't dilate an empty axis")
        return (x.with_shape((*x.dims[: self.axis], length, *x.dims[self.axis + 1 :])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x = np.moveaxis(arrays[0], self.axis, 0)
        y = np.zeros(((len(x) - 1) * self.step + 1, *x.shape[1:]), x.dtype)
        y[:: self.step] = x
        return (np.ascontiguousarray(np.moveaxis(y, 0, self.axis)),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 0

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == self.axis:
            raise MixesBatch("spreads the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(replace(self, axis=self.axis + 1), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return emit1(Slice((self.axis,), (0,), (ct.shape[self.axis],), (self.step,)), ct)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(1, 3), (randn(2, 4),), (0,), (0,))
        yield Sample(cls(0, 2), (randn(4, 2),), (0,))


def flip(x: Value, axis: int) -> Value:
    """Reverses an axis."""
    return emit1(Slice((axis,), (as_dim(x.shape[axis] - 1),), (-1,), (-1,)), x)


@dataclass(frozen=True)
class Pad(Move):
    """`value` put before and after each axis; negative counts cut."""

    before: Shape
    after: Shape
    value: float
    mnemonic = "pad"

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(len(self.before) == len(self.after) == x.rank, "needs a count for each axis")
        return (
            x.with_shape(tuple(b + d + a for b, d, a in zip(self.before, x.dims, self.after, strict=True))),
        )

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        counts = [(int(b), int(a)) for b, a in zip(self.before, self.after, strict=True)]
        padded = np.pad(arrays[0], [(max(b, 0), max(a, 0)) for b, a in counts], constant_values=self.value)
        cut = tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(counts, padded.shape, strict=True))
        return (np.asarray(padded[cut], order="C"),)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] is not None and not (same(self.before[axes[0]], 0) and same(self.after[axes[0]], 0)):
            raise MixesBatch("pads the batch")
        return (axes[0],)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(Pad((0, *self.before), (0, *self.after), self.value), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        return emit1(
            Pad(tuple(as_dim(-b) for b in self.before), tuple(as_dim(-a) for a in self.after), 0.0), ct
        )

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        return joined([*degrees, 0.0]) if self.value and np.isfinite(self.value) else degrees[0]

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        return replace(self, value=0.0), tuple(operands)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls((0, 1), (0, 2), 0.0), (randn(2, 3),), (0,), (0,))
        yield Sample(cls((0, -1, 2), (0, 2, -1), 1.5), (randn(2, 3, 4),), (0,), (0,))
