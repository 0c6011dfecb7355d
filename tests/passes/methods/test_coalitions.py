"""Features replaced by references: every kind of target and input, groups, convergence, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import coalitions
import numpy as np
import onnx
import pytest
from revealing import net, normal

import irshap
from irshap import demo
from irshap.cli import main
from irshap.cost import Settings
from irshap.cost.session import SessionModel
from irshap.errors import PipelineError, UserError
from irshap.ir.dims import N
from irshap.ir.types import Array
from irshap.metrics.completeness import check_completeness

pytestmark = pytest.mark.slow

TWO = """({0}[N, 3] a, {0}[N, 4] b) => ({0}[N, 3] y)
{{ c = MatMul(a, u) d = MatMul(b, v) e = Mul(c, d) s = Sigmoid(c) f = Add(e, s)
   h = Tanh(f) y = MatMul(h, w) }}"""
WIDTHS = {"float": (np.float32, 1e-5), "double": (np.float64, 1e-10)}
SAMPLE = {"a": normal(4, 2, 3), "b": normal(5, 2, 4)}
REFERENCES = {"a": normal(6, 3, 3), "b": normal(7, 3, 4)}
RULES = {
    "feature-ablation{chunk=3}": lambda count: coalitions.ablated,
    "exact-shapley": lambda count: coalitions.shapley,
    "shapley-sampling{samples=3,seed=2,chunk=4}": lambda count: coalitions.ordered(orders(2, 3, count)),
    "kernel-shap": lambda count: coalitions.shapley,
}
"""By what method and number of features; kernel-shap takes all sets of few."""


def orders(seed: int, samples: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(count).tolist() for _ in range(samples)]


def two(width: str = "double") -> onnx.ModelProto:
    weights = {"u": normal(1, 3, 5), "v": normal(2, 4, 5), "w": normal(3, 5, 3)}
    return net(TWO.format(width), **{k: v.astype(WIDTHS[width][0]) for k, v in weights.items()})


def run(
    model: onnx.ModelProto, method: str, x: Mapping[str, Array], r: Any, **arguments: Any
) -> irshap.Explanation:
    """What the compiled file says in ONNX Runtime."""
    return irshap.compile(model, r, method=method, **arguments).explainer()(x)


def close(found: Array, wanted: Array, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    assert wanted.any()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("method", RULES)
def test_two_inputs_and_every_kind_of_target(method: str, width: str) -> None:
    """The features of both inputs are one game."""
    kind, tolerance = WIDTHS[width]
    model, rule = two(width), RULES[method](7)
    x, r = ({k: v.astype(kind) for k, v in a.items()} for a in (SAMPLE, REFERENCES))
    each = [coalitions.values(model, x, r, rule, target=k) for k in range(3)]
    every = run(model, method, x, r, target="all")
    top = run(model, method, x, r, target="top-2")
    chosen = run(model, method, {**x, "target": np.array([2, 0])}, r, target="input")
    rows = np.arange(2)
    for name in x:
        stacked = np.stack([e[name] for e in each], axis=1)
        close(every.values[name], stacked, tolerance)
        for k in range(2):
            close(top.values[name][:, k], stacked[rows, top.target_index[:, k]], tolerance)
        close(chosen.values[name], stacked[rows, [2, 0]], tolerance)
    if method.startswith("feature"):
        assert every.base_values is None
    else:
        assert every.base_values is not None
        close(every.total(), every.outputs["y"] - every.base_values, 1e-5)


@pytest.mark.parametrize("method", RULES)
def test_held_inputs_interior_tensors_and_weights(method: str) -> None:
    model, x, r, weights = two(), SAMPLE, REFERENCES, np.array([1.0, 2.0, 5.0])
    held = run(model, method, x, {"a": r["a"]}, target=irshap.Target("1", context="b"))
    wanted = coalitions.values(model, x, {"a": r["a"]}, RULES[method](3), target=1, context={"b"})
    close(held.values, wanted["a"])
    inside = run(model, method, x, r, target=irshap.Target("1", wrt="h"))
    close(inside.values, coalitions.values(model, x, r, RULES[method](5), target=1, at=["h"])["h"])
    weighted = run(model, method, x, irshap.References(r, weights), target=1)
    wanted = coalitions.values(model, x, r, RULES[method](7), target=1, weights=weights)
    for name in x:
        close(weighted.values[name], wanted[name])


@pytest.mark.parametrize("method", RULES)
def test_groups_reach_across_inputs(method: str) -> None:
    groups = {"a": np.array([10, 4, 10]), "b": np.array([4, 7, -2, 10])}
    found = run(two(), method, SAMPLE, REFERENCES, groups=groups, target=2)
    wanted = coalitions.values(two(), SAMPLE, REFERENCES, RULES[method](4), groups=groups, target=2)
    for name in SAMPLE:
        close(found.values[name], wanted[name])
    close(found.values["a"][:, 0], found.values["b"][:, 3])


TOKENS = """(int64[N, 4] t) => (double[N, 2] y)
{ e = Gather(table, t) k = MatMul(e, q) p = Sigmoid(k) g = Mul(p, e)
  m = ReduceMean<keepdims = 0>(g, one) h = Tanh(m) y = MatMul(h, w) }"""


@pytest.mark.parametrize("method", RULES)
def test_tokens(method: str) -> None:
    """A token's embedding is replaced as a whole."""
    model = net(TOKENS, one=np.array([1]), table=normal(1, 9, 3), q=normal(3, 3, 3), w=normal(2, 3, 2))
    t, r = {"t": np.array([[1, 2, 3, 4], [5, 0, 7, 1]])}, {"t": np.array([[0, 8, 0, 0], [6, 6, 2, 0]])}
    found = run(model, method, t, r, target=0)
    wanted = coalitions.values(model, t, r, RULES[method](4), target=0, at=["e"], tokens=True)["e"]
    close(found.values, wanted.sum(-1))
    groups = np.array([0, 0, 1, 2])
    found = run(model, method, t, r, target=0, groups=groups)
    wanted = coalitions.values(
        model, t, r, RULES[method](3), target=0, at=["e"], tokens=True, groups={"e": groups}
    )["e"]
    close(found.values, wanted.sum(-1))


