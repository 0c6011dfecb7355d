"""What measures that hide cells share: who comes first, and the area under what the model then says."""

from __future__ import annotations

import numpy as np

from irshap.metrics.measure import Curve, Measured
from irshap.runtime.arrays import Array

__all__ = ["area", "ranks"]


def ranks(keys: Array) -> Array:
    """For each cell how many of its sample come before it, smallest first, ties as they stand: int [N, M]."""
    order = np.argsort(keys, axis=1, kind="stable")
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.arange(keys.shape[1])[None], axis=1)
    return found


def area(share: Array, scores: Array, x: str, y: str) -> Measured:
    """The trapezoid area under each sample's scores [N, Q] over the shares [Q]."""
    values = ((scores[:, 1:] + scores[:, :-1]) / 2) @ np.diff(share)
    return Measured.mean(values, Curve(share, scores.mean(axis=0), x, y))
