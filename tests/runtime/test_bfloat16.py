"""bfloat16 on its way in, against a library that has the type."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from irshap.runtime.bfloat16 import _bits


def test_it_rounds_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    some = rng.integers(0, 2**32, 10_000, np.uint64).astype(np.uint32).view(np.float32)
    special = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45, 1.0, 1.00390625, 1.01171875])
    array = np.concatenate([some, special])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    found = (_bits(array).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert _bits(np.float32([[1.0], [2.0]])).shape == (2, 1)
