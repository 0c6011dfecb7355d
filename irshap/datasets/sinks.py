"""Where explained rows go: shards of Parquet, or one .npy file a column."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from irshap.datasets.base import writing
from irshap.datasets.tables import column_array
from irshap.errors import UserError, near
from irshap.extras import optional
from irshap.files import atomic, sync, sync_folder
from irshap.runtime.arrays import Arrays

__all__ = ["SINKS", "NpySink", "ParquetSink", "Sink", "open_sink"]

Files = dict[str, dict[str, Any]]
"""What a shard wrote: by the name of a file its digest, and how many bytes, there and from where on."""

Unwritten = tuple[int, int, Arrays, "Sequence[str] | None"]
"""A shard: its number, its first row, its columns, what its rows are called."""


class Sink(ABC):
    """A folder of results; another process that unpickles it writes to the same.

    What `write` returns is on the disk, and equal for equal columns.
    """

    kind: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def options(self) -> dict[str, Any]:
        """What the manifest keeps of it."""
        return {"format": self.kind}

    @abstractmethod
    def write(self, shards: Sequence[Unwritten]) -> list[Files]:
        """Writes shards, each wholly or not at all.

        All are written before the first file is synced, and the folder is synced once for all of them: file
        systems with a journal take little more time for several than for one.

        Raises:
            UserError: the disk is full, or the folder can't be written.
        """

    @abstractmethod
    def read(self, record: Mapping[str, Any]) -> Arrays:
        """The columns that a shard wrote."""

    @abstractmethod
    def stored(self, name: str, told: Mapping[str, Any]) -> bytes:
        """What a file holds of a shard; fewer bytes where it is cut short or gone."""

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether a shard is there, by its size."""
        return all(self.bytes_there(name, told) for name, told in record["files"].items())

    @abstractmethod
    def bytes_there(self, name: str, told: Mapping[str, Any]) -> bool:
        """Whether a file has as many bytes as a shard wrote."""

    def damaged(self, record: Mapping[str, Any]) -> list[str]:
        """The files of a shard that aren't as they were written."""
        files = record["files"].items()
        return [name for name, told in files if sha256(self.stored(name, told)).hexdigest() != told["sha256"]]

    def finish(self, rows: int, columns: Mapping[str, Any]) -> None:
        """Called when all shards are there; again, where a process ended before it had told so."""
        return