def test_a_token_that_is_read_twice_is_one_feature() -> None:
    model = net(
        """(int64[N, 3] t) => (double[N, 2] y)
        { e = Gather(table, t) f = Gather(other, t) g = Mul(e, f)
          m = ReduceSum<keepdims = 0>(g, one) h = Tanh(m) y = MatMul(h, w) }""",
        one=np.array([1]),
        table=normal(1, 9, 3),
        other=normal(3, 9, 3),
        w=normal(2, 3, 2),
    )
    t, r = {"t": np.array([[1, 2, 3], [5, 0, 7]])}, {"t": np.array([[0, 8, 0]])}
    found = run(model, "exact-shapley", t, r, target=0)
    numbers = {"e": np.arange(3), "f": np.arange(3)}
    wanted = coalitions.values(
        model, t, r, coalitions.shapley, target=0, at=["e", "f"], tokens=True, groups=numbers
    )
    close(found.values, wanted["e"].sum(-1) + wanted["f"].sum(-1))
    assert found.base_values is not None
    close(found.total(), found.outputs["y"][:, 0] - found.base_values)


def test_an_op_without_any_rule() -> None:
    """o = argmax(floor(x)): no derivative and no chord, and still complete."""
    model = net(
        """(double[N, 4] x) => (double[N, 1] y)
        { f = Floor(x) i = ArgMax<axis = 1>(f) p = Cast<to = 11>(i) y = Add(p, p) }"""
    )
    x, r = 3 * normal(1, 5, 4), 3 * normal(2, 2, 4)

    def game(row: Array, replaced: frozenset[int]) -> float:
        rows = np.where(np.isin(np.arange(4), list(replaced)), r, row)
        return float(2 * np.floor(rows).argmax(axis=1).mean())

    wanted = np.array([coalitions.shapley(partial(game, row), 4) for row in x])
    for method in ("exact-shapley", "kernel-shap"):
        close(run(model, method, {"x": x}, {"x": r}).values, wanted)


def test_known_games() -> None:
    """min(a, b) of a > b > 0 against zero: half of b each.  A linear function: w (x - r), by every method."""
    model = net(
        "(double[N, 2] x) => (double[N, 1] y) { y = ReduceMin<keepdims = 1>(x, one) }", one=np.array([1])
    )
    found = run(model, "exact-shapley", {"x": np.array([[3.0, 2.0]])}, {"x": np.zeros((1, 2))})
    np.testing.assert_allclose(found.values, [[1.0, 1.0]])
    linear = net("(double[N, 4] x) => (double[N, 1] y) { y = Gemm(x, w) }", w=normal(1, 4, 1))
    x, r = {"x": normal(3, 3, 4)}, {"x": normal(4, 2, 4)}
    for method in (*RULES, "kernel-shap{samples=8}"):
        close(run(linear, method, x, r).values, (x["x"] - r["x"].mean(0)) * normal(1, 4, 1)[:, 0], 1e-12)


def test_one_feature_gets_all() -> None:
    x, r = SAMPLE, REFERENCES
    groups = {"a": np.zeros((), int), "b": np.zeros(1, int)}
    for method in ("exact-shapley", "kernel-shap", "shapley-sampling"):
        found = run(two(), method, x, r, groups=groups, target=0)
        assert found.base_values is not None
        share = (found.outputs["y"][:, 0] - found.base_values) / 7
        close(found.values["a"], np.repeat(share[:, None], 3, axis=1))


