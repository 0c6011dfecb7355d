"""Arrays for the samples of ops: seeded, so that a failure repeats."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from irshap.ir.types import Array

__all__ = ["randn", "rng"]


def rng(seed: int = 0) -> np.random.Generator:
    """The generator behind samples: seeded, so that a failure repeats."""
    return np.random.default_rng(seed)


def randn(*shape: int, seed: int = 0, dtype: DTypeLike = np.float64) -> Array:
    """Standard normal sample values."""
    return rng(seed + sum(shape)).standard_normal(shape).astype(dtype)
