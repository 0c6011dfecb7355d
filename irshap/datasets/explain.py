"""`explain_dataset`: explanations of all rows of some data, in a folder, whatever happens in between."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from irshap.datasets.engine import Engine, local
from irshap.datasets.job import LISTED, Job, Record
from irshap.datasets.manifest import Manifest, locked
from irshap.datasets.plan import Plan
from irshap.datasets.prepare import Options, Prepared, prepared
from irshap.datasets.ray import RayEngine
from irshap.errors import UserError, near
from irshap.runtime.explainer import ExplainedModel

__all__ = ["ENGINES", "DatasetReport", "explain_dataset"]

ENGINES: dict[str, Callable[[Options], Engine]] = {"ray": RayEngine}
"""What makes engines other than `local`, by name."""

Progress = Callable[[int, "int | None"], None]
"""Is told how many rows are finished, and of how many."""


@dataclass(frozen=True)
class DatasetReport:
    """What became of a data set.

    Attributes:
        output: the folder.
        rows: how many are explained, with those that were before this run.
        found: those.
        shards: how many the folder has.
        bad: rows that are listed: not finite, or beyond `max_error`.
        bad_rows: the first of them: `row`, `why`, `error`; the manifest lists up to 100 of each shard.
        plan: how it ran.
        rate: rows a second that were measured on the first rows; None where nothing was.
        predicted, seconds: the time that follows from the rate, and the real one.
    """

    output: str
    rows: int
    found: int
    shards: int
    bad: int
    bad_rows: tuple[Mapping[str, Any], ...]
    plan: Plan
    rate: float | None
    predicted: float | None
    seconds: float


def explain_dataset(
    model: ExplainedModel,
    data: Any,
    output: str | os.PathLike[str],
    *,
    engine: str = "local",
    progress: Progress | None = None,
    started: Callable[[Prepared], None] | None = None,
    **options: Any,
) -> DatasetReport:
    """Explains all rows of some data into a folder; run again, it goes on where it was.

    The bytes of the folder depend on model, data and options alone, not on workers or interruptions.

    Args:
        model: an explained model: a path, its bytes, a `CompiledModel`.
        data: a path (.npy, .npz, .parquet, .arrow, a folder of .npy or images), arrays, or an iterator of
            rows or batches.
        output: the folder; it may not be there yet.
        engine: "local", or "ray" for a cluster (docs/scale.md).
        progress: is told how many rows are finished, and of how many.
        started: is told of the job before it runs.
        options: the attributes of `irshap.datasets.Options`: `top=20`, `memory_limit="4GiB"`.

    Raises:
        UserError: something doesn't fit, can't be read or written, or the folder has another run's results.
    """
    asked = Options.of(options)
    folder = Path(output).absolute()
    begun = time.perf_counter()
    if engine != "local" and engine not in ENGINES:
        raise UserError(f"no engine is called {engine!r}", mend=near(engine, ["local", *ENGINES]))
    elsewhere = None if engine == "local" else ENGINES[engine](asked)
    with _made(folder), locked(folder):
        ready = prepared(model, data, folder, asked, here=elsewhere is None)
        manifest = Manifest.begun(folder, ready.header)
        job = ready.job
        if lost := [i for i, told in manifest.shards.items() if not job.sink.has(told)]:
            manifest.drop(lost)  # removed, or cut short
        found = _rows(manifest)
        if started is not None:
            started(ready)
        if not manifest.complete:
            run = elsewhere or partial(local, sessions=ready.sessions)
            _run(manifest, job, run(job, manifest.shards), found, progress)
            kinds = next(iter(manifest.shards.values()))["columns"]
            job.sink.finish(_rows(manifest), kinds)
            manifest.finish()
    bad = [row for told in manifest.shards.values() for row in told["bad_rows"]]
    rows = _rows(manifest)
    return DatasetReport(
        output=os.fspath(output),
        rows=rows,
        found=found,
        shards=len(manifest.shards),
        bad=sum(told["bad"] for told in manifest.shards.values()),
        bad_rows=tuple(sorted(bad, key=lambda told: int(told["row"]))[:LISTED]),
        plan=job.plan,
        rate=ready.rate,
        predicted=None if ready.rate is None else (rows - found) / ready.rate,
        seconds=time.perf_counter() - begun,
    )


def _run(
    manifest: Manifest, job: Job, groups: Iterator[list[Record]], found: int, progress: Progress | None
) -> None:
    """Notes shards as they are finished."""
    done = found
    kinds = next((told["columns"] for told in manifest.shards.values()), None)
    for records in groups:
        kinds = kinds or records[0]["columns"]
        alike = [record for record in records if record["columns"] == kinds]
        manifest.add(alike)
        for other in records:
            if other["columns"] != kinds:
                what = f"rows {other['start']} to {other['stop'] - 1} give {other['columns']}, others {kinds}"
                raise UserError(what, where=job.source.where, mend="give rows of one shape")
        done += sum(record["stop"] - record["start"] for record in alike)
        if progress is not None:
            progress(done, job.source.rows)
    if not manifest.shards:
        raise UserError("there is no row", where=job.source.where)


def _rows(manifest: Manifest) -> int:
    return sum(told["stop"] - told["start"] for told in manifest.shards.values())


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder is there; what is refused leaves none that wasn't there before."""
    there = folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        raise UserError("its folder doesn't exist", where=str(folder), mend="create it first") from None
    except FileExistsError:
        raise UserError("is a file, not a folder", where=str(folder), mend="give another name") from None
    except OSError as error:
        raise UserError(f"can't be made: {error.strerror}", where=str(folder)) from None
    try:
        yield
    finally:
        if not there and not any(folder.iterdir()):
            folder.rmdir()
