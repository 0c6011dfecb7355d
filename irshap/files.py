"""Files that are written whole or not at all."""

from __future__ import annotations

import mmap
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from irshap.errors import UserError

__all__ = ["TEMPORARY", "atomic", "size_on_disk", "sync", "sync_folder", "write_npz"]

TEMPORARY = ".irshap-"
"""How names begin that a process which was killed may leave behind."""


@contextmanager
def atomic(path: str | os.PathLike[str], *, synced: bool = False) -> Iterator[IO[bytes]]:
    """A file to write that takes its place at `path` when all is written, and else leaves nothing.

    Args:
        synced: whether it is on the disk when this ends, so that a loss of power leaves it whole, too.

    Raises:
        UserError: a device, a pipe or a folder is at `path`, which a file must not replace.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise UserError("is not a regular file", where=os.fspath(path), mend="give the name of a file")
    # a name may be as long as the system allows: the temporary one is no longer
    temporary = target.with_name(f"{TEMPORARY}{target.name[:50]}-{secrets.token_hex(8)}")
    try:
        # with the rights of any new file; to ask for the umask, one must set it for all threads
        with temporary.open("xb") as file:
            yield file
            if synced:
                sync(file)
        temporary.replace(target)
        if synced:
            sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def sync(file: IO[bytes]) -> None:
    """Has the disk keep what was written to a file."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Has the disk keep which files are in a folder, where the system can say so of folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes arrays as an .npz file, under any names (`numpy.savez` keeps some), without pickles."""
    import numpy as np

    with atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            plain = array.astype(str) if array.dtype.kind == "O" else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(plain), allow_pickle=False)


def size_on_disk(path: str | os.PathLike[str]) -> int:
    """The bytes of an ONNX file that `CompiledModel.save` wrote, with its data file where it has one.

    A file of that name which an earlier output left is none of it: the model says in which file its data is.
    That is looked for as protobuf writes it, since parsing would take as much memory as the model.
    """
    data = Path(f"{os.fspath(path)}.data")
    size = Path(path).stat().st_size
    if not (size and data.is_file()):
        return size
    name = data.name.encode()
    # the entry {1: "location", 2: name} of a tensor's external_data; a name's length has 7 bits a byte
    length = bytes([len(name)] if len(name) < 128 else [len(name) & 127 | 128, len(name) >> 7])
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        refers = content.find(b"\n\x08location\x12" + length + name) >= 0
    return size + (data.stat().st_size if refers else 0)
