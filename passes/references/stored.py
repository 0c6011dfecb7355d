"""What a loop over references reads: computed while compiling and stored, or still to come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from irshap.errors import UserError
from irshap.ir.builder import Builder
from irshap.ir.core import Precision, Value
from irshap.ir.dims import Dim, R, product, same
from irshap.ir.types import Array, DType, Tensor, TensorType
from irshap.ir.walks import ancestors, is_float
from irshap.lowering.files.spool import Spool
from irshap.ops.apart import Odd
from irshap.ops.program import Constant, new_input
from irshap.ops.shape import Reshape
from irshap.passes.references.axes import ReferenceAxis
from irshap.passes.references.fixed import FixedProgram
from irshap.passes.references.loop import Loop
from irshap.passes.references.partition import sum_of, terms

__all__ = ["Storage", "Stored", "StoredArrays", "StoredInputs", "stored_type"]


_SPOOLED = 256 * 2**20
"""Bytes from which on what is stored goes to a file as it is computed."""


class Stored(Protocol):
    """Where the stored values of a loop come from."""

    def whole(self, b: Builder) -> dict[Value, Value]:
        """Emits each stored value of all whole chunks, as `Storage.types` has them."""

    def rest(self, b: Builder) -> list[Value]:
        """Emits each stored value of the references left over."""

    def known(self, b: Builder) -> list[Value]:
        """Emits the sums and means over references that don't depend on samples."""


@dataclass(frozen=True, eq=False)
class Storage:
    """How the values that come into a loop are stored; `half`: floats rounded to float16."""

    loop: Loop
    half: bool

    def type(self, value: Value, count: Dim) -> TensorType:
        """How a value is stored for this many references."""
        return stored_type(value, count, half=self.half)

    def types(self) -> dict[Value, TensorType]:
        """How each value of all whole chunks is stored: [trips of the levels that are loops, ...]."""
        found = dict[Value, TensorType]()
        lead = list[Dim]()
        for i, level in enumerate(self.loop.levels):
            if not self.loop.runs_once(i):
                lead.append(self.loop.trips(i))
            for value in level.stored:
                kind = self.type(value, level.size)
                found[value] = kind.with_shape((*lead, *kind.dims))
        return found


def stored_type(value: Value, count: Dim, *, half: bool) -> TensorType:
    """How a value is stored for this many references: positions in 32 bits, floats in 16 if `half`."""
    kind = value.tensor.substitute({R: count})
    if _is_position(value):
        return kind.with_dtype(DType.I32)
    rounded = half and is_float(value) and not _is_moved(value) and not _is_exact(value)
    return kind.with_dtype(DType.F16) if rounded else kind


