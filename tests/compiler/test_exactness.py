"""Every fixture model, under the naive and the optimized pipeline: complete, equal, and equal to oracles.

The oracles share no code with irshap: SHAP (where it is complete itself), torch's autograd, and the float64
evaluation of the rules in tests/oracles/two_world.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import flat
import numpy as np
import onnx
import pytest
from exactness import DEFAULT, DOUBLE, FAMILIES, MODELS, NAIVE, assert_close, attributions, case, explained
from two_world import explain

from irshap.ir.evaluator import evaluate

pytestmark = pytest.mark.slow


@cache
def oracle(name: str) -> Any:
    """The first samples against the first references, in float64; one for all exports of a family."""
    given = case(name)
    sample, references = given.cut(2, 2)
    at = [given.wrt] if given.wrt else []
    return explain(onnx.load(given.path), sample, references, at=at)


@pytest.mark.parametrize("passes", ["@naive", "@default"])
@pytest.mark.parametrize("name", MODELS)
def test_complete_in_float32(name: str, passes: str) -> None:
    found = explained(name, passes)
    change = np.abs(found.target_values - found.base_values)
    allowed = 1e-4 * np.maximum(change, 1e-3 * np.abs(found.target_values))
    assert np.all(np.abs(found.completeness_error) <= allowed)
    np.testing.assert_allclose(found.base_values, case(name).data["base_values"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.target_index, case(name).data["target_index"])


@pytest.mark.parametrize("name", MODELS)
def test_naive_and_default_agree_in_float32(name: str) -> None:
    naive, default = (attributions(explained(name, passes).raw) for passes in ("@naive", "@default"))
    assert_close(default, naive, 1e-5)


@pytest.mark.parametrize("name", (*MODELS, *DOUBLE))
def test_exact_in_float64(name: str) -> None:
    """Complete, and the same under both pipelines and the oracle, but for the last digits."""
    given = case(name)
    sample, references = given.cut(2, 2)
    single = name not in DOUBLE
    results = []
    for pipeline in (NAIVE, DEFAULT):
        text = pipeline.replace("{widen}", "widen," if single else "") + ",lower"
        compiled = flat.compile(given.path, references, passes=text, wrt=given.wrt, emit="completeness_error")
        feeds = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in sample.items()}
        raw = evaluate(compiled.graph, feeds)
        values = attributions(raw)
        assert all(a.dtype == np.float64 for a in values.values())
        size = sum(np.abs(a).reshape(len(a), -1).sum(1) for a in values.values())
        assert np.all(np.abs(raw["completeness_error"]) <= 1e-10 * np.maximum(size, 1e-3))
        results.append(values)
    assert_close(results[1], results[0], 1e-12)
    family = name.rpartition("_")[0]
    expected = oracle(f"{family}_torchscript" if family in FAMILIES else name).values
    if given.wrt:
        (only,) = expected.values()
        expected = {given.wrt: only}
    # the exporters round the weights of folded batch norms each in their way
    assert_close(results[1], expected, 1e-6 if family in FAMILIES else 1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_equal_to_the_oracle_in_float32(name: str) -> None:
    given = case(name)
    sample, references = given.cut(2, 2)
    compiled = flat.compile(given.path, references, wrt=given.wrt)
    found = attributions(compiled.explainer()(sample).raw)
    family = name.rpartition("_")[0]
    expected = oracle(f"{family}_torchscript" if family in FAMILIES else name).values
    if given.wrt:
        (only,) = expected.values()
        expected = {given.wrt: only}
    assert_close(found, expected, 1e-4)


@pytest.mark.parametrize("peer", ["shap", "captum_separated"])
@pytest.mark.parametrize("name", MODELS)
def test_equal_to_peers_where_they_are_complete(name: str, peer: str) -> None:
    data = case(name).data
    if not data[f"{peer}_complete"]:
        assert np.abs(data[f"{peer}_error"]).max() > 1e-3
        return
    names = [str(n) for n in data["input_names"]]
    assert_close(
        attributions(explained(name, "@default").raw), {n: data[f"{peer}_values.{n}"] for n in names}, 1e-4
    )


@pytest.mark.parametrize("name", MODELS)
def test_gradients_equal_torch(name: str) -> None:
    given = case(name)
    compiled = flat.compile(given.path, method="gradient", wrt=given.wrt)
    found = attributions(compiled.explainer()(given.inputs).raw)
    names = [str(n) for n in given.data["input_names"]]
    wanted = {given.wrt or n: given.data[f"gradients.{n}"] for n in names}
    assert_close(found, wanted, 1e-5)
