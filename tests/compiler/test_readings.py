"""Models whose batch isn't first, with inputs that are fixed: attributions add up as for any other."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import irshap
from irshap.errors import ModelError, TargetError
from irshap.metrics.completeness import check_completeness

RNG = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.standard_normal(shape).astype(np.float32)


def parsed(text: str, **weights: np.ndarray[Any, Any]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    return model


STATES = parsed(
    "(float[n,4] x, float[2,n,3] h) => (float[n,5] y, float[2,n,3] z) { a = Add(h, one) z = Tanh(a) "
    "s = ReduceMean<axes=[0], keepdims=0>(z) b = MatMul(x, w) c = Mul(b, s) y = MatMul(c, v) }",
    one=f32(3),
    w=f32(4, 3),
    v=f32(3, 5),
)
PIPELINES = ["@naive", "@default", "@cuda"]


@pytest.mark.parametrize("passes", PIPELINES)
@pytest.mark.parametrize("target", [0, "top-2", "input"])
def test_an_input_whose_batch_is_on_another_axis(passes: str, target: Any) -> None:
    """Its references are rows, [R, layers, states], and so are its attributions: samples come first."""
    references = {"x": f32(3, 4), "h": f32(3, 2, 3)}
    inputs = {"x": f32(6, 4), "h": f32(2, 6, 3)}
    if target == "input":
        inputs["target"] = np.arange(6) % 5
    found = check_completeness(STATES, references, inputs, target=target, passes=passes)
    assert found.ok, found.error
    assert np.abs(found.prediction - found.base_values).max() > 0.1
    explanation = irshap.compile(STATES, references, target=target, passes=passes).explainer()(inputs)
    assert explanation.values["h"].shape[0] == 6 and explanation.values["h"].shape[-2:] == (2, 3)
    assert np.abs(explanation.completeness_error).max() < 1e-5
    assert len(explanation) == 6
    np.testing.assert_array_equal(explanation.data["h"], inputs["h"].transpose(1, 0, 2))


@pytest.mark.parametrize("passes", PIPELINES)
def test_it_is_held(passes: str) -> None:
    held = irshap.Target(1, context="h")
    inputs = {"x": f32(6, 4), "h": f32(2, 6, 3)}
    found = check_completeness(STATES, f32(3, 4), inputs, target=held, passes=passes)
    assert found.ok and np.abs(found.prediction - found.base_values).max() > 0.1


@pytest.mark.parametrize("passes", PIPELINES)
@pytest.mark.parametrize("target", ["argmax", "top-2"])
def test_an_output_whose_batch_is_on_another_axis(passes: str, target: Any) -> None:
    references = {"x": f32(3, 4), "h": f32(3, 2, 3)}
    inputs = {"x": f32(6, 4), "h": f32(2, 6, 3)}
    states = irshap.Target(target, output="z")
    given = {"h": references["h"]}
    found = check_completeness(STATES, given, inputs, target=states, passes=passes)
    assert found.ok and np.abs(found.prediction - found.base_values).max() > 0.1
    explanation = irshap.compile(STATES, given, target=states, passes=passes).explainer()(inputs)
    assert np.abs(explanation.completeness_error).max() < 1e-5
    # [layers, N, states] counts as [N, layers states]
    flat = np.tanh(inputs["h"] + numpy_helper.to_array(STATES.graph.initializer[0])).transpose(1, 0, 2)
    rows = np.take_along_axis(flat.reshape(6, -1), np.asarray(explanation.target_index).reshape(6, -1), 1)
    np.testing.assert_allclose(
        rows.reshape(explanation.target_values.shape), explanation.target_values, rtol=1e-5
    )


@pytest.mark.parametrize("passes", PIPELINES)
def test_samples_after_time(passes: str) -> None:
    """[time, batch, features] in and out, named, since nothing tells them apart; and as a batch of 1."""
    weights = {"w": f32(4, 3)}
    body = "{ a = MatMul(x, w) b = Tanh(a) c = CumSum(b, zero) y = Softplus(c) }"
    for size in ("n", "1"):
        text = f"(float[5,{size},4] x) => (float[5,{size},3] y) <int64 zero = {{0}}> {body}"
        model = irshap.Model(parsed(text, **weights), batch_axes={"x": 1, "y": 1})
        found = check_completeness(model, f32(3, 5, 4), f32(5, 6, 4), target=7, passes=passes)
        assert found.ok and np.abs(found.prediction - found.base_values).max() > 0.1
    with pytest.raises(TargetError, match="first axis doesn't count samples"):
        irshap.compile(parsed(text, **weights), f32(3, 5, 4))


def test_scalar_inputs_are_fixed() -> None:
    text = (
        "(float[n,4] x, float gain, bool loud) => (float[n,4] y) { a = Mul(x, gain) b = Tanh(a) y = If(loud) "
    )
    text += "< then_branch = yes () => (float[n,4] t) { t = Mul(b, b) }, "
    text += "else_branch = no () => (float[n,4] t) { t = Neg(b) } > }"
    model = parsed(text)
    with pytest.raises(TargetError, match="count samples"):
        irshap.compile(model, f32(3, 4), target=0)
    fixed = irshap.Model(model, set={"gain": 2.0, "loud": True})
    x, references = f32(6, 4), f32(3, 4)
    explained = irshap.compile(fixed, references, target=0).explainer()
    assert explained.input_names == ("x",)
    share = np.tanh(2 * x[:, 0]) ** 2 - np.mean(np.tanh(2 * references[:, 0]) ** 2)
    np.testing.assert_allclose(explained(x).values[:, 0], share, rtol=1e-4, atol=1e-5)
    assert check_completeness(fixed, references, x, target=0).ok
    with pytest.raises(ModelError, match="no such input"):
        irshap.compile(irshap.Model(model, set={"loudness": True}), references)
