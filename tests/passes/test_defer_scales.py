"""defer-scales leaves predictions and attributions what they are, and leaves alone what it can't scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import irshap
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.pipeline.manager import PassManager

POSITIVE = (1.5, 0.01, 3.0, 0.4)


def concatenating(dtype: Any, scales: tuple[float, ...]) -> onnx.ModelProto:
    """A dense block of one layer: norm, ReLU and two convolutions behind a concatenation."""
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> net ({kind}[N, 2, 6, 6] x) => ({kind}[N, 3] y) {{'
        "h = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w) j = Concat<axis = 1>(x, h)"
        "n = BatchNormalization(j, scale, bias, mean, var) r = Relu(n)"
        "a = Conv<kernel_shape = [3, 3]>(r, u) b = Conv<kernel_shape = [3, 3], group = 2>(r, v)"
        "s = Concat<axis = 1>(a, b) q = Relu(s) f = Flatten(q) y = Gemm(f, g) }"
    )
    rng = np.random.default_rng(5)
    arrays = {
        "w": rng.standard_normal((2, 2, 3, 3)) / 3,
        "scale": np.array(scales),
        "bias": rng.standard_normal(4),
        "mean": rng.standard_normal(4),
        "var": rng.uniform(0.01, 4.0, 4),
        "u": rng.standard_normal((2, 4, 3, 3)) / 6,
        "v": rng.standard_normal((4, 2, 3, 3)) / 4,
        "g": rng.standard_normal((6 * 16, 3)) / 8,
    }
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), name))
    return model


def samples(dtype: Any) -> tuple[Any, Any]:
    """Three samples and five references."""
    rng = np.random.default_rng(6)
    x, references = (rng.standard_normal((n, 2, 6, 6)).astype(dtype) for n in (3, 5))
    return x, references


def in_float64(scales: tuple[float, ...], passes: str, wrt: str = "") -> tuple[list[str], dict[str, Array]]:
    """The ops of the program behind these passes, and its outputs, in float64."""
    text = f'target{{wrt="{wrt}"}},{passes}autodiff,deeplift{{emit=completeness_error}}'
    graph = PassManager.from_text(text).run(irshap.lift(concatenating(np.float64, scales)))
    x, references = samples(np.float64)
    return [n.op.mnemonic for n in graph.nodes], evaluate(graph, {"x": x, "x_references": references})


def assert_close(found: dict[str, Any], expected: dict[str, Any], part: float) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        scale = max(float(np.abs(array).max()), 1.0)
        np.testing.assert_allclose(found[name], array, rtol=0, atol=part * scale, err_msg=name)


@pytest.mark.parametrize("rule", ["rescale", "reveal-cancel"])
def test_attributions_stay_in_onnx_runtime(rule: str) -> None:
    x, references = samples(np.float32)
    model, method = concatenating(np.float32, POSITIVE), f"deeplift{{rule={rule}}}"
    passes = "@default{after=(nest-concats, defer-scales)}"
    compiled = irshap.compile(model, references, method=method, passes=passes)
    usual = irshap.compile(model, references, method=method)
    norms = [{n.op_type for n in c.model.graph.node} & {"BatchNormalization"} for c in (compiled, usual)]
    assert norms == [set(), {"BatchNormalization"}]
    naive = irshap.compile(model, references, method=method, passes="@naive").explainer()(x)
    assert_close(dict(compiled.explainer()(x).raw), dict(naive.raw), 1e-5)


def test_attributions_stay_in_float64() -> None:
    ops, found = in_float64(POSITIVE, "defer-scales,")
    assert "batch_norm" not in ops
    assert_close(found, in_float64(POSITIVE, "")[1], 1e-12)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-12])
def test_a_factor_that_does_not_pass_a_relu_stays(scale: float) -> None:
    scales = (1.5, scale, 3.0, 0.4)
    ops, found = in_float64(scales, "defer-scales,")
    assert "batch_norm" in ops
    assert_close(found, in_float64(scales, "")[1], 1e-12)


def test_what_is_attributed_to_a_relu_stays() -> None:
    _, found = in_float64(POSITIVE, "defer-scales,", wrt="r")
    assert_close(found, in_float64(POSITIVE, "", wrt="r")[1], 1e-12)
