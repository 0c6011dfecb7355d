"""Small networks at hard values: complete in float64, finite in float32, and equal to the oracle."""

from __future__ import annotations

from functools import cache
from typing import Any

import flat
import numpy as np
import onnx
import onnx.parser
import pytest
from two_world import explain
from two_world_cases import normal

import irshap
from irshap.ir.evaluator import evaluate

pytestmark = pytest.mark.slow

WEIGHTS = {
    "w": normal(1, 4, 4),
    "u": normal(2, 4, 4),
    "v": normal(3, 4, 4),
    "o": normal(4, 12, 2),
    "gamma": normal(5, 4),
    "beta": normal(6, 4),
    "root": np.array(2.0),
    "shift": np.array(1.5),
    "apart": np.array([-1, 12]),
}
NETS = {
    "softmax": "a = MatMul (x, w) s = Softmax <axis = -1> (a) h = Mul (s, x)",
    "softmax, middle axis": "a = MatMul (x, w) s = Softmax <axis = 1> (a) h = MatMul (s, u)",
    "log-softmax": "h = LogSoftmax <axis = -1> (x)",
    "layer norm": "n = LayerNormalization <axis = -1> (x, gamma, beta) h = MatMul (n, w)",
    "attention": """
        q = MatMul (x, w) k = MatMul (x, u) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, t)
        d = Div (s, root) p = Softmax <axis = -1> (d) z = MatMul (x, v) h = MatMul (p, z)
    """,
    "silu": "a = MatMul (x, w) s = Sigmoid (a) h = Mul (a, s)",
    "gated": "a = MatMul (x, w) s = Sigmoid (a) b = MatMul (x, u) h = Mul (b, s)",
    "div": "a = Sigmoid (x) d = Add (a, shift) b = MatMul (x, w) h = Div (b, d)",
    "div by itself": "a = Abs (x) s = ReduceSum <keepdims = 1> (a, last) d = Add (s, shift) h = Div (x, d)",
    "max and min": "a = MatMul (x, w) m = Max (a, x) b = MatMul (m, u) h = Min (b, x)",
    "max of three": "a = MatMul (x, w) b = MatMul (x, u) h = Max (a, b, x)",
    "transformer block": """
        n = LayerNormalization <axis = -1> (x, gamma, beta)
        q = MatMul (n, w) k = MatMul (n, u) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, t)
        p = Softmax <axis = -1> (s) z = MatMul (n, v) m = MatMul (p, z) r = Add (x, m)
        l = LayerNormalization <axis = -1> (r, gamma, beta) c = MatMul (l, w) g = Sigmoid (c) e = Mul (c, g)
        i = MatMul (e, u) h = Add (r, i)
    """,
}
X, R = normal(10, 2, 3, 4), normal(11, 3, 3, 4)
CONSTANT = np.repeat(normal(12, 3, 3, 1), 4, axis=-1)
VALUES = {
    "random": (X, R),
    "logits that differ by 200": (X * 100, R * 100),
    "constant rows": (X, CONSTANT),
    "constant samples": (CONSTANT[:2], R),
    "zero references": (X, np.zeros((1, 3, 4))),
    "the sample itself": (X, X[:1]),
    "nearly the sample": (X, X[:1] * (1 + 1e-9)),
    "one element moved": (X, np.where(np.arange(12).reshape(1, 3, 4) == 5, 0.25, X[:1])),
}


@cache
def net(name: str) -> onnx.ModelProto:
    body = f"{NETS[name]} f = Reshape (h, apart) y = MatMul (f, o)"
    parsed = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> toy (float[N,3,4] x) => (float[N,2] y) {{ {body} }}'
    )
    for key, array in (WEIGHTS | {"last": np.array([-1])}).items():
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    onnx.checker.check_model(parsed)
    return parsed


def pipeline(name: str, widen: str) -> str:
    from irshap.pipeline.named import PIPELINES

    return PIPELINES[name].replace("lift,", f"lift,{widen}")


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", NETS)
def test_complete_in_float64(name: str, values: str) -> None:
    x, r = VALUES[values]
    results: list[Any] = []
    for passes in ("naive", "default"):
        compiled = flat.compile(net(name), r, passes=pipeline(passes, "widen,"), emit="completeness_error")
        raw = evaluate(compiled.graph, {"x": x})
        assert np.isfinite(raw["x_attributions"]).all()
        scale = np.abs(raw["x_attributions"]).sum((1, 2)) + np.abs(raw["y"]).max(1)
        assert np.all(np.abs(raw["completeness_error"]) <= 1e-10 * scale)
        results.append(raw["x_attributions"])
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-10 * (np.abs(results[0]).max() + 1e-9))
    expected = explain(net(name), {"x": x}, {"x": r}).values["x"]
    # where sample and reference nearly meet, the oracle divides by what is left and loses digits itself
    loose = 1e-5 if values == "nearly the sample" else 1e-8
    np.testing.assert_allclose(results[1], expected, rtol=0, atol=loose * (np.abs(expected).max() + 1e-9))


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("name", NETS)
def test_finite_and_complete_in_float32(name: str, values: str) -> None:
    x, r = (a.astype(np.float32) for a in VALUES[values])
    for passes in ("@naive", "@default"):
        found = irshap.compile(net(name), r, passes=passes).explainer()(x)
        assert np.isfinite(found.values).all()
        scale = np.abs(found.values).sum((1, 2)) + np.abs(found.outputs["y"]).max(1)
        assert np.all(np.abs(found.completeness_error) <= 1e-4 * scale)


def test_references_fold_where_the_runtime_fails_on_float64() -> None:
    """ONNX Runtime throws while it fuses Relu and Clip in float64; references are folded all the same."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
        clipped (double[N, 3] x) => (double[N, 3] y) <double low = {0.0}, double high = {1.5}> {
            r = Relu (x)
            c = Clip (r, low, high)
            y = Sin (c)
        }"""
    rows = np.random.default_rng(0).standard_normal((4, 3))
    graph = flat.compile(onnx.parser.parse_model(text), rows, wrt="c", emit="completeness_error").graph
    error = evaluate(graph, {"x": rows * 2})["completeness_error"]
    assert np.abs(error).max() < 1e-12


@pytest.mark.parametrize("passes", ["@naive", "@default"])
def test_a_sigmoid_that_is_spelled_out_does_not_overflow(passes: str) -> None:
    """e^200 is infinite in float32; 1/(1 + e^-x) and its chord aren't, and keep their digits where small."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
        spelled (float[N, 2] x) => (float[N, 2] y) <float one = {1}> {
            n = Neg (x)
            e = Exp (n)
            s = Add (e, one)
            y = Div (one, s)
        }"""
    x = np.array([[-200.0, -14.0], [90.0, -30.0], [0.5, -2.0]], np.float32)
    r = np.array([[-16.0, -16.0]], np.float32)
    found = irshap.compile(onnx.parser.parse_model(text), r, target=1, passes=passes).explainer()(x)
    y, y0 = (1 / (1 + np.exp(-a[:, 1].astype(np.float64))) for a in (x, r))
    np.testing.assert_allclose(found.target_values, y, rtol=1e-5)
    np.testing.assert_allclose(found.values[:, 1], y - y0, rtol=1e-5)
    assert not found.values[:, 0].any()
