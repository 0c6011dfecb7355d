"""Matrix products and batch normalization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    Layer,
    LinearPart,
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
from irshap.ir.degrees import Degree, NotHomogeneous, fixed, joined
from irshap.ir.dims import Dim, product, same, same_shape
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.arithmetic import Mul, sized
from irshap.ops.composite import Composite
from irshap.ops.elementwise import Sqrt
from irshap.ops.families import Bilinear, Linear, broadcast
from irshap.ops.parts import only
from irshap.ops.reduce import ReduceMean, ReduceSum, unbroadcast
from irshap.ops.samples import randn
from irshap.ops.shape import reshape, transpose

__all__ = ["BatchMoments", "BatchNorm", "Gemm", "MatMul", "matmul"]


def matmul(a: Value, b: Value) -> Value:
    """Emits a matrix product."""
    return emit1(MatMul(), a, b)


def swap_last(x: Value) -> Value:
    """The transpose of each matrix in a stack."""
    return transpose(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


@dataclass(frozen=True)
class MatMul(Bilinear):
    """Products of stacks of matrices `[..., m, k] [..., k, n]`, leading axes broadcast; both of rank >= 2."""

    mnemonic = "matmul"
    precision = Precision.HALF
    layer = Layer.DENSE

    def infer(self, *types: Type) -> tuple[Type, ...]:
        a, b = tensors(types)
        require(a.dtype is b.dtype, "operands have different element types")
        require(a.rank >= 2 and b.rank >= 2, "operands need two axes or more")
        require(same(a.dims[-1], b.dims[-2]), f"inner dimensions {a.dims[-1]} and {b.dims[-2]} differ")
        return (a.with_shape((*broadcast([a.dims[:-2], b.dims[:-2]]), a.dims[-2], b.dims[-1])),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.matmul(arrays[0], arrays[1]),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 2 * product(results[0].dims) * operands[0].dims[-1]

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        right = [None if a is None else a - t.rank for a, t in zip(axes, operands, strict=True)]
        a, b = right
        if a == -1 or b == -2:
            raise MixesBatch("sums over the batch")
        if a is not None and b is not None and (a != b or a == -2):
            raise MixesBatch("its operands have the batch on different axes")
        axis = a if a is not None else b
        if axis is None:
            return (None,)
        if axis < -2:
            other = operands[1] if a is not None else operands[0]
            if None in right and -axis <= other.rank and not same(other.dims[axis], 1):
                raise MixesBatch("an operand without a batch has a dimension where the other has it")
        return (results[0].rank + axis,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        return emit(self, *at.aligned())

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        a, b = at.operands
        if i == 1 and b.rank == 2 and a.rank > 2:
            # one matrix for a whole stack: its rows are summed in the product, not one matrix at a time
            a, ct = (reshape(v, (product(v.shape[:-1]), v.shape[-1])) for v in (a, ct))
        full = matmul(ct, swap_last(b)) if i == 0 else matmul(swap_last(a), ct)
        return unbroadcast(full, at.operands[i].shape)

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        i = only(varying, frozenset({0, 1}))
        return self, tuple(v if j == i else sized(v, absolute) for j, v in enumerate(operands))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (randn(2, 3), randn(3, 4)), (0,), (0, None))
        yield Sample(cls(), (randn(2, 5, 3), randn(2, 3, 4)), (0, 1), (0, 0))
        yield Sample(cls(), (randn(2, 5, 3), randn(3, 4)), (0, 1))
        yield Sample(cls(), (randn(4, 3), randn(2, 3, 2)), (1,), (None, 0))


@dataclass(frozen=True)
class Gemm(Bilinear):
    """alpha op(a) op(b) [+ beta c], with op the transpose where asked."""

    alpha: float = 1.0
    beta: float = 1.0
    trans_a: bool = False
    trans_b: bool = False
    mnemonic = "gemm"
    precision = Precision.HALF
    layer = Layer.DENSE

    def infer(self, *types: Type) -> tuple[Type, ...]:
        a, b, *c = tensors(types)
        require(a.rank == b.rank == 2 and len(c) <= 1, "takes two matrices and a summand")
        require(len({t.dtype for t in (a, b, *c)}) == 1, "operands have different element types")
        m, k = a.dims[:: -1 if self.trans_a else 1]
        k2, n = b.dims[:: -1 if self.trans_b else 1]
        require(same(k, k2), f"inner dimensions {k} and {k2} differ")
        if c:
            fits = same_shape(broadcast([c[0].dims, (m, n)]), (m, n))
            require(fits, f"{c[0]} doesn't broadcast to {(m, n)}")
        return (a.with_shape((m, n)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        a, b, *c = arrays
        y = (a.T if self.trans_a else a) @ (b.T if self.trans_b else b)
        y = y if self.alpha == 1 else (self.alpha * y).astype(y.dtype)
        if c:
            y = y + (c[0] if self.beta == 1 else (self.beta * c[0]).astype(y.dtype))
        return (y,)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        inner = operands[0].dims[0 if self.trans_a else 1]
        return product(results[0].dims) * (2 * inner + int(len(operands) == 3))

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        rows, columns = (1 if self.trans_a else 0), (0 if self.trans_b else 1)
        a, b, *c = axes
        if a not in (None, rows) or b not in (None, columns) or (a is not None and b is not None):
            raise MixesBatch("sums over the batch")
        axis = 0 if a is not None else 1 if b is not None else None
        if c and c[0] is not None:
            summand = c[0] + 2 - operands[2].rank
            if axis != summand:
                raise MixesBatch("its summand has the batch on another axis than the product")
        elif (
            c and axis is not None and operands[2].rank > 1 - axis and not same(operands[2].dims[axis - 2], 1)
        ):
            raise MixesBatch("its summand has no batch where the product has it")
        return (axis,)

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        a, b, *c = at.aligned()
        rows = at.batched[0] and not any(at.batched[1:]) and not self.trans_a
        if rows and not (c and c[0].rank == 2 and not same(c[0].shape[0], 1)):
            return None
        y = matmul(swap_last(a) if self.trans_a else a, swap_last(b) if self.trans_b else b)
        y = y if self.alpha == 1 else y * self.alpha
        if c:
            y = y + (c[0] if self.beta == 1 else c[0] * self.beta)
        return (y,)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        a, b = at.operands[:2]
        if i == 2:
            return unbroadcast(ct if self.beta == 1 else ct * self.beta, at.operands[2].shape)
        if i == 0 and not self.trans_a:
            return emit1(Gemm(self.alpha, 1.0, False, not self.trans_b), ct, b)
        if i == 0:
            return emit1(Gemm(self.alpha, 1.0, self.trans_b, True), b, ct)
        if not self.trans_b:
            return emit1(Gemm(self.alpha, 1.0, not self.trans_a, False), a, ct)
        return emit1(Gemm(self.alpha, 1.0, True, self.trans_a), ct, a)

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        i = only(varying, frozenset({0, 1}))
        factors = tuple(v if j == i else sized(v, absolute) for j, v in enumerate(operands[:2]))
        return replace(self, alpha=abs(self.alpha) if absolute else self.alpha), factors

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        x, w, c = randn(2, 3), randn(3, 4), randn(4)
        yield Sample(cls(), (x, w, c), (0,), (0, None, None))
        yield Sample(cls(0.5, 2.0, False, True), (x, w.T.copy(), c), (0, 2), (0, None, None))
        yield Sample(cls(2.0, 0.5, True, False), (x.T.copy(), w, randn(2, 1)), (0, 1), None)
        yield Sample(cls(1.0, 1.0, True, True), (x.T.copy(), w.T.copy()), (0, 1))


@dataclass(frozen=True)
class BatchNorm(Linear):
    """y = (x - mean) / sqrt(var + epsilon) scale + bias on axis 1, with fixed statistics."""

    epsilon: float
    mnemonic = "batch_norm"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        x, *stats = tensors(types)
        require(x.rank >= 2 and len(stats) == 4, "takes x, scale, bias, mean, variance")
        fits = all(s.rank == 1 and same(s.dims[0], x.dims[1]) for s in stats)
        require(fits and len({t.dtype for t in (x, *stats)}) == 1, "the statistics don't fit the channels")
        return (x,)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        x, scale, bias, mean, var = (
            a if i == 0 else a.reshape(-1, *[1] * (arrays[0].ndim - 2)) for i, a in enumerate(arrays)
        )
        return ((x - mean) * (scale / np.sqrt(var + x.dtype.type(self.epsilon))) + bias,)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 2 * product(results[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        if axes[0] == 1 or any(a is not None for a in axes[1:]):
            raise MixesBatch("its statistics vary over the batch")
        return (axes[0],)

    def linear_in(self, varying: frozenset[int]) -> bool:
        return varying <= {0, 2}

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        if i == 0:
            return ct * self._factor(at.operands, absolute=False)
        if i == 2:
            return emit1(ReduceSum((0, *range(2, ct.rank)), keepdims=False), ct)
        raise NoLocalRule("its statistics vary between sample and reference")

    def _factor(self, operands: Sequence[Value], absolute: bool) -> Value:
        """What each channel of x is multiplied by."""
        x, scale, _, _, var = operands
        factor = sized(scale, absolute) / emit1(Sqrt(), var + self.epsilon)
        return reshape(factor, (x.shape[1], *[1] * (x.rank - 2)))

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        x, scale, shift, mean, variance = degrees
        if not (fixed(scale) and fixed(variance)):
            raise NotHomogeneous("its statistics change with scale")
        return joined([x, shift, mean])

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        only(varying, frozenset({0}))
        return Mul(), (operands[0], self._factor(operands, absolute))

    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return tuple(self._partial(cts[0], at, i) for i in wrt)

    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return tuple(self.adjoint(cts[0], at, i) for i in wrt)

    def _partial(self, ct: Value, at: Point, i: int) -> Value:
        if i in (0, 2):
            return self.adjoint(ct, at, i)
        x, scale, _, mean, var = at.operands
        channel = (x.shape[1], *[1] * (x.rank - 2))
        summed = ReduceSum((0, *range(2, x.rank)), keepdims=False)
        inverse = 1.0 / emit1(Sqrt(), var + self.epsilon)
        if i == 3:
            return -emit1(summed, ct) * (scale * inverse)
        along = emit1(summed, ct * (x - reshape(mean, channel))) * inverse
        # d (var + epsilon)^(-1/2) = -(var + epsilon)^(-3/2)/2
        return along if i == 1 else along * scale * (inverse * inverse) * -0.5

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        stats = (randn(3), randn(3, seed=1), randn(3, seed=2), np.abs(randn(3, seed=3)) + 0.5)
        yield Sample(cls(2.0**-17), (randn(2, 3, 4, 4), *stats), (0,), (0, None, None, None, None))
        yield Sample(cls(2.0**-10), (randn(2, 3), *stats), (0, 2))
        yield Sample(cls(2.0**-10), (randn(4, 3, 2), *stats), (0,))


@dataclass(frozen=True)
class BatchMoments(Composite):
    """Mean and variance of each channel (axis 1) over all samples of a batch: what training normalizes by.

    They belong to no sample, so that a program that is normalized by them still has a batch.  A method that
    looks at each sample alone differentiates through them, as frameworks do.
    """

    mnemonic = "batch_moments"
    precision = Precision.FULL

    def infer(self, *types: Type) -> tuple[Type, ...]:
        (x,) = tensors(types)
        require(x.rank >= 2 and x.dtype.is_float, lambda: f"takes floats with channels, not {x}")
        return (x.with_shape((x.dims[1],)),) * 2

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        (x,) = arrays
        axes = (0, *range(2, x.ndim))
        return (np.asarray(x.mean(axes)), np.asarray(x.var(axes)))

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 4 * product(operands[0].dims)

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        return (0, 0) if axes[0] == 1 else (None, None)

    def decompose(self, *operands: Value) -> tuple[Value, ...]:
        (x,) = operands
        over = ReduceMean((0, *range(2, x.rank)), keepdims=False)
        mean = emit1(over, x)
        centered = x - reshape(mean, (x.shape[1], *[1] * (x.rank - 2)))
        return mean, emit1(over, centered * centered)

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls(), (randn(4, 3, 2, 2),), (0,))
        yield Sample(cls(), (randn(5, 3) + 2.0,), (0,))
