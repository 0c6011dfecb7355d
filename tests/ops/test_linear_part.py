"""The facet `linear_part`: an op without its summands, and with the absolute values of its coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from irshap.ir.builder import Builder
from irshap.ir.core import OPS, NoLocalRule, Op, Output, Sample, Value
from irshap.ir.dims import N
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array, DType, TensorType
from irshap.ops.program import Input
from irshap.ops.shape import zeros_like


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def linear_samples() -> list[Any]:
    found = []
    for name, cls in sorted(OPS.items()):
        for i, sample in enumerate(cls.samples()):
            linear = sample.varying and sample.op.linear_in(frozenset(sample.varying))
            if linear and sum(sample.operands[k].size for k in sample.varying) <= 200:
                found.append(pytest.param(sample, id=f"{name}-{i}"))
    return found


@pytest.mark.parametrize("sample", linear_samples())
def test_absolute_coefficients(sample: Sample) -> None:
    """Of `linear_part`: the op's differences, and with `absolute` the absolute values of its matrix."""
    varying = frozenset(sample.varying)
    binding = {}
    if sample.batch is not None:
        axis = next(a for a in sample.batch if a is not None)
        size = sample.operands[[a is not None for a in sample.batch].index(True)].shape[axis]
        binding = {N: size}
    op = sample.op.substitute(binding)
    try:
        plain, absolute = (part_of(op, sample, a) for a in (False, True))
    except NoLocalRule as error:
        assert str(error).startswith("RevealCancel")
        return
    x = {i: normal(i, *sample.operands[i].shape) for i in varying}
    r = {i: normal(i + 50, *sample.operands[i].shape) for i in varying}
    worlds = [op.evaluate(*(w.get(i, v) for i, v in enumerate(sample.operands))) for w in (x, r)]
    for y, y0, d in zip(*worlds, plain({i: x[i] - r[i] for i in varying}), strict=True):
        np.testing.assert_allclose(d, y - y0, rtol=1e-6, atol=1e-6)
    for i in varying:
        for at in range(sample.operands[i].size):
            one = {k: np.zeros(sample.operands[k].shape) for k in varying}
            one[i].reshape(-1)[at] = 1.0
            for column, size in zip(plain(one), absolute(one), strict=True):
                np.testing.assert_allclose(size, np.abs(column), rtol=1e-6, atol=1e-6)


def part_of(op: Op, sample: Sample, absolute: bool) -> Any:
    """A function of the operands that vary, by index."""
    with Builder() as b:
        operands: list[Value] = []
        for i, array in enumerate(sample.operands):
            type = TensorType(DType.of(array), array.shape)
            operands += b.emit(Input(f"x{i}"), types=(type,), names=(f"x{i}",))
        part, given = op.linear_part(operands, frozenset(sample.varying), absolute)
        filled = [zeros_like(operands[i]) if v is None else v for i, v in enumerate(given)]
        results = b.emit(part, *filled)
        graph = b.build("part", [Output(f"y{k}", v) for k, v in enumerate(results)])
    feeds = {f"x{i}": v for i, v in enumerate(sample.operands)}

    def run(values: Mapping[int, Array]) -> list[Array]:
        new = {f"x{i}": v.astype(sample.operands[i].dtype) for i, v in values.items()}
        found = evaluate(graph, {**feeds, **new})
        return [found[f"y{k}"] for k in range(len(results))]

    return run
