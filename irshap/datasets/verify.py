"""Whether a folder's shards are what was written, and what the model gives now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from irshap.datasets.base import digest_of
from irshap.datasets.job import Job, Record, Shard, Worker
from irshap.datasets.manifest import Manifest, locked
from irshap.datasets.prepare import Options, prepared
from irshap.datasets.rows import columns, lost_rows
from irshap.errors import UserError
from irshap.runtime.arrays import Array
from irshap.runtime.explainer import ExplainedModel
from irshap.runtime.reading import TOLERANCES

__all__ = ["VerifyReport", "verify_dataset"]


@dataclass(frozen=True)
class VerifyReport:
    """What was found.

    Attributes:
        shards, rows: how many files' digests were compared, and how many rows were computed again.
        complete: whether the run is over.
        problems: one line for each shard that isn't as it should be; these are forgotten, so that
            `explain_dataset` makes them anew.
        equal: whether all numbers have the same bits, and not just nearly the same.
    """

    shards: int
    rows: int
    complete: bool
    problems: tuple[str, ...]
    equal: bool


def verify_dataset(
    model: ExplainedModel, data: Any, output: str | os.PathLike[str], *, samples: int = 16, **options: Any
) -> VerifyReport:
    """Compares all finished shards with their digests, and a batch of some with what is computed anew.

    Args:
        model: these are as `explain_dataset` was given them.
        data: likewise.
        output: likewise.
        options: likewise.
        samples: of how many shards a batch is computed, and the data compared.

    Raises:
        UserError: there are no such results, or data that can be read only once.
    """
    folder = Path(output).absolute()
    if not folder.is_dir() or (manifest := Manifest.read(folder)) is None:
        mend = "give the folder that irshap explain -o wrote"
        raise UserError("has no explanations of a data set", where=os.fspath(output), mend=mend)
    with locked(folder):
        ready = prepared(model, data, folder, Options.of(options))
        manifest.require_same(ready.header)
        job = ready.job
        if job.source.once:
            mend = "give the same rows as a file or an array"
            raise UserError("rows of an iterator can't be read again", where=job.source.where, mend=mend)
        worker = Worker(replace(job, plan=replace(job.plan, threads=1)))
        shards = sorted(manifest.shards)
        chosen = _chosen(shards, samples)
        problems, damaged, rows, equal = list[str](), list[int](), 0, True
        for index in shards:
            record = manifest.shards[index]
            found = [f"{name} isn't what was written" for name in job.sink.damaged(record)]
            if not found and index in chosen:
                told, same, count = _compared(job, worker, record)
                found, equal, rows = told, equal and same, rows + count
            if found:
                problems += [f"rows {record['start']} to {record['stop'] - 1}: {what}" for what in found]
                damaged.append(index)
        if damaged:
            manifest.drop(damaged)
        return VerifyReport(len(shards), rows, manifest.complete, tuple(problems), equal)


def _chosen(shards: list[int], samples: int) -> set[int]:
    """The first, the last, and others by chance, which is the same each time."""
    if len(shards) <= samples:
        return set(shards)
    ends = {shards[0], shards[-1]}
    rng = np.random.default_rng(len(shards))
    return ends | set(rng.choice(shards, max(0, samples - len(ends)), replace=False).tolist())


def _compared(job: Job, worker: Worker, record: Record) -> tuple[list[str], bool, int]:
    """What is wrong with a shard, whether a batch of it has the same bits, and its rows."""
    shard = Shard(record["shard"], record["start"], record["stop"])
    rows = job.source.read(shard.start, shard.stop)
    if digest_of(rows) != record["data"]:
        return ["the data is another one"], True, 0
    batches = -(-(shard.stop - shard.start) // job.plan.batch)
    at = int(np.random.default_rng(shard.index).integers(batches)) * job.plan.batch
    part = {name: array[at : at + job.plan.batch] for name, array in rows.items()}
    explanation = worker.explain(part)
    wanted = columns(explanation, job.keep, lost_rows(explanation), worker.summaries)
    stored: Mapping[str, Array] = job.sink.read(record)
    found, same = [], True
    for name, array in wanted.items():
        there = stored[name][at : at + len(array)]
        same &= there.tobytes() == array.tobytes()
        if not _near(there, array):
            found.append(f"{name} isn't what the model gives")
    return found, same, len(next(iter(wanted.values())))


def _near(stored: Array, array: Array) -> bool:
    """Whether numbers are equal up to rounding, as another machine rounds."""
    if array.dtype.kind != "f":
        return bool(np.array_equal(stored, array))
    size = np.abs(array[np.isfinite(array)]).max(initial=0.0)
    bound = TOLERANCES[min(4, array.dtype.itemsize)] * max(float(size), 1e-30)
    return bool(np.allclose(stored, array, rtol=0.0, atol=bound, equal_nan=True))
