"""Degrees of homogeneity: what an op claims holds on its own samples, and it claims what it should."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from contract import Case, collected, in_precision, op_graph

from irshap.ir.degrees import Broken, Degree, degrees_of
from irshap.ir.types import Array
from irshap.ops import OPS

SCALE = 2.0
"""Rounds to other element types as the numbers themselves do."""
KINDS: tuple[float, ...] = (0.0, 1.0, 2.0)


def claimed(case: Case, degrees: tuple[float, ...]) -> list[Degree | Broken]:
    graph = op_graph(case)
    (node,) = (n for n in graph.nodes if type(n.op) is type(case.op))
    found = degrees_of([node], dict(zip(node.operands, degrees, strict=True)))
    return [found[v] for v in node.results]


def same(a: Array, b: Array) -> None:
    if a.dtype.kind == "f":
        close = 1e-12 if a.dtype == np.float64 else 1e-5
        np.testing.assert_allclose(a, b, rtol=close, atol=close)
    else:
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", list(collected()))
def test_a_claim_holds(case: Case) -> None:
    """Operands scaled by their degrees give results scaled by theirs."""
    if not case.sample.operands or case.op.stops_change:
        return  # what is held doesn't scale, by definition
    wide = case.sample.operands if case.op.bodies else in_precision(case, "f64")[1]
    arrays = list(wide)
    choices = [KINDS if a.dtype.kind == "f" else (0.0,) for a in arrays]
    plain = case.results(arrays)
    for degrees in itertools.islice(itertools.product(*choices), 100):
        scaled = [a * SCALE**d if d else a for a, d in zip(arrays, degrees, strict=True)]
        for known, before, after in zip(claimed(case, degrees), plain, case.results(scaled), strict=True):
            if not isinstance(known, Broken):
                same(after, before if not known else before * SCALE**known)


POSITIVE = frozenset(
    """abs add average_pool concat conv conv_transpose cum_sum expand gather leaky_relu matmul max max_pool
    min mul neg prelu reduce_lp reduce_max reduce_mean reduce_min reduce_sum relu reshape resize slice split
    sub tile transpose where""".split()  # noqa: SIM905
)
NONE = frozenset(
    """celu elu erf exp gelu hard_sigmoid hard_swish layer_norm log_softmax mish rms_norm round selu sigmoid
    softmax softplus softsign swish tanh""".split()  # noqa: SIM905
)


@pytest.mark.parametrize("case", list(collected()))
def test_it_claims_what_it_should(case: Case) -> None:
    name, floats = case.op.mnemonic, [a.dtype.kind == "f" for a in case.sample.operands]
    if name in POSITIVE and any(floats):
        ways = itertools.product(*((0.0, 1.0) if f else (0.0,) for f in floats))
        assert 1.0 in [claimed(case, degrees)[0] for degrees in ways]
    if name in NONE:
        (found, *_) = claimed(case, tuple(float(f) for f in floats))
        assert isinstance(found, Broken)
        assert found.node.op == case.op


def test_the_lists_name_ops() -> None:
    assert set(OPS) >= NONE
    assert set(OPS) >= POSITIVE
