"""What data is to whoever explains it: rows by number."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.runtime import Explainer
from irshap.runtime.arrays import Array, Arrays

__all__ = ["Source", "Wanted", "as_rows", "digest_of", "row_count", "sampled_digest", "stamp_of", "writing"]


@dataclass(frozen=True)
class Wanted:
    """What a model takes of each row of data.

    Attributes:
        shapes: by input the shape of one row, None for a free size.
        features: by input the names along the last axis, where they are known.
        optional: inputs that may be left out of the data, since they are given apart from it.
    """

    shapes: Mapping[str, tuple[int | None, ...]]
    features: Mapping[str, Sequence[str]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    @classmethod
    def of(cls, explainer: Explainer, given: Mapping[str, Any]) -> Wanted:
        """What an explained model wants, beside what is `given` by input."""
        return cls(explainer.sample_shapes, explainer.names.features, frozenset(given))

    @property
    def names(self) -> list[str]:
        """The inputs that data must have."""
        return [name for name in self.shapes if name not in self.optional]

    @property
    def only(self) -> str | None:
        """The input that data without names is for; None where there are several."""
        return self.names[0] if len(self.names) == 1 else None


class Source(ABC):
    """Rows of data, by number; another process that unpickles it reads the same.

    Attributes:
        where: what messages call it.
        rows: how many there are; None: it shows at the end.
        sequential: whether rows are best read one after the other, by one thread.
        once: whether each row can be had only once, in order.
    """

    where: str = "data"
    rows: int | None = None
    sequential: bool = False
    once: bool = False

    @abstractmethod
    def digest(self) -> str:
        """A text that other data doesn't have (docs/datasets.md says what it looks at)."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Arrays:
        """Rows by input: arrays [stop - start, ...], or shorter ones at the end of data without a size.

        Raises:
            UserError: they can't be read, or are no arrays.
        """

    def first(self, count: int) -> Arrays:
        """Up to so many of the first rows, which `read` gives all the same."""
        return self.read(0, count if self.rows is None else min(count, self.rows))

    def labels(self, start: int, stop: int) -> list[str] | None:
        """What these rows are called, where they have names (files of a folder)."""
        return None


def digest_of(arrays: Arrays) -> str:
    """The digest of arrays by name: names, types, shapes and every byte."""
    found = sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name}\0{array.dtype}{list(array.shape)}".encode())
        if array.dtype.kind == "O":
            found.update("\0".join(map(str, array.ravel())).encode())
        else:
            found.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data if array.size else b"")
    return found.hexdigest()


BLOCKS, BLOCK = 1024, 1 << 16
"""Of a file of more bytes than these together, so many blocks of so many bytes are looked at."""


def sampled_digest(path: Path) -> str:
    """The digest of a file's size and content: up to 64 MiB all of it, else 1024 blocks with both ends."""
    size = path.stat().st_size
    found = sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= BLOCKS * BLOCK:
            while part := file.read(1 << 20):
                found.update(part)
        else:
            for place in np.linspace(0, size - BLOCK, BLOCKS).astype(np.int64).tolist():
                file.seek(place)
                found.update(file.read(BLOCK))
    return found.hexdigest()


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """By what a change of a file shows: its size and time."""
    return status.st_size, status.st_mtime_ns


def row_count(arrays: Arrays) -> int:
    """How many rows these are."""
    return len(next(iter(arrays.values()))) if arrays else 0


def as_rows(array: Array, shape: tuple[int | None, ...]) -> Array:
    """Rows of numbers as rows of this shape, where only the arrangement differs: [n, 64] as [n, 1, 8, 8]."""
    known = [size for size in shape if size is not None]
    if array.shape[1:] == shape or len(known) < len(shape) or array.ndim > 2:
        return array
    width = array.shape[1] if array.ndim == 2 else 1
    return array.reshape(len(array), *known) if width == np.prod(known, dtype=int) else array


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong while a file is written, as one message.

    Raises:
        UserError: the disk is full, or it can't be written.
    """
    try:
        yield
    except OSError as error:
        what = f"can't be written: {error.strerror or error}"
        mend = "mend that, and run it again: finished shards stay"
        raise UserError(what, where=str(path), mend=mend) from error
