"""Data in numpy's files: rows are read where they stand, nothing is unpickled, and memory stays flat."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from irshap.datasets.base import Source, Wanted, digest_of, sampled_digest, stamp_of
from irshap.errors import UserError
from irshap.runtime.arrays import Array, Arrays, as_arrays
from irshap.runtime.arrays import Source as Given
from irshap.runtime.npy import Header, Unreadable, read_header

__all__ = ["ArrayFiles", "InMemory", "StoredArray"]


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, which isn't compressed there.

    Rows are read with seek and read.  Mapping the file instead would end the process by a signal where
    another one truncates it, and count as this process's memory.

    Attributes:
        path: the file.
        offset: where its numbers begin.
        header: their type, shape and order.
        stamp: size and time of the file, by which a change shows.
    """

    path: Path
    offset: int
    header: Header
    stamp: tuple[int, int]

    @classmethod
    def of(cls, path: Path, start: int = 0) -> StoredArray:
        """The array whose .npy begins at this byte of a file.

        Raises:
            UserError: no such file, another kind of file, one of Python objects, or one that is cut short.
        """
        where = str(path)
        try:
            with path.open("rb") as file:
                file.seek(start)
                header = read_header(file)
                found = cls(path, file.tell(), header, stamp_of(os.fstat(file.fileno())))
        except OSError as error:
            raise UserError(f"can't be read: {error.strerror}", where=where) from None
        except Unreadable as error:
            raise UserError(str(error), where=where, mend="write it with numpy.save") from None
        if not header.shape:
            raise UserError("is a single number, not rows", where=where)
        if start == 0 and found.stamp[0] < found.offset + header.size:
            missing = found.offset + header.size - found.stamp[0]
            raise UserError(f"is cut short: {missing} bytes are missing", where=where, mend="write it again")
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return self.header.shape

    def read(self, start: int, stop: int) -> Array:
        """Some of its rows.

        Raises:
            UserError: the file has gone, or is another one by now.
        """
        rest, count = self.shape[1:], stop - start
        try:
            with self.path.open("rb") as file:
                if stamp_of(os.fstat(file.fileno())) != self.stamp:
                    what = "was changed while it was read"
                    raise UserError(what, where=str(self.path), mend="leave it as it is, and begin anew")
                if not self.header.columns:
                    return self._taken(file, start * prod(rest), count * prod(rest)).reshape(count, *rest)
                found = np.empty((prod(rest), count), self.header.dtype)
                for column in range(len(found)):
                    found[column] = self._taken(file, column * self.shape[0] + start, count)
        except OSError as error:
            raise UserError(f"can't be read: {error.strerror}", where=str(self.path)) from None
        return found.reshape(*rest[::-1], count).T

    def _taken(self, file: IO[bytes], first: int, count: int) -> Array:
        file.seek(self.offset + first * self.header.dtype.itemsize)
        found = np.empty(count, self.header.dtype)
        if file.readinto(found.view(np.uint8).data) != found.nbytes:  # type: ignore[attr-defined]
            raise UserError("is cut short", where=str(self.path), mend="write it again")
        return found


@dataclass
class ArrayFiles(Source):
    """Arrays that stand in files, by input."""

    arrays: dict[str, StoredArray]

    def __post_init__(self) -> None:
        self.rows = _rows({name: array.shape for name, array in self.arrays.items()})
        self.where = str(next(iter(self.arrays.values())).path)

    @classmethod
    def npy(cls, path: Path, wanted: Wanted) -> ArrayFiles:
        """A .npy file, for the only input.

        Raises:
            UserError: the model takes several.
        """
        if wanted.only is None:
            mend = f"write an .npz file with {', '.join(wanted.names)}"
            raise UserError("one array, but the model takes several inputs", where=str(path), mend=mend)
        return cls({wanted.only: StoredArray.of(path)})

    def digest(self) -> str:
        """Of names, types, shapes, and the files."""
        found = sha256()
        for name, array in sorted(self.arrays.items()):
            found.update(f"{name}\0{array.header.dtype}{list(array.shape)}{array.header.columns}".encode())
            found.update(sampled_digest(array.path).encode())
        return found.hexdigest()

    def read(self, start: int, stop: int) -> Arrays:
        """Rows of each."""
        return {name: array.read(start, stop) for name, array in self.arrays.items()}


class InMemory(Source):
    """Arrays in memory, by input."""

    def __init__(self, arrays: Arrays, where: str = "data") -> None:
        self.where = where
        self.rows = _rows({name: array.shape for name, array in arrays.items()})
        self._arrays = arrays

    @classmethod
    def of(cls, given: Given, wanted: Wanted) -> InMemory:
        """Arrays by input, a DataFrame, or one array for the only input."""
        return cls(as_arrays(given, wanted.names, UserError, "data", wanted.features))

    def digest(self) -> str:
        """Of all of them."""
        return digest_of(self._arrays)

    def read(self, start: int, stop: int) -> Arrays:
        """Rows of each."""
        return {name: array[start:stop] for name, array in self._arrays.items()}


def npz(path: Path, wanted: Wanted) -> Source:
    """An .npz file: its arrays are read where they stand, or if they are compressed, all at once.

    Raises:
        UserError: it can't be read, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entries = archive.infolist()
            if any(e.compress_type != zipfile.ZIP_STORED or e.flag_bits & 1 for e in entries):
                return InMemory(as_arrays(path, wanted.names, UserError, "data"), str(path))
            found = {}
            for entry in entries:
                file.seek(entry.header_offset + 26)
                name, more = np.frombuffer(file.read(4), "<u2").tolist()
                place = entry.header_offset + 30 + name + more
                found[entry.filename.removesuffix(".npy")] = StoredArray.of(path, place)
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"is damaged: {error}", where=str(path)) from None
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=str(path)) from None
    if not found:
        raise UserError("has no array", where=str(path))
    if set(found) == {"arr_0"} and wanted.only is not None:  # np.savez(file, array) names it so
        found = {wanted.only: found["arr_0"]}
    return ArrayFiles(found)


def _rows(shapes: dict[str, tuple[int, ...]]) -> int:
    """How many rows all of these have."""
    if flat := [name for name, shape in shapes.items() if not shape]:
        raise UserError(f"{flat[0]!r} is a single number, not rows", where="data")
    counts = {name: shape[0] for name, shape in shapes.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise UserError(f"arrays have different numbers of rows ({listed})", where="data")
    return next(iter(counts.values()), 0)
