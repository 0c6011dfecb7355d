"""numpy's files, whoever wrote them: no pickle, and no more memory than the file can fill."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = ["Header", "Unreadable", "read_header", "read_npy"]

_ARRAY, _ARCHIVE = b"\x93NUMPY", b"PK\x03\x04"
_EXPANDS = 1100
"""Deflate makes at most 1032 bytes of one."""


class Unreadable(ValueError):
    """What is wrong with a file, and how to mend it."""

    def __init__(self, what: str, mend: str | None = None) -> None:
        super().__init__(what)
        self.mend = mend


@dataclass(frozen=True)
class Header:
    """What a .npy says of its array.

    Attributes:
        columns: whether numbers stand column by column (Fortran's order).
    """

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    columns: bool

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return prod(self.shape) * int(self.dtype.itemsize)


def read_npy(path: Path) -> Any:
    """The array of a .npy file, or those of an .npz file by name.

    Raises:
        Unreadable: it is neither, damaged, or holds Python objects, which are never loaded; or arrays that
            the machine's memory has no room for.
        OSError: it can't be read.
        MemoryError: it is as large as it says, and too large.
    """
    with path.open("rb") as file:
        magic = file.read(len(_ARRAY))
        file.seek(0)
        if magic.startswith(_ARRAY):
            return _array(file, os.fstat(file.fileno()).st_size)
        if not magic.startswith(_ARCHIVE):
            mend = "write it with numpy.save or numpy.savez"
            raise Unreadable("is neither .npy nor .npz", mend)
        try:
            return _arrays(file)
        except (Unreadable, OSError, MemoryError):
            raise
        except Exception as error:  # zipfile's, zlib's, and what else breaks on the way
            raise _damaged(error) from error


def _arrays(file: IO[bytes]) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        room, wanted = _memory(), sum(entry.file_size for entry in entries)
        for entry in entries:
            squeezed = entry.compress_type == zipfile.ZIP_DEFLATED
            if entry.file_size > (_EXPANDS if squeezed else room) * (entry.compress_size + 1):
                held = f"{entry.compress_size} bytes can't be {entry.file_size}"
                raise Unreadable(f"is damaged: {entry.filename!r}: {held}")
        if wanted > room:
            raise Unreadable(f"holds {wanted / 2**30:.1f} GiB, more than the memory of this machine")
        found = {}
        for entry in entries:
            with archive.open(entry) as stream:
                found[entry.filename.removesuffix(".npy")] = _array(stream, entry.file_size)
        return found


def _array(stream: IO[bytes], size: int) -> Any:
    """The array in a stream of `size` bytes, which may say that it has more."""
    needed = read_header(stream).size
    if needed > (held := size - stream.tell()):
        raise Unreadable(f"is damaged: its header tells of {needed} bytes, and {held} follow")
    stream.seek(0)
    try:
        return np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise _damaged(error) from error


def read_header(stream: IO[bytes]) -> Header:
    """The header of the .npy that begins here; the array's numbers follow.

    Raises:
        Unreadable: it is damaged, or tells of Python objects.
        OSError: it can't be read.
    """
    formats = np.lib.format
    try:
        version = formats.read_magic(stream)
        # the third differs in how names of fields are encoded
        read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
        shape, columns, dtype = read(stream)
        if any(isinstance(d, bool) or d < 0 for d in shape):
            raise ValueError(f"an array of shape {shape}")
    except OSError:
        raise
    except Exception as error:  # the header is read as Python; a parser that overflows says MemoryError
        raise _damaged(error) from error
    if dtype.hasobject:
        raise Unreadable("holds Python objects, which are never loaded")
    return Header(dtype, shape, columns)


def _damaged(error: Exception) -> Unreadable:
    lines = str(error).splitlines()
    return Unreadable(f"is damaged: {lines[0][:200] if lines else 'cut short'}")


def _memory() -> int:
    """The bytes of the machine's memory; where nothing tells them, more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**62
