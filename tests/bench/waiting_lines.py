"""Queues with equal service times: what moments of arrival do to waits, whatever answers the requests."""

from __future__ import annotations

import heapq

import numpy as np

from irshap.runtime.arrays import Array


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


def bounds(utilization: float) -> str:
    """What p99 / p50 is at least when requests come as they like, by cores: an M/D/c queue's."""
    told = []
    for servers in (1, 2, 4, 8, 16):
        line = waiting_line(poisson(400000, 1 / (utilization * servers)).cumsum(), 1.0, servers)
        p50, p99 = np.quantile(line, (0.5, 0.99))
        told.append(f"{p99 / p50:.1f} ({servers})")
    return ", ".join(told)
