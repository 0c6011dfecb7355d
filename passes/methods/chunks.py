"""Sums over many points, a chunk of them at a time, so that memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from irshap.ir.builder import Builder, current, emit1
from irshap.ir.core import Output, Value
from irshap.ir.types import Array, TensorType
from irshap.ir.walks import descendants
from irshap.ops.closed import in_parts
from irshap.ops.program import Constant, Full, Input, constant
from irshap.ops.scan import Scan

__all__ = ["in_chunks", "summed"]


def in_chunks(points: Array, most: int, fill: float | None = None) -> Array:
    """[K, ...] as [trips, C, ...] with C <= most, as equal as they come; 0: all at once.

    The last chunk is filled up with `fill`, or with the last point again.  A quarter more trips than are
    needed are taken where less is to be filled up: 196 points, 25 at most, are 9 of 22 and not 8 of 25.
    """
    least = -(-len(points) // most) if most else 1
    size, trips = min(
        ((-(-len(points) // trips), trips) for trips in range(least, least + least // 4 + 1)),
        key=lambda found: (found[0] * found[1], found[1]),
    )
    left = trips * size - len(points)
    rest = points[-1:] if fill is None else np.full_like(points[-1:], fill)
    return np.concatenate([points, *[rest] * left]).reshape(trips, size, *points.shape[1:])


def summed(chunks: Sequence[Array], make: Callable[[Sequence[Value]], Sequence[Value]]) -> tuple[Value, ...]:
    """Emits the sums over all trips of what `make` emits for each: a loop, where there is more than one.

    What doesn't depend on the points stands before the loop.

    Args:
        chunks: arrays [trips, ...] of one number of trips.
        make: from the slices [...] of one trip what is added up; every result depends on one of them.
    """
    trips = len(chunks[0])
    if trips == 1:
        return tuple(make([constant(c[0]) for c in chunks]))
    outer = current()
    scanned = [constant(c) for c in chunks]
    with Builder() as once:
        slices = _inputs(once, "point", [v.tensor.with_shape(v.shape[1:]) for v in scanned])
        parts = make(slices)
    moving = descendants(once.nodes, slices)
    own = {v for n in once.nodes for v in n.results}.union(slices)
    fixed = {v: v for n in once.nodes for v in n.operands if v not in own}
    outer.extend((n for n in once.nodes if moving.isdisjoint(n.results)), fixed)
    inside = [n for n in once.nodes if not moving.isdisjoint(n.results)]
    read = dict.fromkeys(fixed[v] for n in inside for v in n.operands if v in fixed)
    captured = [v for v in read if not isinstance(v.node.op, Constant)]
    with Builder() as b:
        totals = _inputs(b, "sum", [v.tensor for v in parts])
        known = dict(zip(slices, _inputs(b, "chunk", [v.tensor for v in slices]), strict=True))
        given = dict(zip(captured, _inputs(b, "whole", [v.tensor for v in captured]), strict=True))
        b.extend((v.node for v in read if v not in given), given)
        known |= {v: given[value] for v, value in fixed.items() if value in given}
        b.extend(inside, known)
        sums = [total + known[v] for total, v in zip(totals, parts, strict=True)]
        body = in_parts(b.build("chunk", [Output(f"next_{i}", v) for i, v in enumerate(sums)]))
    zeros = [emit1(Full(0.0, v.dtype, v.shape)) for v in parts]
    return outer.emit(Scan(len(zeros), len(scanned), body), *zeros, *scanned, *captured)


def _inputs(b: Builder, prefix: str, types: Iterable[TensorType]) -> list[Value]:
    return [
        b.emit(Input(f"{prefix}_{i}"), types=(t,), names=(f"{prefix}_{i}",))[0] for i, t in enumerate(types)
    ]
