"""Files that are written whole or not at all."""

from __future__ import annotations

import mmap
import os
import re
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from irshap.errors import UserError

__all__ = ["TEMPORARY", "atomic", "data_file", "own_data", "size_on_disk", "sync", "sync_folder", "write_npz"]

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


def own_data(path: str | os.PathLike[str]) -> list[Path]:
    """The data files beside `path` that belong to a model of that name: it refers to one of them, or to none.

    They are called `<path>.<16 digits of their content's SHA-256>.data`.
    """
    target = Path(path)
    pattern = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.data")
    if not target.parent.is_dir():
        return []
    return sorted(p for p in target.parent.iterdir() if pattern.fullmatch(p.name) and p.is_file())


def data_file(path: str | os.PathLike[str]) -> Path | None:
    """The file with the data of an ONNX file that `CompiledModel.save` wrote; None where it has none.

    What an earlier output left is none of it: the model says in which file its data is.  That is looked for
    as protobuf writes it, since parsing would take as much memory as the model.
    """
    target = Path(path)
    if not target.stat().st_size:
        return None
    with target.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # the entry {1: "location", 2: name} of a tensor's external_data; a name's length has 7 bits a byte
        for found in re.finditer(rb"\n\x08location\x12(?:([\x80-\xff])([\x01-\x7f])|([\x01-\x7f]))", content):
            low, high, length = (ord(g) if g else 0 for g in found.groups())
            name = content[found.end() : found.end() + (length or low & 127 | high << 7)]
            data = target.with_name(name.decode("utf-8", "replace").replace("/", "\0"))
            with suppress(ValueError, OSError):  # a zero byte, or longer than a name can be
                if data.is_file():
                    return data
    return None


def size_on_disk(path: str | os.PathLike[str]) -> int:
    """The bytes of an ONNX file that `CompiledModel.save` wrote, with its data file where it has one."""
    data = data_file(path)
    return Path(path).stat().st_size + (data.stat().st_size if data is not None else 0)
