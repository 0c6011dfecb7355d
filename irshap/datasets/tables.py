"""Data in tables: Parquet and Arrow's files, by the package pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from irshap.datasets.base import Source, Wanted, as_rows, sampled_digest, stamp_of
from irshap.errors import UserError, near
from irshap.extras import optional
from irshap.runtime.arrays import Array, Arrays

__all__ = ["Table", "as_numbers", "column_array", "parquet", "read_columns"]

AT_ONCE = 8192
"""Rows that are decoded at a time."""


def parquet(path: Path) -> Any:
    """pyarrow's module for Parquet.

    Raises:
        UserError: pyarrow is missing, or there is no such file.
    """
    module = optional("pyarrow.parquet", "pyarrow", "parquet", "Parquet", str(path))
    if not path.exists():
        raise UserError("no such file", where=str(path))
    return module


def read_columns(path: Path) -> Arrays:
    """All columns of a Parquet file by name, as `column_array` has them.

    Raises:
        UserError: it can't be read, has lists of different lengths, or pyarrow is missing.
    """
    where, module = str(path), parquet(path)
    with _reading(where):
        table = module.ParquetFile(path).read()
        columns = {name: table.column(name).combine_chunks() for name in table.column_names}
        return {name: column_array(c, f"{where}, column {name!r}") for name, c in columns.items()}


class Table(Source):
    """A Parquet or Arrow file.  Its rows are decoded one after the other, so that memory stays flat."""

    sequential = True

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path, self.where, self._wanted = path, str(path), wanted
        self._stamp = _stamp(path)
        self._open()
        names = self._names()
        self._columns = _places(names, wanted, self.where)

    def _open(self) -> None:
        """Opens the file; no row is decoded yet."""
        self._lock = Lock()
        self._next, self._rest = -1, iter(())
        self._held: Any = None
        with _reading(self.where):
            if self.path.suffix == ".parquet":
                self._file = parquet(self.path).ParquetFile(self.path)
                self.rows = self._file.metadata.num_rows
                groups = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
            else:
                arrow = optional("pyarrow", "pyarrow", "parquet", "Arrow", self.where)
                self._file = arrow.ipc.open_file(arrow.OSFile(self.where))
                groups = [self._file.get_batch(i).num_rows for i in range(self._file.num_record_batches)]
                self.rows = sum(groups)
        self._starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])

    def __getstate__(self) -> dict[str, Any]:
        kept = ("path", "where", "_wanted", "_stamp", "_columns", "rows")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _names(self) -> dict[str, int | None]:
        """The columns, and for those of rows of arrays how long these are (0: unknown)."""
        schema = self._file.schema_arrow if self.path.suffix == ".parquet" else self._file.schema
        lists = optional("pyarrow.types", "pyarrow", "parquet", "Arrow", self.where)
        found: dict[str, int | None] = {}
        for field in schema:
            fixed, free = lists.is_fixed_size_list(field.type), lists.is_list(field.type)
            found[field.name] = field.type.list_size if fixed else 0 if free else None
        return found

    def digest(self) -> str:
        """Of the file."""
        return sampled_digest(self.path)

    def read(self, start: int, stop: int) -> Arrays:
        """These rows; quickest where they follow those that were read before."""
        with self._lock, _reading(self.where):
            if _stamp(self.path) != self._stamp:
                what = "was changed while it was read"
                raise UserError(what, where=self.where, mend="leave it as it is, and begin anew")
            parts = [_arrays(batch, self._columns, self.where) for batch in self._batches(start, stop)]
        if not parts:
            return {name: np.empty((0,)) for name in self._columns}
        rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: as_rows(array, self._wanted.shapes[name]) for name, array in rows.items()}

    def _batches(self, start: int, stop: int) -> Iterator[Any]:
        """Record batches that are these rows together."""
        if start != self._next:
            group = int(np.searchsorted(self._starts, start, "right")) - 1
            self._rest, self._next, self._held = self._from(group), int(self._starts[group]), None
        while self._next < stop:
            held = self._held or next(self._rest, None)
            if held is None:
                raise UserError("has fewer rows than it says", where=self.where)
            here = self._next
            taken = min(held.num_rows, (stop if here >= start else start) - here)
            self._next = here + taken
            self._held = held.slice(taken) if taken < held.num_rows else None
            if here >= start:
                yield held.slice(0, taken)

    def _from(self, group: int) -> Iterator[Any]:
        """Record batches from this row group on."""
        columns = sorted({c for listed in self._columns.values() for c in listed})
        if self.path.suffix == ".parquet":
            groups = range(group, self._file.num_row_groups)
            yield from self._file.iter_batches(AT_ONCE, row_groups=list(groups), columns=columns)
        else:
            for i in range(group, self._file.num_record_batches):
                yield self._file.get_batch(i)


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """What pyarrow raises, as one message: its errors are Python's, with names of its own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"can't be read: {text}", where=where) from error


