"""Equal service times: what moments of arrival do to waits, and what the machine does, whatever answers."""

from __future__ import annotations

import heapq
import time
from hashlib import pbkdf2_hmac
from pathlib import Path
from typing import Any

import numpy as np
import op_profile

from irshap.runtime.arrays import Array

LOOP = ".loop"
"""How the name of a file ends that says how many rounds a `Loop` takes."""


class Loop:
    """Stands for a session: the same instructions for each request, in C, on the calling thread, with little
    memory and without Python's lock.  How its times differ is what the machine does."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def run(self, names: Any, feed: Any) -> list[Array]:
        return [np.frombuffer(pbkdf2_hmac("sha256", b"", b"", self.rounds), np.uint8)]

    @classmethod
    def lasting(cls, seconds: float) -> int:
        """About so many rounds."""
        taken = []
        for _ in range(20):
            begin = time.perf_counter()
            cls(1000).run(None, None)
            taken.append(time.perf_counter() - begin)
        return max(1, round(1000 * seconds / float(np.median(taken))))


def session_of(model: Path, threads: int) -> Any:
    """What runs a file: ONNX Runtime, or a loop."""
    return Loop(int(model.read_text())) if model.suffix == LOOP else op_profile.session_of(model, threads)


def poisson(count: int, gap: float) -> Array:
    """Seconds between requests that come by chance, `gap` on average."""
    return np.random.default_rng(0).exponential(gap, count)


def waiting_line(times: Array, seconds: float, servers: int) -> Array:
    """Waits, were each request to take the same time on the next free server: what the times alone do."""
    free = [0.0] * servers
    waits = np.empty(len(times))
    for k, time_ in enumerate(times):
        end = max(time_, heapq.heappop(free)) + seconds
        heapq.heappush(free, end)
        waits[k] = end - time_
    return waits


def steady(times: Array, reached: float, servers: int) -> str:
    """A row's cells of servers that together reach so many requests a second."""
    line = waiting_line(times, servers / reached, servers)
    a, b, c = 1e3 * np.quantile(line, (0.5, 0.95, 0.99))
    return f"{1 / np.diff(times).mean():.0f} | {a:.2f} | {b:.2f} | {c:.2f} | {c / a:.1f}"


def bounds(utilization: float) -> str:
    """What p99 / p50 is at least when requests come as they like, by cores: an M/D/c queue's."""
    told = []
    for servers in (1, 2, 4, 8, 16):
        line = waiting_line(poisson(400000, 1 / (utilization * servers)).cumsum(), 1.0, servers)
        p50, p99 = np.quantile(line, (0.5, 0.99))
        told.append(f"{p99 / p50:.1f} ({servers})")
    return ", ".join(told)
