"""How far one engine's outputs are from another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from irshap.runtime.arrays import Array, Arrays

__all__ = ["Distance", "distances", "own_results"]


def own_results(model: Path, feeds: Sequence[Mapping[str, object]]) -> list[Arrays]:
    """What ONNX Runtime gives on this CPU, in a session without options: outputs by name, for each feed."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return [dict(zip(names, map(np.asarray, session.run(names, dict(f))), strict=True)) for f in feeds]


@dataclass(frozen=True)
class Distance:
    """How far an output is from the one that it should be.

    Attributes:
        name: of the output.
        relative: the largest difference, by the largest of the numbers that should be; of whole numbers and
            truth values 0 where all are equal, otherwise infinity.  Infinity, too, where NaN, infinity or a
            shape differ.
        strange: how many of its numbers are NaN or infinity where the others aren't.
    """

    name: str
    relative: float
    strange: int = 0


def distances(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> list[Distance]:
    """The distance of each output in `wanted`, the largest first."""
    listed = [_distance(name, found.get(name), array) for name, array in wanted.items()]
    return sorted(listed, key=lambda d: -d.relative)


def _distance(name: str, found: Array | None, wanted: Array) -> Distance:
    if found is None or found.shape != wanted.shape:
        return Distance(name, np.inf)
    if wanted.dtype.kind != "f":
        return Distance(name, 0.0 if np.array_equal(found, wanted) else np.inf)
    if not wanted.size:
        return Distance(name, 0.0)
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    strange = int((np.isfinite(b) & ~np.isfinite(a)).sum())
    both = np.isfinite(a) & np.isfinite(b)
    if strange or not np.array_equal(a[~both], b[~both], equal_nan=True):
        return Distance(name, np.inf, strange)
    scale = float(np.abs(b[both]).max(initial=0.0)) or 1.0
    return Distance(name, float(np.abs(a - b)[both].max(initial=0.0)) / scale)