class StoredArrays:
    """Stored values, computed from the references while compiling: no more than one chunk at a time."""

    def __init__(self, storage: Storage, given: Mapping[Value, Array]) -> None:
        self._storage, self._given = storage, given
        loop, parts, plan = storage.loop, storage.loop.parts, storage.loop.plan
        self._totals = [np.zeros((), n.results[0].dtype.numpy) for n in parts.known]
        whole = int(plan.whole)
        types = storage.types()
        spool = Spool() if sum(int(t.nbytes) for t in types.values()) > _SPOOLED else None
        stores = {
            v: _Store(storage, v, level.size, types[v], spool) for level in loop.levels for v in level.stored
        }
        for chunk in self._chunks(plan.size, range(0, whole, plan.size)):
            for value in parts.stored:
                # nothing of a chunk is left when the next one is computed
                stores[value].add(chunk.pop(value))
        self._whole = {v: store.array() for v, store in stores.items()}
        self._rest: list[Array] = []
        if plan.left:
            (self._rest,) = (list(chunk.values()) for chunk in self._chunks(plan.left, [whole]))
        self._known = [
            np.asarray(total / int(terms(n, {R: whole + plan.left})), total.dtype)
            for n, total in zip(parts.known, self._totals, strict=True)
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
        return _constants(b, self._storage.loop.parts.stored, self._rest)

    def known(self, b: Builder) -> list[Value]:
        """A constant for each."""
        return _constants(b, [n.results[0] for n in self._storage.loop.parts.known], self._known)

    def _chunks(self, size: int, starts: Sequence[int]) -> Iterator[dict[Value, Array]]:
        """The stored values for `size` references from each start on; known sums add up on the way."""
        parts = self._storage.loop.parts
        if not starts:
            return
        program = FixedProgram(parts.graph, parts.computed, {R: size})
        for start in starts:
            rows = {v: self._rows(v, slice(start, start + size)) for v in self._given}
            yield self._chunk(program(rows), size)
        program.close()

    def _chunk(self, found: Sequence[Array], size: int) -> dict[Value, Array]:
        parts = self._storage.loop.parts
        for i, node in enumerate(parts.known):
            (total,) = sum_of(node).evaluate(found[len(parts.stored) + i])
            self._totals[i] = self._totals[i] + total
        return {v: self._rounded(v, a, size) for v, a in zip(parts.stored, found, strict=False)}

    def _rows(self, value: Value, rows: slice) -> Array:
        along = self._storage.loop.parts.axes.axis(value)
        assert along is not None
        return self._given[value][(slice(None),) * along.axis + (rows,)]

    def _rounded(self, value: Value, array: Array, count: int) -> Array:
        dtype = self._storage.type(value, count).dtype.numpy
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


class StoredInputs:
    """Stored values as inputs: the program with the number of references still a symbol, to tell its cost."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def whole(self, b: Builder) -> dict[Value, Value]:
        """An input for each."""
        types = self._storage.types()
        return dict(zip(types, _inputs(b, "stored", types.values()), strict=True))

    def rest(self, b: Builder) -> list[Value]:
        """An input for each."""
        loop = self._storage.loop
        types = (self._storage.type(v, loop.plan.left) for v in loop.parts.stored)
        return _inputs(b, "rest", types)

    def known(self, b: Builder) -> list[Value]:
        """An input for each."""
        return _inputs(b, "known", (n.results[0].tensor for n in self._storage.loop.parts.known))


class _Store:
    """A stored value of all whole chunks, [trips, ...], for a level that takes several of them at a time.

    In memory, or with a `spool` written to a file as it is computed.
    """

    def __init__(
        self, storage: Storage, value: Value, size: int, kind: TensorType, spool: Spool | None
    ) -> None:
        along = storage.loop.parts.axes.axis(value)
        assert along is not None
        self._along, self._each, self._kind = along, size // storage.loop.plan.size, kind
        self._chunks, self._trips = list[Array](), list[Array]()
        self._region = None if spool is None else spool.region(int(kind.nbytes))
        before = storage.type(value, 1).dims[: along.axis]
        self._apart = self._each > 1 and not same(product((*before, along.outer)), 1)

    def add(self, chunk: Array) -> None:
        if self._region is not None and not self._apart:
            self._region.append(chunk)  # one reference behind another, as they are stored
            return
        # what is kept is copied out of the block that all values of a chunk stand in
        self._chunks.append(chunk.copy())
        if len(self._chunks) < self._each:
            return
        trip = _joined(self._chunks, self._along)
        self._chunks = []
        if self._region is None:
            self._trips.append(trip)
        else:
            self._region.append(trip)

    def array(self) -> Array:
        """All that was added."""
        dtype, shape = self._kind.dtype.numpy, [int(d) for d in self._kind.dims]
        if self._region is not None:
            return self._region.array(dtype, shape)
        trips, self._trips = self._trips, []
        return np.concatenate([t.reshape(-1) for t in trips] or [np.empty(0, dtype)]).reshape(shape)


def _joined(arrays: Sequence[Array], along: ReferenceAxis) -> Array:
    """One array of the references of several, one after another."""
    if len(arrays) == 1:
        return arrays[0]
    outer = int(along.outer)
    split = [a.reshape(*a.shape[: along.axis], outer, -1, *a.shape[along.axis + 1 :]) for a in arrays]
    whole = np.concatenate(split, axis=along.axis + 1)
    return whole.reshape(*arrays[0].shape[: along.axis], -1, *arrays[0].shape[along.axis + 1 :])


def _constants(b: Builder, values: Sequence[Value], arrays: Sequence[Array]) -> list[Value]:
    pairs = zip(values, arrays, strict=True)
    return [b.emit(Constant(Tensor.wrap(a)), origin=v.node.origin, names=(v.name,))[0] for v, a in pairs]


def _inputs(b: Builder, prefix: str, types: Iterable[TensorType]) -> list[Value]:
    named = {f"{prefix}_{i}": kind for i, kind in enumerate(types)}
    return [new_input(n, t, "references", builder=b) for n, t in named.items()]


def _is_moved(value: Value) -> bool:
    """Whether a value is the references themselves, in another shape: these are never rounded."""
    return all(v.node.op.precision is Precision.DATA for v in ancestors([value]))


def _is_exact(value: Value) -> bool:
    """Whether a value is kept apart from others by its last digit, or follows from such a one."""
    return any(isinstance(v.node.op, Odd) for v in ancestors([value]))


def _is_position(value: Value) -> bool:
    """Whether a value is positions in a tensor that 32 bits count, maybe in another shape."""
    while isinstance(value.node.op, Reshape):
        value = value.node.operands[0]
    node = value.node
    if node.results.index(value) not in node.op.positions:
        return False
    size = product(node.operands[0].shape[1:])
    return isinstance(size, int) and size < 2**31
