"""Data that Python code makes: an iterator of rows or batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from irshap.contract import ONLY
from irshap.datasets.base import Source, Wanted, row_count
from irshap.errors import UserError
from irshap.runtime.arrays import Arrays, as_arrays
from irshap.runtime.frames import columns_by_input

__all__ = ["Stream"]


class Stream(Source):
    """Rows in the order in which an iterator gives them.

    Args:
        given: each item is a row or a batch of them: an array for the only input, or arrays by input.  An
            array with as many axes as a row is one.
        wanted: what the model takes.
    """

    sequential = once = True

    def __init__(self, given: Iterable[Any], wanted: Wanted) -> None:
        self.where = "the iterator"
        self._items, self._wanted = iter(given), wanted
        # columns of later DataFrames are put in the order of the first one's
        self._called = dict(wanted.features)
        self._next, self._held = 0, list[Arrays]()
        self._kind = list[Arrays]()  # no rows, of the type and shape of those before

    def __reduce__(self) -> Any:
        raise UserError(
            "an iterator can't go to another process", where=self.where, mend="write its rows to files first"
        )

    def digest(self) -> str:
        """Nothing: rows are compared, shard by shard, when a run goes on."""
        return "iterator"

    def read(self, start: int, stop: int) -> Arrays:
        """The next rows, fewer where they end."""
        if start != self._next:
            raise AssertionError(f"row {start} of an iterator that is at {self._next}")
        rows = self.first(stop - start)
        taken = {name: array[: stop - start] for name, array in rows.items()}
        rest = {name: array[stop - start :] for name, array in rows.items()}
        self._held = [rest] if row_count(rest) else []
        self._next += row_count(taken)
        return taken

    def first(self, count: int) -> Arrays:
        """The rows that come next, at least so many where there are."""
        missing = count - sum(row_count(part) for part in self._held)
        while missing > 0 and (part := next(self._parts(), None)) is not None:
            self._held.append(part)
            missing -= row_count(part)
        if not self._held:
            return {}
        _require_alike([*self._kind, *self._held], self._next)
        rows = {name: np.concatenate([part[name] for part in self._held]) for name in self._held[0]}
        self._held, self._kind = [rows], [{name: array[:0] for name, array in rows.items()}]
        return rows

    def _parts(self) -> Iterator[Arrays]:
        """What the iterator gives, as arrays with rows."""
        for item in self._items:
            self._called = {**columns_by_input(item, self._wanted.only or ONLY), **self._called}
            arrays = as_arrays(item, self._wanted.names, UserError, self.where, self._called)
            ranks = {name: len(shape) for name, shape in self._wanted.shapes.items()}
            if all(a.ndim == ranks.get(name) for name, a in arrays.items()):
                arrays = {name: array[None] for name, array in arrays.items()}
            if any(not array.ndim for array in arrays.values()):
                raise UserError("gives single numbers", where=self.where, mend="give rows or batches of them")
            yield arrays


def _kind(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{dtype} {list(shape)}"


def _require_alike(parts: list[Arrays], row: int) -> None:
    """Refuses rows of another kind than those before them, which numpy would convert."""
    first = {name: (array.dtype, array.shape[1:]) for name, array in parts[0].items()}
    for part in parts:
        for name, array in part.items():
            kind = (array.dtype, array.shape[1:])
            if kind != first.get(name):
                before = _kind(*first[name]) if name in first else "not there"
                what = f"{name!r} is {_kind(*kind)} from row {row} on, and was {before}"
                raise UserError(what, where="the iterator", mend="give rows of one type and shape")
            if len(array) != row_count(part):
                what = f"{name!r} has {len(array)} rows from row {row} on, another input {row_count(part)}"
                raise UserError(what, where="the iterator", mend="give as many of each input")
        if part.keys() != first.keys():
            raise UserError(f"row {row} lacks {sorted(first.keys() - part.keys())}", where="the iterator")
        row += row_count(part)
