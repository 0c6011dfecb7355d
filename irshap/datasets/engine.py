"""The local engine: shards of a job, on the cores of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count
from threading import local as local_state
from typing import Any, TypeAlias

from irshap.datasets.base import digest_of, row_count
from irshap.datasets.job import Explained, Job, Record, Shard, Worker
from irshap.datasets.plan import Plan
from irshap.errors import UserError
from irshap.runtime import Explainer
from irshap.runtime.arrays import Arrays

__all__ = ["Engine", "local", "unfinished"]

Engine: TypeAlias = Callable[[Job, Mapping[int, Record]], Iterator[list[Record]]]
"""Runs the shards of a job that aren't among the finished ones, and tells of some when the disk has them, in
any order.  Shards that are finished when one fails are told of before its error is raised."""


WRITING = 2
"""Shards that are written at the same time, beside those that are explained."""

AHEAD, BACKLOG = 16, 8 << 20
"""So many shards may wait, to be explained or written, as long as their results are so few bytes together.
What waits to be written is written and synced together: a slow disk then keeps no core waiting."""

PAUSE = 0.5
"""Seconds from one beginning to write to the next, where shards come faster: each sync makes the system's own
threads run, and takes cores from the explaining ones.  So much more work a kill may cost."""


def local(
    job: Job, finished: Mapping[int, Record], sessions: Sequence[Explainer] = ()
) -> Iterator[list[Record]]:
    """Runs `job.plan.workers` shards at a time, in threads: ONNX Runtime and numpy let others run.

    Args:
        sessions: what workers may use, in place of sessions of their own.

    Raises:
        UserError: as a `Worker`.
    """
    ready, own, places = list(sessions), local_state(), _places(job.plan)

    def explain(shard: Shard, rows: Arrays | None) -> Explained:
        if not hasattr(own, "worker"):
            if places:
                with suppress(OSError):  # where a sandbox refuses it, the system chooses
                    os.sched_setaffinity(0, {places.pop()})
            own.worker = Worker(job, ready.pop() if ready else None)
        found: Explained = own.worker.explained(shard, rows)
        return found

    todo, ahead = unfinished(job, dict(finished)), WRITING
    failed: BaseException | None = None
    explaining, writing = set[Future[Explained]](), set[Future[list[Record]]]()
    waiting: list[Explained] = []
    under_way, begun = 0, -PAUSE
    # a session stays with its thread: handed from thread to thread, it took a fifth longer
    with (
        ThreadPoolExecutor(job.plan.workers, "explain") as cores,
        ThreadPoolExecutor(WRITING, "write") as disk,
    ):
        while True:
            try:
                while failed is None and under_way < job.plan.workers + ahead:
                    explaining.add(cores.submit(explain, *next(todo)))
                    under_way += 1
            except StopIteration:
                pass
            except Exception as error:
                failed = error
            # at the end, what waits is written while the last ones are explained
            last = len(explaining) <= job.plan.workers
            due = last or 2 * len(waiting) >= ahead or time.monotonic() - begun >= PAUSE
            if waiting and due and len(writing) < WRITING:
                writing.add(disk.submit(job.written, waiting))
                waiting, begun = [], time.monotonic()
            if not explaining and not writing:
                break
            running: list[Future[Any]] = [*explaining, *writing]
            done, _ = wait(running, PAUSE if waiting else None, FIRST_COMPLETED)
            for future in explaining & done:
                explaining.remove(future)
                if (problem := future.exception()) is None:
                    waiting.append(future.result())
                    ahead = max(WRITING, min(AHEAD, BACKLOG // max(1, waiting[-1].bytes)))
                failed = failed or problem
            for written in writing & done:
                writing.remove(written)
                if (problem := written.exception()) is None:
                    under_way -= len(written.result())
                    yield written.result()
                failed = failed or problem
    if failed is not None:
        raise failed


def _places(plan: Plan) -> list[int]:
    """The cores of explaining threads, where each has one to itself; none where the system must choose.

    A thread that writes wakes for a moment, and the system moves an explaining one out of its way, to the
    core of another: they share it for milliseconds, while the first core rests.
    """
    if plan.threads > 1 or not hasattr(os, "sched_setaffinity"):
        return []
    found = sorted(os.sched_getaffinity(0))
    return found if len(found) == plan.workers else []


def unfinished(job: Job, finished: Mapping[int, Record]) -> Iterator[tuple[Shard, Arrays | None]]:
    """The shards that are left, in order; with their rows where these are best read in order.

    Raises:
        UserError: rows can't be read, or an iterator gives others than those that were finished.
    """
    source = job.source
    for index in count() if job.shards is None else range(job.shards):
        shard, told = job.shard(index), finished.get(index)
        if told is not None and not source.once:
            continue
        rows = source.read(shard.start, shard.stop) if source.sequential else None
        if rows is not None and not row_count(rows):
            return
        if told is None:
            yield shard, rows
        elif digest_of(rows or {}) != told["data"]:
            what = f"rows {told['start']} to {told['stop'] - 1} aren't those that were explained before"
            raise UserError(what, where=source.where, mend="give the same rows, or another folder")
        if rows is not None and row_count(rows) < shard.stop - shard.start:
            return
