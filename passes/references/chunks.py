"""What a loop over references reads: stored chunk by chunk, or still to come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import sympy

from irshap.errors import UserError
from irshap.ir.builder import Builder
from irshap.ir.core import Node, Value
from irshap.ir.dims import Dim, R, as_dim, substitute
from irshap.ir.types import Array, Tensor, TensorType
from irshap.ops.program import Constant, Input
from irshap.ops.reduce import ReduceMean, ReduceSum, over
from irshap.passes.references.fixed import Part
from irshap.passes.references.levels import joined

if TYPE_CHECKING:
    from irshap.passes.stream import Loop

__all__ = ["Arrays", "Chunks", "Inputs", "Plan", "chunk_size", "sum_of", "terms"]


class Chunks(Protocol):
    """Where the stored values of a loop come from."""

    def whole(self, b: Builder) -> dict[Value, Value]:
        """Emits each stored value of all whole chunks, as `Loop.stored_types` has them."""

    def rest(self, b: Builder) -> list[Value]:
        """Emits each stored value of the references left over."""

    def known(self, b: Builder) -> list[Value]:
        """Emits the sums and means over references that don't depend on samples."""


@dataclass(frozen=True)
class Plan:
    """How many references are taken at a time.

    Attributes:
        size: references in a chunk.
        groups: chunks that go together where tensors are small.
        whole: references in whole groups, a multiple of size * groups, or in R where their number is open.
        left: references left over.
    """

    size: int
    groups: int
    whole: Dim
    left: int

    @classmethod
    def of(cls, count: int, most: int, together: int, *, stored: bool, exact: bool) -> Plan:
        """For `count` references (0: an open number), at most `most`, or `together`, at a time.

        What is `stored` needs no loop for one chunk.  Without `exact` the number may still change.
        """
        size = chunk_size(count, most) if count else most
        bound = max(together // size, 1)
        if not count:
            return cls(size, bound, R, 0)
        if exact and stored and count <= size:
            return cls(size, 1, 0, count)
        chunks = count // size
        groups = _divisor(chunks, bound)
        if 2 * groups <= _divisor(chunks - 1, bound):
            chunks, groups = chunks - 1, _divisor(chunks - 1, bound)
        left = count - chunks * size
        return cls(size, groups, chunks * size if exact else as_dim(R - left), left)

    def trips(self, size: int) -> Dim:
        """How often a loop runs that takes `size` references at a time."""
        return as_dim(self.whole / size) if isinstance(self.whole, sympy.Expr) else self.whole // size


def chunk_size(count: int, most: int) -> int:
    """How many of `count` references to take at a time.

    What divides them all, if that is half of `most` or more, or if all but what is left over were one chunk.
    """
    if count <= most:
        return max(count, 1)
    divisor = _divisor(count, most)
    return divisor if 2 * divisor >= most or count < 2 * most else most


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number up to `most`."""
    return max((d for d in range(1, most + 1) if number and number % d == 0), default=1)


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

    def __init__(self, loop: Loop, given: Mapping[Value, Array]) -> None:
        self._loop, self._given, plan = loop, given, loop.plan
        self._totals = [np.zeros((), n.results[0].dtype.numpy) for n in loop.known]
        whole = int(plan.whole)
        stores = {v: _Store(loop, v, level.size) for level in loop.levels for v in level.stored}
        for found in self._computed(plan.size, range(0, whole, plan.size)):
            for value, array in zip(loop.stored, found, strict=True):
                stores[value].add(array)
        self._whole = {
            v: stores[v].array.reshape([int(d) for d in t.dims]) for v, t in loop.stored_types().items()
        }
        self._rest: list[Array] = []
        if plan.left:
            (self._rest,) = self._computed(plan.left, [whole])
        self._known = [
            np.asarray(total / int(terms(n, {R: whole + plan.left})), total.dtype)
            for n, total in zip(loop.known, self._totals, strict=True)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""
        return sum(a.nbytes for a in (*self._whole.values(), *self._rest, *self._known))

    def whole(self, b: Builder) -> dict[Value, Value]:
        """A constant for each."""
        return dict(zip(self._whole, _constants(b, [*self._whole], [*self._whole.values()]), strict=True))

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

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def whole(self, b: Builder) -> dict[Value, Value]:
        """An input for each."""
        types = self._loop.stored_types()
        return dict(zip(types, _inputs(b, "stored", types.values()), strict=True))

    def rest(self, b: Builder) -> list[Value]:
        """An input for each."""
        return _inputs(b, "rest", (self._loop.type(v, self._loop.plan.left) for v in self._loop.stored))

    def known(self, b: Builder) -> list[Value]:
        """An input for each."""
        return _inputs(b, "known", (n.results[0].tensor for n in self._loop.known))


class _Store:
    """A stored value of all whole chunks, [trips, ...], for a level that takes several of them at a time."""

    def __init__(self, loop: Loop, value: Value, size: int) -> None:
        place, kind = loop.rows.place(value), loop.type(value, size)
        assert place is not None
        self.array = np.empty((int(loop.plan.trips(size)), *map(int, kind.dims)), kind.dtype.numpy)
        self._place, self._each = place, size // loop.plan.size
        self._trip, self._parts = 0, list[Array]()

    def add(self, chunk: Array) -> None:
        self._parts.append(chunk)
        if len(self._parts) == self._each:
            self.array[self._trip] = joined(self._parts, self._place)
            self._trip, self._parts = self._trip + 1, []


def _constants(b: Builder, values: Sequence[Value], arrays: Sequence[Array]) -> list[Value]:
    pairs = zip(values, arrays, strict=True)
    return [b.emit(Constant(Tensor.wrap(a)), origin=v.node.origin, names=(v.name,))[0] for v, a in pairs]


def _inputs(b: Builder, prefix: str, types: Iterable[TensorType]) -> list[Value]:
    named = {f"{prefix}_{i}": kind for i, kind in enumerate(types)}
    return [b.emit(Input(n, "references"), types=(t,), names=(n,))[0] for n, t in named.items()]
