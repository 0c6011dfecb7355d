"""Arrays too large to be held in memory: written to a temporary file piece by piece, and mapped from it."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto

from irshap.errors import UserError
from irshap.ir.types import Array
from irshap.lowering.files.protos import OUTLINE_OVER

__all__ = ["Spool", "copy_data", "place_of", "refer", "resident", "spooled_file"]

_PIECE = 16 * 2**20

_LIVE: weakref.WeakValueDictionary[str, _Mapping] = weakref.WeakValueDictionary()


class _Mapping(mmap.mmap):
    """A file in memory as far as it is read; gone with the last array in it."""

    path: Path


class Spool:
    """A file of one array, written from its beginning to its end.

    It lies in the folder for temporary files (TMPDIR).  A full disk is a UserError; it would end the process
    if memory were mapped first and then written.
    """

    def __init__(self) -> None:
        try:
            handle, name = tempfile.mkstemp(prefix="irshap-")
        except OSError as error:
            raise _unwritable(error, tempfile.tempdir) from error
        self._path, self._file = Path(name), os.fdopen(handle, "w+b")
        self._remove = weakref.finalize(self, _remove, self._path, os.getpid())

    def append(self, array: Array) -> None:
        """Writes the elements of an array behind those before."""
        try:
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise _unwritable(error, self._path.parent) from error

    def array(self, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
        """All that was written, read-only."""
        self._file.flush()
        mapping = _Mapping(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._file.close()
        mapping.path = self._path
        self._remove.detach()
        weakref.finalize(mapping, _remove, self._path, os.getpid())
        _LIVE[str(self._path)] = mapping
        return np.frombuffer(mapping, dtype).reshape(shape)


def _unwritable(error: OSError, folder: str | Path | None) -> UserError:
    return UserError(
        f"what is stored of the references can't be written: {error.strerror}",
        where=str(folder or "the folder for temporary files"),
        mend="make room there, or name another folder by TMPDIR",
    )


def _remove(path: Path, owner: int) -> None:
    """Removes the file of a process; one that was forked from it leaves it there."""
    if os.getpid() == owner:
        path.unlink(missing_ok=True)


def place_of(array: Array) -> tuple[Path, int] | None:
    """The file that an array is mapped from, and where in it, if a `Spool` wrote all of it."""
    owner: Any = array
    while isinstance(owner, np.ndarray | memoryview):
        owner = owner.base if isinstance(owner, np.ndarray) else owner.obj
    if not isinstance(owner, _Mapping) or not array.flags.c_contiguous:
        return None
    start = np.frombuffer(owner, np.uint8).ctypes.data
    return owner.path, array.ctypes.data - start


def refer(tensor: TensorProto, array: Array) -> bool:
    """Makes `tensor`'s data that of an array in a spool, without a copy; False if it is in none, or small."""
    place = place_of(array) if array.nbytes > OUTLINE_OVER else None
    if place is None:
        return False
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": str(place[0]), "offset": str(place[1]), "length": str(array.nbytes)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return True


def spooled_file(tensor: TensorProto) -> tuple[Path, int, int] | None:
    """File, offset and length of a tensor's data in a spool of this process; None where it isn't in one."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    entries = {e.key: e.value for e in tensor.external_data}
    if entries.get("location") not in _LIVE:
        return None
    return Path(entries["location"]), int(entries["offset"]), int(entries["length"])


def copy_data(tensor: TensorProto, target: BinaryIO) -> None:
    """Writes a tensor's raw data to a file; from a spool, piece by piece."""
    place = spooled_file(tensor)
    if place is None:
        target.write(tensor.raw_data)
        return
    file, offset, left = place
    if not file.exists():  # who tidied up left the mapping
        target.write(memoryview(_LIVE[str(file)])[offset : offset + left])
        return
    with file.open("rb") as source:
        source.seek(offset)
        while left and (piece := source.read(min(left, _PIECE))):
            left -= target.write(piece)


def resident(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with all its data in memory: itself, or a copy where some is in a spool."""
    if not any(map(spooled_file, model.graph.initializer)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if spooled_file(tensor):
            data = BytesIO()
            copy_data(tensor, data)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = data.getvalue()
    return copy
