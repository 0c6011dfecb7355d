"""One piece of work: rows of a shard read, explained and written.  What an engine hands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from irshap import contract
from irshap.datasets.base import Source, digest_of, row_count
from irshap.datasets.plan import Plan
from irshap.datasets.rows import Keep, bad_rows, columns, lost_rows
from irshap.datasets.sinks import Sink
from irshap.errors import UserError
from irshap.runtime import Explainer, Explanation
from irshap.runtime.arrays import Array, Arrays

__all__ = ["LISTED", "Explained", "Job", "Record", "Shard", "Worker"]

Record = dict[str, Any]
"""What the manifest says of a finished shard: plain data."""

LISTED = 100
"""How many bad rows of a shard are listed one by one."""


@dataclass(frozen=True)
class Shard:
    """Rows start to stop, which are written together; `stop` may lie behind the last row."""

    index: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Explained:
    """A shard that isn't written yet: the digest of its rows, its columns, and the rows that are no good."""

    shard: Shard
    data: str
    columns: Arrays
    bad: list[dict[str, Any]]

    @property
    def bytes(self) -> int:
        """Of its columns."""
        return sum(array.nbytes for array in self.columns.values())


@dataclass(frozen=True)
class Job:
    """All that a worker must know, in this process or another: it can be pickled where its parts can.

    Attributes:
        model: an explained model's path, or its bytes.
        source: the data.
        sink: where results go.
        plan: how many rows at a time.
        keep: what is kept of attributions.
        given: inputs that all rows share: references at run time, the class to explain.
        max_error: rows beyond it are listed as bad.
        strict: whether a bad row is an error.
        providers: ONNX Runtime's execution providers; None: the CPU.
        names: what people call features.
    """

    model: str | bytes
    source: Source
    sink: Sink
    plan: Plan
    keep: Keep = field(default_factory=Keep)
    given: Mapping[str, Any] = field(default_factory=dict)
    max_error: float | None = None
    strict: bool = False
    providers: Sequence[Any] | None = None
    names: Any = None

    def shard(self, index: int) -> Shard:
        """The rows of a shard, which depend on nothing but its number."""
        start = index * self.plan.shard_rows
        stop = start + self.plan.shard_rows
        return Shard(index, start, stop if self.source.rows is None else min(stop, self.source.rows))

    def written(self, done: Sequence[Explained]) -> list[Record]:
        """Writes explained shards; when this returns, the disk has them.

        Raises:
            UserError: the disk is full, or the folder can't be written.
        """
        labels = [self.source.labels(d.shard.start, d.shard.stop) for d in done]
        shards = [
            (d.shard.index, d.shard.start, d.columns, names) for d, names in zip(done, labels, strict=True)
        ]
        files = self.sink.write(shards)
        return [self._record(*pair) for pair in zip(done, files, strict=True)]

    @staticmethod
    def _record(done: Explained, files: Mapping[str, Any]) -> Record:
        return {
            "shard": done.shard.index,
            "start": done.shard.start,
            "stop": done.shard.stop,
            "data": done.data,
            "files": files,
            "columns": {name: [str(a.dtype), list(a.shape[1:])] for name, a in done.columns.items()},
            "bad": len(done.bad),
            "bad_rows": done.bad[:LISTED],
        }

    @property
    def shards(self) -> int | None:
        """How many shards there are; None: it shows at the end of the data."""
        rows = self.source.rows
        return None if rows is None else -(-rows // self.plan.shard_rows)


class Worker:
    """Runs shards of a job, one at a time, with a session of its own."""

    def __init__(self, job: Job, explainer: Explainer | None = None) -> None:
        self.job = job
        own = explainer or Explainer(job.model, job.providers, job.names, job.plan.threads)
        self.explainer = own
        roles = self.explainer.tensors
        self.summaries = list(roles.summaries)
        self._axes = self.explainer.axes
        # multipliers and the like are never kept, so they needn't be computed
        self.explainer.tensors = replace(roles, multipliers={}, hypothetical={})
        explained = self.explainer.metadata.get(contract.Metadata.EXPLAINED_OUTPUT)
        wanted = {*self.explainer.tensors.outputs, explained}
        self._outputs = [name for name in self.explainer.output_names if name in wanted]

    def __call__(self, shard: Shard, rows: Arrays | None = None) -> Record:
        """Explains a shard and writes it; when this returns, the disk has it.

        Raises:
            UserError: as `explained` and `Job.written`.
        """
        return self.job.written([self.explained(shard, rows)])[0]

    def explained(self, shard: Shard, rows: Arrays | None = None) -> Explained:
        """Explains a shard.

        Args:
            rows: those of the shard, where they were read already.

        Raises:
            UserError: rows that can't be read or don't fit, or a bad row where none may be.
        """
        arrays = self.job.source.read(shard.start, shard.stop) if rows is None else rows
        shard = replace(shard, stop=shard.start + row_count(arrays))
        try:
            explanation = self.explain(arrays)
            lost = lost_rows(explanation)
            bad = bad_rows(explanation, shard.start, self.job.max_error, lost)
            found = columns(explanation, self.job.keep, lost, self.summaries)
        except UserError as error:
            where = f"{self.job.source.where}, rows {shard.start} to {shard.stop - 1}"
            told = f"{error.where}: {error.what}" if error.where else error.what
            raise type(error)(told, where=where, mend=error.mend) from error
        if bad and self.job.strict:
            first = bad[0]
            size = "" if first["error"] is None else f" (completeness error {first['error']:.3g})"
            what = f"row {first['row']} is {first['why']}{size}"
            raise UserError(what, where=self.job.source.where, mend="mend it, or leave strict out")
        return Explained(shard, digest_of(arrays), found, bad)

    def explain(self, arrays: Arrays) -> Explanation:
        """Explains rows, a batch at a time, counted from the first of them.

        ONNX Runtime chooses kernels by the size of a batch, and these differ in the last bits: batches that
        begin with the shard make a row's numbers depend on the shard alone.
        """
        count, feed = row_count(arrays), self.feed(arrays)
        parts = [self._batch(feed, start, count) for start in range(0, count, self.job.plan.batch)]
        raw = {name: _joined([part[name] for part in parts], self._axes[name]) for name in self._outputs}
        return self.explainer.explanation(feed, raw)

    def feed(self, arrays: Arrays) -> Arrays:
        """What the file takes for these rows, with what all rows share."""
        axes = self.explainer.row_axes
        rows = {name: np.moveaxis(array, 0, axes.get(name, 0)) for name, array in arrays.items()}
        return self.explainer.feed({**rows, **self.job.given})

    def _batch(self, feed: Arrays, start: int, count: int) -> Arrays:
        """The outputs for a batch of the rows of a feed."""
        stop = min(start + self.job.plan.batch, count)
        size = self.explainer.batch
        part = dict(feed)
        for name, axis in self.explainer.row_axes.items():
            rows = feed[name][start:stop] if axis == 0 else feed[name].take(range(start, stop), axis)
            part[name] = rows if size is None else _padded(rows, size, axis)
        found = self.explainer.results(part, self._outputs)
        return found if size is None else {n: _cut(a, stop - start, self._axes[n]) for n, a in found.items()}


def _joined(parts: list[Array], axis: int | None) -> Array:
    """The results of all batches; what counts no rows is the same in each."""
    return parts[0] if len(parts) == 1 or axis is None else np.concatenate(parts, axis)


def _cut(array: Array, count: int, axis: int | None) -> Array:
    return array if axis is None else array.take(range(count), axis)


def _padded(rows: Array, size: int, axis: int) -> Array:
    """As many rows as a file for a fixed number takes: the last one stands in for those that are missing."""
    missing = -rows.shape[axis] % size
    return np.concatenate([rows, rows.take([-1] * missing, axis)], axis) if missing else rows
