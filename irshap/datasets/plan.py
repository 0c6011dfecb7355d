"""How many rows run together, in how many sessions, and how long it will take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from irshap.errors import UserError
from irshap.runtime import Explainer
from irshap.runtime.arrays import Array, Arrays
from irshap.runtime.explainer import ExplainedModel
from irshap.runtime.profile import node_bytes

__all__ = ["Plan", "batch_of", "cores", "many_shards", "measured", "shard_rows_of", "workers_within"]

AT_ONCE = 16 << 20
"""Bytes of all tensors of a batch together: about what two cores' caches hold.  Of a table's rows with 100
references 32 run at once, of pictures one: more or fewer are slower (docs/datasets.md has the table)."""

MOST_ROWS = 1024
"""Rows of a batch: beyond that, what a call of ONNX Runtime costs no longer shows."""

SHARD_BYTES, SHARD_ROWS = 16 << 20, 4096
"""A shard holds up to so many bytes of attributions, and so many rows: with twice as many, those that are in
memory at the same time are a tenth of a small process more."""

MANY_SHARDS = 100_000
"""What the process notes of so many takes more memory than all the rest of it (docs/scale.md), and as many
files are slow for whoever lists the folder."""

PROCESS, SESSION = 160 << 20, 24 << 20
"""What Python with numpy, ONNX Runtime and pyarrow takes, and what a session does beside its weights."""


@dataclass(frozen=True)
class Plan:
    """How a job runs.

    Attributes:
        batch, shard_rows: rows in a run of ONNX Runtime, and in a shard.  Both decide about the bytes of the
            result, so the manifest keeps them.
        threads: within a session.
        workers: sessions at the same time, which change nothing but the time.
    """

    batch: int
    shard_rows: int
    threads: int = 1
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "shard_rows", "threads", "workers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, and must be 1 or more")
        if self.threads > 1024 or self.workers > 1024:
            raise UserError(f"{self.workers} workers of {self.threads} threads", mend="give up to 1024")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_bytes(model: ExplainedModel, feed: Arrays, axes: Mapping[str, int], providers: Any) -> int:
    """Bytes of all tensors that one more row makes, as ONNX Runtime tells of its nodes.

    Args:
        feed: three rows or more.
    """

    def rows(count: int) -> Arrays:
        return {n: a.take(range(count), axes[n]) if n in axes else a for n, a in feed.items()}

    one, three = node_bytes(model, [rows(1), rows(3)], providers)
    return max(1, sum(three[node] - one.get(node, 0) for node in three) // 2)


def batch_of(row: int, size: int | None, limit: int | None, fixed: int) -> int:
    """How many rows run together: a power of 2, from numbers that are the same each time.

    Args:
        row: bytes of tensors for a row.
        size: what the file takes at a time, where that is fixed.
        limit: bytes that the process may take.
        fixed: bytes of the process and of one session.

    Raises:
        UserError: one row doesn't stay within the limit.
    """
    if size is not None:
        return size
    most = min(MOST_ROWS, max(1, AT_ONCE // row))
    if limit is not None:
        if fixed + row > limit:
            enough = -(-(fixed + row) // 2**20)
            what = f"one row at a time needs {enough} MiB, the limit is {limit / 2**20:.0f} MiB"
            raise UserError(
                what, mend=f"raise it to {enough}MiB, or compile with --strategy stream or compact"
            )
        most = max(1, min(most, (limit - fixed) // row))
    return 1 << (most.bit_length() - 1)


def shard_rows_of(shapes: list[tuple[int, ...]], batch: int, room: int | None) -> int:
    """Rows of a shard: whole batches, up to 16 MiB of attributions.

    Args:
        shapes: of what is kept of one row.
        room: how many rows stay within a limit of memory.
    """
    each = 4 * sum(map(prod, shapes)) or 1
    rows = min(SHARD_ROWS if room is None else room, SHARD_ROWS, max(1, SHARD_BYTES // each))
    return max(batch, rows // batch * batch)


def many_shards(plan: Plan, rows: int | None, each: int) -> str | None:
    """What is wrong with a plan that makes more shards than are good, and which option mends it.

    Args:
        rows: of the data; None: nobody knows.
        each: bytes that a session takes for a row of its shard.
    """
    if rows is None or (shards := -(-rows // plan.shard_rows)) <= MANY_SHARDS:
        return None
    enough = -(-rows // (MANY_SHARDS * plan.batch)) * plan.batch
    each_takes = f"for each of which a session takes {enough * each / 2**20:.0f} MiB"
    fewer = f"--shard-rows {enough} makes {-(-rows // enough)}, {each_takes}"
    return f"{shards} shards are slow to list and to go on with: {fewer}; or give parts folders of their own"


def workers_within(limit: int | None, fixed: int, session: int, each: int) -> int:
    """How many sessions there are: as many as cores, or as stay within a limit.

    Args:
        fixed, session: bytes of the process, and of each session.
        each: bytes that a session's run and its shard take.
    """
    if limit is None:
        return cores()
    return max(1, min(cores(), (limit - fixed) // (session + each)))


def measured(
    plan: Plan, first: Explainer, make: Callable[[int], Explainer], feed: Arrays, *, choose: bool
) -> tuple[Plan, float, list[Explainer]]:
    """A plan that uses all cores, how many rows a second it runs, and its sessions.

    A session for each core, with one thread, is fastest with the batches that are chosen (docs/datasets.md).
    Where fewer fit, they get several threads each: if they are faster so, and give the same bits.

    Args:
        plan: with as many workers as there may be.
        first: an Explainer with the plan's threads.
        make: makes another one with some number of threads.
        feed: one batch.
        choose: whether threads may be chosen.
    """
    sessions = [first, *(make(plan.threads) for _ in range(plan.workers - 1))]
    rate = _rate(sessions, feed, plan.batch)
    share = cores() // plan.workers
    if not choose or share <= plan.threads:
        return plan, rate, sessions
    wide = [make(share) for _ in sessions]
    if all(map(_same, first.results(feed).values(), wide[0].results(feed).values())):
        quicker = _rate(wide, feed, plan.batch)
        if quicker > 1.1 * rate:
            return replace(plan, threads=share), quicker, wide
    return plan, rate, sessions


def _same(a: Array, b: Array) -> bool:
    return a.tobytes() == b.tobytes()


def _rate(sessions: Sequence[Explainer], feed: Arrays, size: int, seconds: float = 0.05) -> float:
    """Rows a second of these sessions at the same time."""
    for session in sessions:
        session.results(feed)  # the first run allocates
    begin = time.perf_counter()

    def work(session: Explainer) -> int:
        done = 0
        while not done or time.perf_counter() - begin < seconds:
            session.results(feed)
            done += size
        return done

    with ThreadPoolExecutor(len(sessions)) as pool:
        rows = sum(pool.map(work, sessions))
    return rows / (time.perf_counter() - begin)
