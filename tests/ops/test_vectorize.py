"""Every op for many samples at once gives what it gives for each alone; and so does a whole graph."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from contract import Case, collected, concrete, given, run

from irshap.ir.batch import batch_axes
from irshap.ir.builder import Builder
from irshap.ir.core import Output
from irshap.ir.dims import N
from irshap.ir.types import Array
from irshap.ops.vectorize import apply

INTERNAL = {
    "conv_weights": "the adjoint of a convolution in its weights sums over samples",
    "by_row": "found on the graph for all samples",
    "piecewise": "found on the graph for all samples",
    "repeat_rows": "pairs samples with references, once there are some",
    "scan": "loops are made once there are samples",
    "tile_rows": "pairs samples with references, once there are some",
    "unpool": "the adjoint of a max-pooling whose indices count through the whole batch",
}
"""Ops that no lifted model has, and that have no form for several samples."""
COUNT = 3


def _versions(array: Array) -> list[Array]:
    """What samples differ in: numbers in another order; positions row by row, which keeps them apart."""
    if array.dtype.kind != "f":
        return [array, array[::-1] if array.ndim > 1 else array, array]
    return [np.roll(array.reshape(-1), 5 * k).reshape(array.shape) for k in range(COUNT)]


def _subsets(count: int) -> list[tuple[int, ...]]:
    return [s for size in range(1, count + 1) for s in combinations(range(count), size)][:16]


@pytest.mark.parametrize("case", [c for c in collected() if c.values[0].sample.operands])
def test_as_each_sample_alone(case: Case) -> None:
    op, arrays = case.op.substitute(case.binding), case.sample.operands
    found = {s: _check(op, arrays, s) for s in _subsets(len(arrays))}
    assert found[(0,)] or op.mnemonic in INTERNAL


def _check(op: object, arrays: Sequence[Array], batched: Sequence[int]) -> bool:
    versions = [_versions(a) if i in batched else [a] * COUNT for i, a in enumerate(arrays)]
    alone = [op.evaluate(*(v[k] for v in versions)) for k in range(COUNT)]  # type: ignore[attr-defined]
    kinds = [concrete(a) for a in alone[0]]
    with Builder() as b:
        operands = []
        for i, array in enumerate(arrays):
            kind = concrete(array)
            operands.append(given(b, f"x{i}", kind.with_shape((N, *kind.dims)) if i in batched else kind))
        results = apply(op, operands, [i in batched for i in range(len(arrays))], N, kinds)  # type: ignore[arg-type]
        if results is None:
            return False
        graph = b.build("many", [Output(f"y{i}", v) for i, v in enumerate(results)])
    axes = batch_axes(graph)
    assert [axes.axis(o.value) for o in graph.outputs] == [0] * len(graph.outputs)
    feeds = {f"x{i}": np.stack(v) if i in batched else v[0] for i, v in enumerate(versions)}
    for i, array in enumerate(run(graph, feeds, {N: COUNT}).values()):
        expected = np.stack([a[i] for a in alone])
        assert array.dtype == expected.dtype
        np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-12)
    return True
