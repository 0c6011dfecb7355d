"""Which kind of data something is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from irshap.datasets.base import Source, Wanted
from irshap.datasets.files import ArrayFiles, InMemory, npz
from irshap.datasets.folders import Folder, Pixels
from irshap.datasets.streams import Stream
from irshap.datasets.tables import Table
from irshap.errors import UserError

__all__ = ["open_source"]

ARROW = (".arrow", ".feather", ".ipc")


def open_source(data: Any, wanted: Wanted, pixels: Pixels | None = None) -> Source:
    """The rows of some data.

    Args:
        data: a path (.npy, .npz, .parquet, .arrow, a folder of .npy or images), arrays in memory (one, a
            mapping, a DataFrame), an iterator of rows or batches, or a `Source`.
        wanted: what the model takes.
        pixels: how images become what it takes.

    Raises:
        UserError: it is nothing of these, can't be read, lacks an input, or has no rows.
    """
    found = _opened(data, wanted, pixels)
    if found.rows == 0:
        raise UserError("there is no row", where=found.where)
    return found


def _opened(data: Any, wanted: Wanted, pixels: Pixels | None) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, (str, os.PathLike)):
        # as it is now: another process may work in another folder
        return _of_path(Path(data).absolute(), wanted, pixels)
    if isinstance(data, Iterator):
        return Stream(data, wanted)
    if (
        isinstance(data, (np.ndarray, Mapping, list, tuple))
        or hasattr(data, "__array__")
        or hasattr(data, "columns")
    ):
        return InMemory.of(data, wanted)
    mend = "give a path, arrays, or an iterator of rows"
    raise UserError(f"{type(data).__name__} is no data", where="data", mend=mend)


def _of_path(path: Path, wanted: Wanted, pixels: Pixels | None) -> Source:
    if not path.exists():
        raise UserError("no such file", where=str(path))
    if path.is_dir():
        return Folder(path, wanted, pixels)
    kind = path.suffix.lower()
    if kind == ".npy":
        return ArrayFiles.npy(path, wanted)
    if kind == ".npz":
        return npz(path, wanted)
    if kind == ".parquet" or kind in ARROW:
        return Table(path, wanted)
    mend = f"give .npy, .npz, .parquet, {', '.join(ARROW)} or a folder"
    raise UserError("its name tells no kind of data", where=str(path), mend=mend)
