"""What a loop over references reads: stored chunk by chunk, or still to come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import sympy

from irshap.builder import Builder
from irshap.dims import Dim, R, as_dim, substitute
from irshap.errors import UserError
from irshap.graph import Node, Value
from irshap.ops.program import Constant, Input
from irshap.ops.reduce import ReduceMean, ReduceSum, over
from irshap.passes.fixed import Part
from irshap.types import Array, Tensor, TensorType

if TYPE_CHECKING:
    from irshap.passes.stream import Loop

__all__ = ["Arrays", "Chunks", "Inputs", "chunk_size", "split", "sum_of", "terms"]


class Chunks(Protocol):
    """Where the stored values of a loop come from.

    Attributes:
        size, trips, left: references in a chunk, chunks, and how many references are left over.
    """

    size: int
    trips: Dim
    left: int

    def whole(self, b: Builder) -> list[Value]:
        """Emits each stored value of all whole chunks, [trips, ...]."""

    def rest(self, b: Builder) -> list[Value]:
        """Emits each stored value of the references left over."""

    def known(self, b: Builder) -> list[Value]:
        """Emits the sums and means over references that don't depend on samples."""


def chunk_size(count: int, most: int) -> int:
    """How many of `count` references to take at a time."""
    divisors = [c for c in range((most + 1) // 2, most + 1) if count % c == 0]
    return max(divisors, default=most) if count > most else max(count, 1)


def split(count: int, size: int, *, stored: bool) -> tuple[int, int]:
    """How many whole chunks, and how many references are left over.

    One chunk needs no loop, but outside of one a load would compute and keep what isn't `stored`.
    """
    return (0, count) if count <= size and stored else divmod(count, size)


def sum_of(node: Node) -> ReduceSum:
    """The sum that a sum or mean starts with."""
    op = node.op
    assert isinstance(op, ReduceSum | ReduceMean)
    return ReduceSum(op.axes, op.keepdims)


def terms(node: Node, binding: Mapping[sympy.Expr, Dim]) -> Dim:
    """How many elements make up one of a mean; 1 for a sum, which isn't divided."""
    op = node.op
    return substitute(over(node.operands[0], op.axes), binding) if isinstance(op, ReduceMean) else 1


class Arrays:
    """Stored values, computed from the references while compiling: no more than one chunk at a time."""

    def __init__(self, loop: Loop, given: Mapping[Value, Array], most: int, count: int) -> None:
        self.size = size = chunk_size(count, most)
        self.trips: Dim
        self.trips, self.left = split(count, size, stored=not loop.recompute)
        self._loop, self._given = loop, given
        self._totals = [np.zeros((), n.results[0].dtype.numpy) for n in loop.known]
        types = (loop.type(v, size) for v in loop.stored)
        self._whole = [np.empty((self.trips, *map(int, t.dims)), t.dtype.numpy) for t in types]
        self._rest: list[Array] = []
        starts = range(0, self.trips * size, size)
        for trip, found in enumerate(self._computed(size, starts)):
            for chunks, array in zip(self._whole, found, strict=True):
                chunks[trip] = array
        if self.left:
            (self._rest,) = self._computed(self.left, [self.trips * size])
        self._known = [
            np.asarray(total / int(terms(n, {R: count})), total.dtype)
            for n, total in zip(loop.known, self._totals, strict=True)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""
        return sum(a.nbytes for a in (*self._whole, *self._rest, *self._known))

    def whole(self, b: Builder) -> list[Value]:
        """A constant for each."""
        return _constants(b, self._loop.stored, self._whole)

    def rest(self, b: Builder) -> list[Value]:
        """A constant for each."""
        return _constants(b, self._loop.stored, self._rest)

    def known(self, b: Builder) -> list[Value]:
        """A constant for each."""
        return _constants(b, [n.results[0] for n in self._loop.known], self._known)

    def _computed(self, size: int, starts: Sequence[int]) -> Iterator[list[Array]]:
        """The stored values for `size` references from each start on; known sums add up on the way."""
        loop = self._loop
        part = Part(loop.graph, loop.computed, {R: size}) if starts else None
        for start in starts:
            assert part is not None
            found = part({v: self._rows(v, slice(start, start + size)) for v in self._given})
            for i, node in enumerate(loop.known):
                (total,) = sum_of(node).evaluate(found[len(loop.stored) + i])
                self._totals[i] = self._totals[i] + total
            yield [self._stored(v, a, size) for v, a in zip(loop.stored, found, strict=False)]

    def _rows(self, value: Value, part: slice) -> Array:
        place = self._loop.rows.place(value)
        assert place is not None
        return self._given[value][(slice(None),) * place.axis + (part,)]

    def _stored(self, value: Value, array: Array, count: int) -> Array:
        dtype = self._loop.type(value, count).dtype.numpy
        if array.dtype == dtype:
            return array
        with np.errstate(over="ignore"):
            rounded = array.astype(dtype)
        if not np.isfinite(rounded[np.isfinite(array)]).all():
            raise UserError(
                f"an activation of {np.abs(array).max():.3g} has no float16",
                where=value.node.label,
                mend="Store it as it is: stream{dtype=same}",
            )
        return rounded


class Inputs:
    """Stored values as inputs: the program with the number of references still a symbol, to tell its cost."""

    def __init__(self, loop: Loop, most: int, count: int, *, exact: bool) -> None:
        self.size = size = chunk_size(count, most) if count else most
        trips, self.left = split(count, size, stored=not loop.recompute) if exact else (1, count % size)
        self.trips: Dim = trips if not trips else as_dim((R - self.left) / size)
        self._loop = loop

    def whole(self, b: Builder) -> list[Value]:
        """An input for each."""
        types = (self._loop.type(v, self.size) for v in self._loop.stored)
        return _inputs(b, "stored", (t.with_shape((self.trips, *t.dims)) for t in types))

    def rest(self, b: Builder) -> list[Value]:
        """An input for each."""
        return _inputs(b, "rest", (self._loop.type(v, self.left) for v in self._loop.stored))

    def known(self, b: Builder) -> list[Value]:
        """An input for each."""
        return _inputs(b, "known", (n.results[0].tensor for n in self._loop.known))


def _constants(b: Builder, values: Sequence[Value], arrays: Sequence[Array]) -> list[Value]:
    pairs = zip(values, arrays, strict=True)
    return [b.emit(Constant(Tensor.wrap(a)), origin=v.node.origin, names=(v.name,))[0] for v, a in pairs]


def _inputs(b: Builder, prefix: str, types: Iterable[TensorType]) -> list[Value]:
    named = {f"{prefix}_{i}": kind for i, kind in enumerate(types)}
    return [b.emit(Input(n, "references"), types=(t,), names=(n,))[0] for n, t in named.items()]
