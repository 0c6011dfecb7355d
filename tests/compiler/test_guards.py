"""What models guard against: rows without a key to attend to, logarithms and quotients of zero."""

from __future__ import annotations

from functools import cache
from typing import Any

import flat
import numpy as np
import onnx
import onnx.parser
import pytest
from two_world_cases import normal

import irshap
from irshap.ir.evaluator import evaluate
from irshap.pipeline.named import PIPELINES

NUMBERS = {"zero": 0.0, "ninf": -np.inf, "low": float(np.finfo(np.float32).min), "large": -1e9}
BIAS = "c = Unsqueeze (keep, one)"
GUARD = "i = IsNaN (p) g = Where (i, zero, p)"
MASKS = {
    "added -inf": f"{BIAS} b = Where (c, zero, ninf) e = Add (s, b) p = Softmax (e) {GUARD}",
    "chosen -inf": f"{BIAS} e = Where (c, s, ninf) p = Softmax (e) {GUARD}",
    "added minimum": f"{BIAS} b = Where (c, zero, low) e = Add (s, b) g = Softmax (e)",
    "chosen -1e9": f"{BIAS} e = Where (c, s, large) g = Softmax (e)",
    "never fires": f"p = Softmax (s) {GUARD}",
}
X, R = normal(10, 3, 3, 4), normal(11, 2, 3, 4)
KEEP = np.array([[True, True, True], [True, False, False], [False, False, False]])


@cache
def attention(name: str) -> onnx.ModelProto:
    """One head over kept positions, whose means are the output."""
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        attention (float[N,3,4] x, bool[N,3] keep) => (float[N,4] y)
        {{ q = MatMul (x, w) k = MatMul (x, u) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, t)
        {MASKS[name]} v = MatMul (x, o) z = MatMul (g, v) l = Cast <to = 1> (keep) r = Unsqueeze (l, last)
        h = Mul (z, r) y = ReduceSum <keepdims = 0> (h, one) }}"""
    )
    arrays = {k: np.float32(v) for k, v in NUMBERS.items()}
    arrays |= {k: normal(i, 4, 4).astype(np.float32) for i, k in enumerate("wuo")}
    for key, array in {**arrays, "one": np.array([1]), "last": np.array([-1])}.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), key))
    onnx.checker.check_model(parsed)
    return parsed


def explained(name: str, passes: str, dtype: Any) -> dict[str, Any]:
    text = PIPELINES[passes].replace("lift,", "lift,widen," if dtype is np.float64 else "lift,")
    options = {
        "context_inputs": ("keep",),
        "emit": "completeness_error",
        "passes": text.removesuffix(",lower"),
    }
    graph = flat.run_passes(flat.pipeline_text(**options), attention(name), {"x": R.astype(dtype)})
    return evaluate(graph, {"x": X.astype(dtype), "keep": KEEP})


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("passes", ["naive", "default", "cuda"])
def test_masks(name: str, passes: str) -> None:
    for dtype, loose in ((np.float64, 1e-10), (np.float32, 1e-5)):
        raw = explained(name, passes, dtype)
        values = raw["x_attributions"]
        assert np.isfinite(values).all()
        scale = np.abs(values).sum((1, 2)) + np.abs(raw["y"]).max(1)
        assert np.all(np.abs(raw["completeness_error"]) <= loose * scale)
        if name != "never fires":
            assert np.all(values[~KEEP] == 0), "what isn't attended to gets nothing"


@pytest.mark.parametrize("name", MASKS)
def test_masks_in_onnx_runtime(name: str) -> None:
    x, r = X.astype(np.float32), {"x": R.astype(np.float32)}
    feeds, target = {"x": x, "keep": KEEP}, irshap.Target(context="keep")
    for how in ({}, {"method": "gradient"}, {"fp16": True}, {"strategy": "fold"}):
        given = None if "method" in how else r
        found = irshap.compile(attention(name), given, target=target, **how).explainer()(feeds)
        assert np.isfinite(found.values).all()
        if "method" not in how:
            scale = np.abs(found.values).sum((1, 2)) + np.abs(found.outputs["y"]).max(1)
            loose = 2e-2 if "fp16" in how else 1e-4
            assert np.all(np.abs(found.completeness_error) <= loose * scale)


def test_a_guard_that_never_fires_changes_nothing() -> None:
    guarded, plain = attention("never fires"), onnx.ModelProto()
    plain.CopyFrom(guarded)
    del plain.graph.node[:]
    plain.graph.node.extend(n for n in guarded.graph.node if n.op_type not in ("IsNaN", "Where"))
    for node in plain.graph.node:
        node.input[:] = ["p" if v == "g" else v for v in node.input]
    r, feeds = {"x": R.astype(np.float32)}, {"x": X.astype(np.float32), "keep": KEEP}
    found, expected = (
        flat.compile(model, r, context_inputs=("keep",)).explainer()(feeds) for model in (guarded, plain)
    )
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5, atol=1e-6)


def test_a_row_that_is_masked_in_one_world_alone() -> None:
    """Its difference is infinite: the attributions are finite, and the completeness error tells."""
    parsed = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> toy (float[N,3] x) => (float[N,3] y)
        <float zero = {0}> { p = Softmax (x) i = IsNaN (p) y = Where (i, zero, p) }"""
    )
    x = np.float32([[-np.inf, -np.inf, -np.inf], [1, 2, 3]])
    found = irshap.compile(parsed, np.float32([[0.5, 0.25, 1]]), target=0).explainer()(x)
    assert abs(found.completeness_error[1]) < 1e-6
    finite = np.where(np.isfinite(x), found.values, 0)
    assert np.isfinite(finite).all()
