"""DataFrames: columns by what they are called, whatever that is."""

from __future__ import annotations

import numpy as np
import pytest

from irshap.errors import UserError
from irshap.runtime.arrays import as_arrays

pandas = pytest.importorskip("pandas")


def test_columns_called_by_numbers() -> None:
    frame = pandas.DataFrame([[1.0, 2.0], [3.0, 4.0]])
    found = as_arrays(frame, ["1", "0"], UserError, "input")
    np.testing.assert_array_equal(found["1"], [[2.0], [4.0]])
    (x,) = as_arrays(frame, ["x"], UserError, "input", {"x": ["1", "0"]}).values()
    np.testing.assert_array_equal(x, [[2.0, 1.0], [4.0, 3.0]])


def test_two_columns_of_one_name() -> None:
    frame = pandas.DataFrame([[9.0, 1.0, 2.0]], columns=[0, "0", "b"])
    with pytest.raises(UserError, match="several columns '0'"):
        as_arrays(frame, ["x"], UserError, "input", {"x": ["0", "b"]})