class ParquetSink(Sink):
    """A Parquet file for each shard.

    Args:
        features: by column the names of its numbers, where each gets a column of its own; others are lists of
            fixed size, in row-major order, with the shape of a row in the metadata of the field.
    """

    kind = "parquet"

    def __init__(self, folder: Path, features: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(folder)
        self.features = dict(features or {})
        optional("pyarrow.parquet", "pyarrow", "parquet", "Parquet", str(folder))

    def options(self) -> dict[str, Any]:
        """Also which columns are spread out, and how their numbers are called."""
        return {**super().options(), "columns": {name: list(f) for name, f in self.features.items()}}

    def write(self, shards: Sequence[Unwritten]) -> list[Files]:
        """Files under other names, which get theirs when the disk has all of them."""
        found = list[Files]()
        with writing(self.folder):
            with ExitStack() as stack:
                opened = []
                for shard, start, columns, labels in shards:
                    path = self.folder / f"part-{shard:06d}.parquet"
                    content = self._content(start, columns, labels)
                    with writing(path):
                        file = stack.enter_context(atomic(path))
                        file.write(content)
                    opened.append((path, file))
                    found.append({path.name: {"bytes": len(content), "sha256": sha256(content).hexdigest()}})
                for path, file in opened:
                    with writing(path):
                        sync(file)
            sync_folder(self.folder)
        return found

    def _content(self, start: int, columns: Arrays, labels: Sequence[str] | None) -> memoryview:
        """A file, made in memory, so that its digest is that of what was meant to be written."""
        arrow = optional("pyarrow", "pyarrow", "parquet", "Parquet")
        parquet = optional("pyarrow.parquet", "pyarrow", "parquet", "Parquet")
        count = len(next(iter(columns.values())))
        fields = [arrow.field("row", arrow.int64(), nullable=False)]
        arrays = [arrow.array(np.arange(start, start + count))]
        if labels is not None:
            fields.append(arrow.field("name", arrow.string()))
            arrays.append(arrow.array(labels))
        for name, array in columns.items():
            if spread := self.features.get(name):
                parts = zip(spread, array.reshape(count, -1).T, strict=True)
                named = [(label, arrow.array(np.ascontiguousarray(part))) for label, part in parts]
                fields += [arrow.field(label, part.type) for label, part in named]
                arrays += [part for _, part in named]
                continue
            made = arrow.array(array.reshape(-1))
            told = None
            if array.ndim > 1:
                made = arrow.FixedSizeListArray.from_arrays(made, array[0].size)
                told = {"shape": ",".join(map(str, array.shape[1:]))}
            fields.append(arrow.field(name, made.type, metadata=told))
            arrays.append(made)
        table = arrow.Table.from_arrays(arrays, schema=arrow.schema(fields))
        buffer = arrow.BufferOutputStream()
        # numbers that hardly repeat: a dictionary costs time, and saves nothing
        parquet.write_table(table, buffer, use_dictionary=False, write_statistics=["row"], compression="none")
        return memoryview(buffer.getvalue())

    def stored(self, name: str, told: Mapping[str, Any]) -> bytes:
        """The whole file."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else b""

    def bytes_there(self, name: str, told: Mapping[str, Any]) -> bool:
        """Whether the file has its size."""
        path = self.folder / name
        return path.is_file() and path.stat().st_size == told["bytes"]

    def read(self, record: Mapping[str, Any]) -> Arrays:
        """The columns, in their shapes."""
        parquet = optional("pyarrow.parquet", "pyarrow", "parquet", "Parquet")
        (name,) = record["files"]
        table = parquet.ParquetFile(self.folder / name).read()
        count, found = record["stop"] - record["start"], Arrays()
        for column, (_, shape) in record["columns"].items():
            if spread := self.features.get(column):
                parts = [column_array(table.column(label).combine_chunks(), label) for label in spread]
                found[column] = np.stack(parts, axis=1).reshape(count, *shape)
            else:
                whole = column_array(table.column(column).combine_chunks(), column)
                found[column] = whole.reshape(count, *shape)
        return found


class NpySink(Sink):
    """A .npy file for each column, which every shard writes its rows into.

    It is called `<column>.npy.part` until all rows are there.
    """

    kind = "npy"
    HEAD = 256
    """Bytes in front of the numbers: a header of any shape fits, and is written at the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._noted: frozenset[str] = frozenset()
        """The files whose names the disk has, as far as this process knows."""

    def write(self, shards: Sequence[Unwritten]) -> list[Files]:
        """The rows of each column, in their places; each file is synced once for all shards."""
        told = [self._put(start, columns) for _, start, columns, _ in shards]
        names = {name for found in told for name in found}
        for path in map(self._there, sorted(names)):
            with writing(path), path.open("r+b") as file:
                sync(file)
        if not self._noted.issuperset(names):
            with writing(self.folder):
                sync_folder(self.folder)
            self._noted |= names
        return told

    def _put(self, start: int, columns: Arrays) -> Files:
        """Rows in their places, which the disk may not have yet."""
        found: Files = {}
        for name, array in columns.items():
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            place = self.HEAD + start * (len(content) // max(1, len(array)))
            path = self._there(self.file_of(name))
            with writing(path):
                path.touch()
                with path.open("r+b") as file:
                    file.seek(place)
                    file.write(content)
            told = {"bytes": len(content), "at": place, "sha256": sha256(content).hexdigest()}
            found[self.file_of(name)] = told
        return found

    def stored(self, name: str, told: Mapping[str, Any]) -> bytes:
        """The shard's part of the file."""
        path = self._there(name)
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            file.seek(told["at"])
            return file.read(told["bytes"])

    def bytes_there(self, name: str, told: Mapping[str, Any]) -> bool:
        """Whether the file goes as far."""
        path = self._there(name)
        return path.is_file() and path.stat().st_size >= told["at"] + told["bytes"]

    def read(self, record: Mapping[str, Any]) -> Arrays:
        """The columns, in their shapes."""
        found = {}
        for name, (dtype, shape) in record["columns"].items():
            told = record["files"][self.file_of(name)]
            content = self.stored(self.file_of(name), told)
            found[name] = np.frombuffer(content, dtype).reshape(record["stop"] - record["start"], *shape)
        return found

    def finish(self, rows: int, columns: Mapping[str, Any]) -> None:
        """Headers, then names."""
        for column, (dtype, shape) in columns.items():
            name = self.file_of(column)
            path = self._part(name)
            if not path.exists():
                continue
            with writing(path):
                with path.open("r+b") as file:
                    file.write(_head(dtype, (rows, *shape), self.HEAD))
                    sync(file)
                path.replace(self.folder / name)
        with writing(self.folder):
            sync_folder(self.folder)

    @staticmethod
    def file_of(column: str) -> str:
        """The file of a column: names of tensors may hold what names of files can't."""
        safe = re.sub(r"[^\w.-]", "_", column)[:100]
        return f"{safe}.npy" if safe == column else f"{safe}-{sha256(column.encode()).hexdigest()[:8]}.npy"

    def _part(self, name: str) -> Path:
        return self.folder / f"{name}.part"

    def _there(self, name: str) -> Path:
        """Where a file is: under its own name when all rows are, or were once, there."""
        whole = self.folder / name
        return whole if whole.exists() else self._part(name)


def _head(dtype: str, shape: tuple[int, ...], size: int) -> bytes:
    """A .npy header of so many bytes."""
    told = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    text = repr(told).encode("latin1")
    magic = np.lib.format.magic(1, 0) + (size - 10).to_bytes(2, "little")
    return magic + text.ljust(size - len(magic) - 1) + b"\n"


SINKS = ("parquet", "npy")


def open_sink(kind: str, folder: Path, features: Mapping[str, Sequence[str]] | None = None) -> Sink:
    """A sink of this kind.

    Args:
        features: by column, names of its numbers, where these shall be columns of their own.

    Raises:
        UserError: no such kind, or a package is missing.
    """
    if kind == "parquet":
        return ParquetSink(folder, features)
    if kind == "npy":
        if features:
            raise UserError("columns for features are for Parquet", mend="leave them out: rows are features")
        return NpySink(folder)
    raise UserError(f"no results are written as {kind!r}", mend=near(kind, SINKS))
