"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from irshap.errors import UserError

__all__ = ["atomic", "write_npz"]


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write that takes its place at `path` when all is written, and else leaves nothing.

    Raises:
        UserError: a device, a pipe or a folder is at `path`, which a file must not replace.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise UserError("is not a regular file", where=os.fspath(path), mend="give the name of a file")
    # a name may be as long as the system allows: the temporary one is no longer
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:50]}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp makes private files; the output gets the rights of any new file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # noqa: PTH101
        os.replace(name, target)  # noqa: PTH105
    except BaseException:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
        raise


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Writes arrays as an .npz file, under any names (`numpy.savez` keeps some), without pickles."""
    import numpy as np

    with atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            plain = array.astype(str) if array.dtype.kind == "O" else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(plain), allow_pickle=False)
