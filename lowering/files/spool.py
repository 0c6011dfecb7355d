"""Arrays too large to be held in memory: written to a temporary file piece by piece, and mapped from it."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.ir.types import Array

__all__ = ["Region", "Spool"]

_ALIGNED = 4096
"""Arrays begin at pages."""


class Spool:
    """A temporary file of arrays: each has a region, which is written from its beginning to its end.

    It lies in the folder for temporary files (TMPDIR), and has no name there (on POSIX systems; on Windows it
    goes with the last who has it open): however the process ends, nothing stays behind.  All arrays share the
    file, since a process may have so many open.  A full disk is a UserError; it would end the process if
    memory were mapped first and then written.
    """

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="irshap-")  # noqa: SIM115
        except OSError as error:
            raise _unwritable(error, tempfile.tempdir) from error
        self._size = 0
        self._mapping: mmap.mmap | None = None

    def region(self, nbytes: int) -> Region:
        """Room for an array of so many bytes; all are asked for before the first one is read."""
        if self._mapping is not None:
            raise ValueError("a spool that is read has no more room")
        start = -(-self._size // _ALIGNED) * _ALIGNED
        self._size = start + nbytes
        return Region(self, start)

    def write(self, at: int, data: Any) -> None:
        """Writes bytes at a place of the file."""
        try:
            self._file.seek(at)
            self._file.write(data)
        except OSError as error:
            raise _unwritable(error, tempfile.gettempdir()) from error

    @property
    def mapping(self) -> mmap.mmap:
        """The whole file, in memory as far as it is read; what is written later is seen in it, too."""
        if self._mapping is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                raise _unwritable(error, tempfile.gettempdir()) from error
            self._mapping = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ)
        self._file.flush()
        return self._mapping


class Region:
    """The place of one array in a spool."""

    def __init__(self, spool: Spool, start: int) -> None:
        self._spool, self._start, self._end = spool, start, start

    def append(self, array: Array | bytes | memoryview) -> None:
        """Writes the elements of an array, or bytes, behind those before."""
        data = (
            np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            if isinstance(array, np.ndarray)
            else array
        )
        self._spool.write(self._end, data)
        self._end += len(data)

    def array(self, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
        """All that was written, read-only; it holds the file."""
        count = prod(shape)
        if not count:
            return np.empty(shape, dtype)
        return np.frombuffer(self._spool.mapping, dtype, count, self._start).reshape(shape)


def _unwritable(error: OSError, folder: str | None) -> UserError:
    return UserError(
        f"what is stored of the references, or weights, can't be written: {error.strerror}",
        where=str(folder or "the folder for temporary files"),
        mend="make room there, or name another folder by TMPDIR",
    )
