"""Sums of products over named indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_letters

import numpy as np

from irshap.ir.builder import emit, emit1
from irshap.ir.core import (
    Axes,
    Layer,
    LinearPart,
    MixesBatch,
    Point,
    Precision,
    Sample,
    Stacked,
    Value,
    require,
    tensors,
)
from irshap.ir.dims import Dim, product, same
from irshap.ir.types import Array, TensorType, Type
from irshap.ops.arithmetic import sized
from irshap.ops.families import Bilinear
from irshap.ops.parts import only
from irshap.ops.reduce import Expand
from irshap.ops.samples import randn
from irshap.ops.shape import reshape

__all__ = ["Einsum"]


@dataclass(frozen=True)
class Einsum(Bilinear):
    """Two operands: an index in both is matched, one that the result lacks is summed over.

    The equation has an arrow and no ellipsis; an operand has each of its indices once.
    """

    equation: str
    mnemonic = "einsum"
    precision = Precision.HALF
    layer = Layer.DENSE

    @property
    def terms(self) -> tuple[str, str, str]:
        """The indices of the two operands and of the result."""
        operands, result = self.equation.split("->")
        a, b = operands.split(",")
        return a, b, result

    def sizes(self, operands: Sequence[TensorType]) -> dict[str, Dim]:
        """The dimension of each index."""
        return {
            index: dim
            for term, t in zip(self.terms[:2], operands, strict=True)
            for index, dim in zip(term, t.dims, strict=True)
        }

    def infer(self, *types: Type) -> tuple[Type, ...]:
        operands = tensors(types)
        require(self.equation.count("->") == 1 and self.equation.count(",") == 1, "takes two operands")
        a, b, result = self.terms
        require(len(operands) == 2 and operands[0].dtype is operands[1].dtype, "element types differ")
        for term, t in zip((a, b), operands, strict=True):
            require(
                len(term) == t.rank and len(set(term)) == t.rank, f"{term!r} doesn't name the axes of {t}"
            )
        fits = all(same(operands[0].dims[a.index(i)], operands[1].dims[b.index(i)]) for i in a if i in b)
        require(fits, f"the sizes of a shared index differ: {operands[0]}, {operands[1]}")
        require(len(set(result)) == len(result) and set(result) <= set(a + b), f"no indices for {result!r}")
        sizes = self.sizes(operands)
        return (operands[0].with_shape(tuple(sizes[i] for i in result)),)

    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        y = np.einsum(self.equation, *arrays, optimize=True)
        return (np.array(y, dtype=arrays[0].dtype, order="C"),)

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        return 2 * product(self.sizes(operands).values())

    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        a, b, result = self.terms
        found = {term[axis] for term, axis in zip((a, b), axes, strict=True) if axis is not None}
        if not found:
            return (None,)
        if len(found) > 1:
            raise MixesBatch("its operands have the batch under different indices")
        (index,) = found
        for term, axis in zip((a, b), axes, strict=True):
            if axis is None and index in term:
                raise MixesBatch("an operand without a batch has a dimension where the other has it")
        if index not in result:
            raise MixesBatch("sums over the batch")
        return (result.index(index),)

    def vectorized(self, at: Stacked) -> tuple[Value, ...]:
        a, b, result = self.terms
        index = next(i for i in ascii_letters if i not in self.equation)
        a, b = (index + term if many else term for term, many in zip((a, b), at.batched, strict=True))
        return emit(Einsum(f"{a},{b}->{index}{result}"), *at.operands)

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        own, other, result = self.terms[i], self.terms[1 - i], self.terms[2]
        known = "".join(index for index in own if index in other + result)
        y = emit1(Einsum(f"{result},{other}->{known}"), ct, at.operands[1 - i])
        if known == own:
            return y
        # an index of this operand alone was summed over
        shape = at.operands[i].shape
        y = reshape(y, [d if index in known else 1 for index, d in zip(own, shape, strict=True)])
        return emit1(Expand(shape), y)

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        i = only(varying, frozenset({0, 1}))
        return self, tuple(v if j == i else sized(v, absolute) for j, v in enumerate(operands))

    @classmethod
    def samples(cls) -> Iterable[Sample]:
        yield Sample(cls("nij,jk->nik"), (randn(2, 3, 4), randn(4, 5)), (0,), (0, None))
        yield Sample(cls("nhqd,nhkd->nhqk"), (randn(2, 2, 3, 4), randn(2, 2, 5, 4)), (0, 1), (0, 0))
        yield Sample(cls("ab,cb->"), (randn(2, 3), randn(4, 3)), (0, 1))
        yield Sample(cls("nab,cb->bn"), (randn(2, 3, 4), randn(5, 4)), (0, 1))
        yield Sample(cls("an,bn->nab"), (randn(3, 2), randn(4, 2)), (0, 1), (1, 1))
        yield Sample(cls(",ab->ba"), (randn(), randn(2, 3)), (0, 1))