def _stamp(path: Path) -> tuple[int, int]:
    try:
        return stamp_of(path.stat())
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=str(path)) from None


def _places(columns: Mapping[str, int | None], wanted: Wanted, where: str) -> dict[str, list[str]]:
    """For each input the columns that it is made of.

    An input's own column comes first.  For the only one that has none: the only column of lists, if none is
    called as a feature is; the model's features by name; where these have none, all other columns, if they
    are as many as the input has numbers.

    Raises:
        UserError: it can't be said which columns an input is made of.
    """
    found = {name: [name] for name in wanted.shapes if name in columns}
    missing = [name for name in wanted.names if name not in found]
    if not missing:
        return found
    if len(missing) > 1:
        mend = f"name columns as the inputs: {', '.join(missing)}"
        raise UserError(f"no columns for {', '.join(missing)}", where=where, mend=mend)
    name = missing[0]
    free = {column: size for column, size in columns.items() if column not in found}
    features = wanted.features.get(name, ())
    lists = [column for column, size in free.items() if size is not None]
    if len(lists) == 1 and free.keys().isdisjoint(features):
        return {**found, name: lists}
    if features:
        for feature in features:
            if feature not in free:
                raise UserError(f"no column for feature {feature!r}", where=where, mend=near(feature, free))
        return {**found, name: list(features)}
    shape = wanted.shapes[name]
    numbers = [column for column, size in free.items() if size is None]
    count = None if None in shape else int(np.prod([s for s in shape if s is not None], dtype=int))
    if not numbers or count not in (None, len(numbers)):
        what = f"has {len(numbers)} columns of numbers, and {name!r} takes {count} a row"
        mend = "leave out the others, or compile with names of the features (--names)"
        raise UserError(what, where=where, mend=mend)
    return {**found, name: numbers}


def _arrays(batch: Any, columns: Mapping[str, Sequence[str]], where: str) -> Arrays:
    found = {}
    for name, listed in columns.items():
        if len(listed) == 1:
            found[name] = column_array(batch.column(listed[0]), f"{where}, column {listed[0]!r}")
        else:
            named = [(batch.column(c), f"{where}, column {c!r}") for c in listed]
            parts = [as_numbers(column_array(column, place), place) for column, place in named]
            found[name] = np.stack(parts, axis=1)
    return found


def column_array(column: Any, where: str) -> Array:
    """A column [n], or one of lists of equal length as [n, length]; what is missing in it is NaN.

    Raises:
        UserError: lists of different lengths, or no numbers.
    """
    kind = column.type
    length = getattr(kind, "list_size", None)
    if length is None and not hasattr(kind, "value_field"):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if column.null_count:
        raise UserError(f"{column.null_count} rows are missing", where=where, mend="drop these rows")
    if length is None:
        lengths = set(column.value_lengths().to_pylist())
        if len(lengths) > 1:
            raise UserError("its lists differ in length", where=where)
        length = lengths.pop() if lengths else 0
    inner = column_array(column.flatten(), where)
    return inner.reshape(len(column), length, *inner.shape[1:])


def as_numbers(column: Array, where: str) -> Array:
    """A column [n] of floats as it is, one of integers or truth values as float64; what is missing is NaN.

    Raises:
        UserError: no column of numbers.
    """
    kind = column.dtype.kind
    # of objects: `astype` would take texts that spell numbers, too
    mixed = kind == "O" and all(v is None or isinstance(v, Number) for v in column.flat)
    if column.ndim == 1 and (mixed or kind in "iubf"):
        return column if kind == "f" else column.astype(np.float64)
    what = f"is no column of numbers: {column.dtype}{list(column.shape)}"
    raise UserError(what, where=where, mend="drop it, or encode it as numbers")
