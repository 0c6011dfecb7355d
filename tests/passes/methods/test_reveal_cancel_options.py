"""RevealCancel with the other options of attribution, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path

import flat
import numpy as np
import onnx
import pytest
from revealing import COMPLETE, PIPELINES, RULES, attribute, check, net, normal, residual, singled
from two_world import Result, explain

import irshap
from irshap import demo
from irshap.cli import main
from irshap.errors import NotDifferentiable, PipelineError
from irshap.ir.evaluator import evaluate

pytestmark = pytest.mark.slow

# Around it: several inputs, interior tensors, classes, weights, references at run time

TWO = """(double[N, 3] a, double[N, 4] b) => (double[N, 2] y)
{ c = MatMul(a, u) d = MatMul(b, v) e = Add(c, d) h = Relu(e) y = MatMul(h, w) }"""


def two() -> onnx.ModelProto:
    return net(TWO, u=normal(1, 3, 5), v=normal(2, 4, 5), w=normal(3, 5, 2))


def test_several_inputs_weights_and_context() -> None:
    sample = {"a": normal(4, 2, 3), "b": normal(5, 2, 4)}
    references = {"a": normal(6, 3, 3), "b": normal(7, 3, 4)}
    check(two(), sample, references)
    weights = np.array([1.0, 2.0, 5.0])
    for rule in RULES:
        wanted = explain(two(), sample, references, rule=rule, weights=weights)
        found = attribute(two(), sample, references, rule=rule, weights=weights)
        np.testing.assert_allclose(found["b_attributions"], wanted.values["b"], rtol=1e-10)
        held = {"a": references["a"]}
        alone = explain(two(), sample, held, rule=rule, context={"b"})
        found = attribute(two(), sample, held, rule=rule, context_inputs={"b"})
        np.testing.assert_allclose(found["a_attributions"], alone.values["a"], rtol=1e-10, atol=1e-13)
        assert np.abs(found["completeness_error"]).max() < COMPLETE


def test_every_class_at_once_and_interior_tensors() -> None:
    model, x, r = residual(), {"x": normal(1, 2, 2, 9, 9)}, {"x": normal(2, 2, 2, 9, 9)}
    for rule, passes in itertools.product(RULES, PIPELINES):
        found = attribute(model, x, r, rule=rule, passes=passes, target="all")
        each = [attribute(model, x, r, rule=rule, target=k)["x_attributions"] for k in range(3)]
        np.testing.assert_allclose(found["x_attributions"], np.stack(each, axis=1), rtol=1e-9, atol=1e-12)
        inside = attribute(model, x, r, rule=rule, passes=passes, wrt="f")
        assert inside["f_attributions"].shape == (2, 8)
        assert np.abs(inside["completeness_error"]).max() < COMPLETE


def test_references_at_run_time() -> None:
    passes = "lift,canonicalize,target,autodiff,deeplift{rule=reveal-cancel},eliminate-split-tile,dce,lower"
    compiled = irshap.compile(two(), passes=passes, target=1)
    sample = {"a": normal(4, 2, 3), "b": normal(5, 2, 4)}
    references = {"a": normal(6, 3, 3), "b": normal(7, 3, 4)}
    given = {f"{name}_references": value for name, value in references.items()}
    found = evaluate(compiled.graph, {**sample, **given})
    wanted: Result = explain(two(), sample, references, rule="reveal-cancel", target=1)
    np.testing.assert_allclose(found["a_attributions"], wanted.values["a"], rtol=1e-10)


def test_in_onnx_runtime() -> None:
    model, x, r = singled(two()), {"a": normal(4, 2, 3), "b": normal(5, 2, 4)}, {"a": normal(6, 3, 3)}
    r["b"] = normal(7, 3, 4)
    x, r = ({k: v.astype(np.float32) for k, v in arrays.items()} for arrays in (x, r))
    wanted = explain(model, x, r, rule="mixed")
    for passes in PIPELINES:
        explainer = flat.compile(model, r, rule="mixed", passes=passes).explainer()
        found = explainer(x)
        np.testing.assert_allclose(found.values["a"], wanted.values["a"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_on_the_command_line(tmp_path: Path, rule: str) -> None:
    given, out = tmp_path / "references.npy", tmp_path / "out.onnx"
    np.save(given, np.load(demo.references_path())[:3])
    args = ["compile", str(demo.model_path()), "-r", str(given), "-o", str(out), "--rule", rule]
    assert main([*args, "--emit", "completeness_error"]) == 0
    images = demo.digits()[0][:2]
    found = irshap.Explainer(out)(images)
    assert found.completeness_error is not None
    assert np.abs(found.completeness_error).max() < 1e-4
    wanted = explain(onnx.load(demo.model_path()), {"image": images}, {"image": np.load(given)}, rule=rule)
    close = 1e-5 * np.abs(wanted.values["image"]).max()
    np.testing.assert_allclose(found.values, wanted.values["image"], rtol=0, atol=close)


# Refusals

REFUSED = {
    "Softmax": ("y = Softmax(c)", "no rule"),
    "LayerNormalization": ("y = LayerNormalization(c, k)", "no rule"),
    "ReduceL2": ("y = ReduceL2<keepdims = 1>(c, one)", "no rule"),
    "Mul": ("y = Mul(c, x)", "all factors but one"),
    "MatMul": (
        "t = Unsqueeze(c, one) u = Unsqueeze(x, two) z = MatMul(t, u) y = Flatten(z)",
        "all factors but one",
    ),
    "Div": ("y = Div(x, c)", "divisor"),
    "Max": ("y = Max(c, x)", "all operands but one"),
    "Log": ("e = Exp(c) y = Log(e)", "undefined"),
    "Sqrt": ("e = Exp(c) y = Sqrt(e)", "undefined"),
    "Gather": ("i = ArgMax<axis = 1>(c) y = GatherElements<axis = 1>(x, i)", "RevealCancel has no rule"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    body, reason = REFUSED[name]
    model = net(
        f"(double[N, 4] x) => (double[N, M] y) {{ c = Gemm(x, w) {body} }}",
        w=normal(1, 4, 4),
        two=np.array([2]),
        k=np.ones(4),
        one=np.array([1]),
    )
    for node in model.graph.node:
        node.name = f"the {node.op_type}"
    for passes in PIPELINES:
        with pytest.raises(NotDifferentiable, match=reason) as caught:
            flat.compile(model, normal(2, 2, 4), rule="reveal-cancel", passes=passes, target=0)
        wanted = "the Gather" if name == "Gather" else f"the {name}"
        assert wanted in str(caught.value)


def test_mixed_takes_any_activation_after_a_convolution() -> None:
    """Rescale needs f at the two ends only."""
    model = net(
        """(double[N, 1, 5] x) => (double[N, 1] y)
        { c = Conv(x, w) e = Exp(c) l = Log(e) f = Flatten(l) y = MatMul(f, v) }""",
        w=normal(1, 2, 1, 2),
        v=normal(2, 8, 1),
    )
    check(model, {"x": normal(3, 2, 1, 5)}, {"x": normal(4, 3, 1, 5)}, rules=["mixed"], close=1e-10)
    with pytest.raises(NotDifferentiable, match="undefined"):
        flat.compile(model, normal(4, 3, 1, 5), rule="reveal-cancel")


def test_the_gap_of_an_op_without_a_rule() -> None:
    """On request nothing goes through it, and completeness_error says how much that is."""
    model = net(
        "(double[N, 4] x) => (double[N, 1] y) { c = Mul(x, x) s = Add(c, x) y = MatMul(s, v) }",
        v=normal(1, 4, 1),
    )
    x, r, v = normal(2, 3, 4), normal(3, 2, 4), normal(1, 4, 1)
    compiled = flat.compile(model, r, rule="reveal-cancel", on_incomplete="residual")
    found = evaluate(compiled.graph, {"x": x})
    gap = (x**2) @ v - ((r**2) @ v).mean(axis=0)
    np.testing.assert_allclose(found["completeness_error"], gap[:, 0], rtol=1e-10)
    assert "mul" in next(p.value for p in compiled.model.metadata_props if p.key == "irshap.incomplete")


def test_unknown_rule() -> None:
    with pytest.raises(PipelineError, match=r"reveal.*rescale\|reveal-cancel\|mixed"):
        flat.compile(two(), {}, rule="reveal")
