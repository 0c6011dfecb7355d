"""What stands in a folder of results: of which run they are, and which shards are finished."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from irshap.datasets.base import writing
from irshap.errors import UserError
from irshap.files import TEMPORARY, atomic, sync

if sys.platform != "win32":
    import fcntl

__all__ = ["Manifest", "locked"]

NAME, JOURNAL, LOCK = "_manifest.json", "_journal.jsonl", ".lock"
"""What reads all Parquet files of a folder passes over names with `_` or a dot in front."""

FORMAT = 1

_DIFFERS = {
    "model": "explanations by another model",
    "given": "explanations with other references or another class",
    "data": "explanations of other data",
    "rows": "explanations of another number of rows",
    "options": "explanations with other options",
    "plan": "shards that another batch, shard or number of threads made",
    "versions": "shards that other versions made",
}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing into a folder; the lock of one that has ended doesn't count.

    The system drops a lock with its process, so that none is stale.  On Windows there is none.

    Raises:
        UserError: another process has the lock.
    """
    if sys.platform == "win32":
        yield
        return
    path = folder / LOCK
    while True:
        with writing(path):
            file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            with file:
                file.seek(0)
                owner = file.read(20).strip() or "unknown"
            what = f"another process (pid {owner}) is writing into it"
            raise UserError(what, where=str(folder), mend="wait for it, or give another folder") from None
        with suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                break
        file.close()  # its last owner has removed it in between
    with file:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


class Manifest:
    """The manifest of a folder, open for a run.

    `_manifest.json` says of which run the folder is; a line of `_journal.jsonl` is added for each shard, when
    its files are on the disk.  In the end the manifest has the shards, in order, and the journal goes.

    Attributes:
        header: what the run is: digests, options, plan, versions.
        shards: what is told of finished shards, by their number.
        complete: whether all are.
    """

    def __init__(
        self, folder: Path, header: dict[str, Any], shards: dict[int, dict[str, Any]], complete: bool
    ) -> None:
        self.folder, self.header, self.shards, self.complete = folder, header, shards, complete

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest that stands in a folder; None where there is none.

        Raises:
            UserError: it is damaged.
        """
        path = folder / NAME
        if not path.exists():
            return None
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            shards = {int(s["shard"]): s for s in told["shards"]}
            complete, header = bool(told["complete"]), dict(told["run"])
            if told["format"] != FORMAT:
                raise ValueError(f"format {told['format']}")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            mend = "give another folder, or remove this one"
            raise UserError(f"is no manifest of explanations: {error}", where=str(path), mend=mend) from None
        journal = folder / JOURNAL
        if not complete and journal.exists():
            for line in journal.read_bytes().splitlines(keepends=True):
                with suppress(ValueError, KeyError):
                    if line.endswith(b"\n"):  # a process that was killed may have written half a line
                        record = json.loads(line)
                        shards[int(record["shard"])] = record
        return cls(folder, header, shards, complete)

    @classmethod
    def begun(cls, folder: Path, header: dict[str, Any]) -> Manifest:
        """The manifest of this run: a new one, or that of an earlier part of it.

        Raises:
            UserError: the folder has results of another run, or other files; it can't be written.
        """
        found = cls.read(folder)
        if found is None:
            strange = sorted(p.name for p in folder.iterdir() if not p.name.startswith((TEMPORARY, LOCK)))
            if strange:
                mend = "give an empty folder, or one that isn't there yet"
                raise UserError(f"has other files, such as {strange[0]!r}", where=str(folder), mend=mend)
            found = cls(folder, header, {}, False)
            found._write()
        found.require_same(header)
        for left in folder.glob(f"{TEMPORARY}*"):
            left.unlink(missing_ok=True)
        if found.complete:
            # a process that was killed between the two steps of `finish` leaves it
            (folder / JOURNAL).unlink(missing_ok=True)
        else:
            found._rewrite_journal()
        return found

    def require_same(self, header: Mapping[str, Any]) -> None:
        """Refuses another run.

        Raises:
            UserError: says what differs.
        """
        for key, what in _DIFFERS.items():
            ours, theirs = header.get(key), self.header.get(key)
            if ours != theirs:
                told = f" ({_difference(theirs, ours)})" if isinstance(ours, Mapping) else ""
                mend = "give another folder, or remove this one"
                raise UserError(f"has {what}{told}", where=str(self.folder), mend=mend)

    def add(self, records: Sequence[dict[str, Any]]) -> None:
        """Notes finished shards, whose files are on the disk."""
        lines = [json.dumps(record, sort_keys=True, allow_nan=False) + "\n" for record in records]
        path = self.folder / JOURNAL
        with writing(path), path.open("ab") as file:
            file.write("".join(lines).encode())
            sync(file)
        self.shards |= {record["shard"]: record for record in records}

    def drop(self, shards: Iterable[int]) -> None:
        """Forgets shards whose files aren't what they were."""
        for shard in shards:
            del self.shards[shard]
        self.complete = False
        self._rewrite_journal()
        self._write(())

    def finish(self) -> None:
        """Notes that all shards are there."""
        self.complete = True
        self._write(self.shards)
        (self.folder / JOURNAL).unlink(missing_ok=True)

    def _rewrite_journal(self) -> None:
        """So that a new line doesn't join half of one."""
        with writing(self.folder), atomic(self.folder / JOURNAL, synced=True) as file:
            for record in self.shards.values():
                file.write((json.dumps(record, sort_keys=True) + "\n").encode())

    def _write(self, shards: Any = ()) -> None:
        listed = [self.shards[index] for index in sorted(shards)]
        told = {"format": FORMAT, "complete": self.complete, "run": self.header, "shards": listed}
        parts = json.JSONEncoder(indent=1, sort_keys=True, allow_nan=False).iterencode(told)
        with writing(self.folder), atomic(self.folder / NAME, synced=True) as file:
            file.writelines(part.encode() for part in parts)
            file.write(b"\n")


def _difference(theirs: Any, ours: Mapping[str, Any]) -> str:
    """What differs between two mappings, the first such thing."""
    other = theirs if isinstance(theirs, Mapping) else {}
    for key in sorted({*ours, *other}):
        if ours.get(key) != other.get(key):
            return f"{key}: {other.get(key)} there, {ours.get(key)} now"
    return ""