@pytest.mark.parametrize("method", ["shapley-sampling", "kernel-shap"])
def test_sampling_converges_to_the_exact_values(method: str) -> None:
    """As 1 / sqrt(samples): sixteen times the samples, a quarter of the error."""
    images, zero = demo.digits()[0][:2], np.zeros((1, 1, 8, 8), np.float32)
    groups = np.kron(np.arange(16).reshape(4, 4), np.ones((2, 2), int)) % 12
    given = {"target": 3, "groups": groups}

    def values(text: str) -> Array:
        return irshap.compile(demo.model_path(), zero, method=text, **given).explainer()(images).values

    exact = values("exact-shapley{chunk=100}")

    def error(samples: int) -> float:
        found = [values(f"{method}{{samples={samples},seed={seed},chunk=100}}") for seed in range(4)]
        return float(np.mean([np.mean((f - exact) ** 2) for f in found]) ** 0.5)

    few, many = (8, 128) if "sampling" in method else (64, 1024)
    assert 2.5 < error(few) / error(many) < 7


def test_memory_does_not_grow_with_the_number_of_sets() -> None:
    model = net(
        "(double[N, 20] x) => (double[N, 1] y) { a = MatMul(x, u) h = Tanh(a) y = MatMul(h, w) }",
        u=normal(1, 20, 2000),
        w=normal(2, 2000, 1),
    )
    peaks = []
    for samples in (5, 50):
        method = f"shapley-sampling{{samples={samples}}}"
        graph = irshap.compile(model, normal(3, 2, 20), method=method).graph
        peaks.append(SessionModel.of(graph).predict({N: 1}, Settings()).peak)
    assert peaks[1] <= 1.05 * peaks[0]


def test_on_the_command_line(tmp_path: Path) -> None:
    numbers = np.kron(np.arange(4).reshape(2, 2), np.ones((4, 4), int))
    paths = {name: str(tmp_path / f"{name}.npy") for name in ("groups", "zero")}
    np.save(paths["groups"], numbers)
    np.save(paths["zero"], np.zeros((1, 1, 8, 8), np.float32))
    out = tmp_path / "out.onnx"
    args = ["compile", str(demo.model_path()), "-o", str(out), "--method", "exact-shapley"]
    assert main([*args, "-r", paths["zero"], "--groups", paths["groups"]]) == 0
    found = irshap.Explainer(out)(demo.digits()[0][:2]).values
    for group in range(4):
        quarter = found[:, 0, numbers == group]
        np.testing.assert_allclose(quarter, quarter[:, :1] * np.ones(16), rtol=1e-5)
    assert "groups=true" in irshap.Explainer(out).metadata["irshap.pipeline"]
    given = {"method": "exact-shapley", "groups": paths["groups"]}
    assert check_completeness(demo.model_path(), paths["zero"], demo.digits()[0][:2], **given).ok


A, B = np.arange(3), np.arange(4)
REFUSED: dict[str, tuple[str, Any, type[UserError], str]] = {
    "one array": ("exact-shapley", A, UserError, "one array, but 2 inputs.*a, b"),
    "unknown": ("exact-shapley", {"a": A, "c": B}, UserError, "no attributed input is called 'c'"),
    "missing": ("exact-shapley", {"a": A}, UserError, "none for 'b'"),
    "shape": ("exact-shapley", {"a": A, "b": A}, UserError, r"'b'.*have shape \[3\].*has \[4\]"),
    "dtype": ("exact-shapley", {"a": A, "b": B / 2}, UserError, "dtype float64.*integers"),
    "no file": ("exact-shapley", "nowhere.npy", UserError, "groups nowhere.npy: no such file"),
    "no groups": ("exact-shapley{groups=true}", None, UserError, "has no groups.*--groups"),
    "no option": ("deeplift", {"a": A, "b": B}, PipelineError, "the method deeplift replaces no groups"),
    "too few": ("kernel-shap{samples=6}", None, UserError, "6 sets don't determine 7 features.*28 or more"),
    "samples": ("shapley-sampling{samples=0}", None, PipelineError, "samples is 0"),
    "emit": ("exact-shapley{emit=sums}", None, UserError, "exact-shapley emits no 'sums'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    method, groups, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        irshap.compile(two(), REFERENCES, method=method, groups=groups)


def test_too_many_features_and_no_references() -> None:
    with pytest.raises(UserError, match=r"16 features at most, and there are 64.*kernel-shap"):
        irshap.compile(demo.model_path(), np.zeros((1, 1, 8, 8), np.float32), method="exact-shapley")
    with pytest.raises(UserError, match="no references for input 'image'"):
        irshap.compile(demo.model_path(), method="feature-ablation")
