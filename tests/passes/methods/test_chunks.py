"""How points are divided into chunks."""

import numpy as np
import pytest

from irshap.passes.methods.chunks import in_chunks


@pytest.mark.parametrize(
    ("count", "most", "shape"),
    [
        (196, 25, (9, 22)),  # 198 rows rather than 8 x 25 = 200
        (50, 10, (5, 10)),
        (25, 10, (3, 9)),
        (7, 10, (1, 7)),
        (7, 0, (1, 7)),
        (5, 1, (5, 1)),
    ],
)
def test_as_few_rows_as_a_quarter_more_trips_allow(count: int, most: int, shape: tuple[int, int]) -> None:
    points = np.arange(1.0, count + 1)
    chunks = in_chunks(points, most, fill=0.0)
    assert chunks.shape == shape
    np.testing.assert_array_equal(chunks.ravel()[:count], points)
    assert not chunks.ravel()[count:].any()


def test_the_last_point_fills_up() -> None:
    np.testing.assert_array_equal(in_chunks(np.arange(3), 2), [[0, 1], [2, 2]])
