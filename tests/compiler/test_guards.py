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
from irshap.lowering.files.session import Session
from irshap.pipeline.named import PIPELINES as NAMED

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


PIPELINES = {
    **NAMED,
    # in a loop over references, which models this small need not
    "streamed": NAMED["default"].replace("stream{", "stream{chunk=1, together=1, "),
}


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
@pytest.mark.parametrize("passes", ["naive", "default", "cuda", "streamed"])
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


NORMS = {
    "max of the norm": "n = ReduceL2 <axes = [-1]> (x) d = Max (n, eps) h = Div (x, d)",
    "clipped norm": "n = ReduceL2 <axes = [-1]> (x) d = Clip (n, eps) h = Div (x, d)",
    "clipped and expanded": """n = ReduceL2 <axes = [-1]> (x) c = Clip (n, eps) z = Shape (x)
        d = Expand (c, z) h = Div (x, d)""",
    "norm by parts": """q = Mul (x, x) a = ReduceSum <keepdims = 1> (q, last) n = Sqrt (a) d = Max (eps, n)
        h = Div (x, d)""",
    "cosine": """a = MatMul (x, w) b = MatMul (x, u) n = ReduceL2 <axes = [-1]> (a)
        m = ReduceL2 <axes = [-1]> (b) p = Mul (n, m) d = Max (p, eps) c = Mul (a, b)
        s = ReduceSum <keepdims = 1> (c, last) k = Div (s, d) h = Mul (x, k)""",
    "logarithm": "p = Relu (x) q = Add (p, small) h = Log (q)",
    "logarithm of a softmax": "p = Softmax <axis = -1> (x) q = Add (p, eps) h = Log (q)",
    "root": "p = Relu (x) h = Sqrt (p)",
    "no division by zero": """q = Mul (x, x) s = ReduceSum <keepdims = 1> (q, last) e = Equal (s, zero)
        d = Div (x, s) h = Where (e, zero, d)""",
    "quotient, or 0": """q = Mul (x, x) s = ReduceSum <keepdims = 1> (q, last) d = Div (x, s) i = IsNaN (d)
        h = Where (i, zero, d)""",
    "logarithm, or 0": """l = Log (x) i = IsNaN (l) n = Where (i, zero, l) j = IsInf (n)
        h = Where (j, zero, n)""",
}
ZERO = np.zeros((1, 3, 4))
ROWS = X * (np.arange(3) != 1)[:, None]
AT_ZERO = {
    "zero references": (X, ZERO),
    "zero samples": (np.repeat(ZERO, 2, 0), R),
    "zero everywhere": (np.repeat(ZERO, 2, 0), ZERO),
    "rows of zeros": (ROWS, R),
    "rows of zeros in both": (ROWS, ROWS[:2]),
    "no zeros": (X, R),
}


@cache
def norm(name: str) -> onnx.ModelProto:
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> toy (float[N,3,4] x) => (float[N,2] y)
        {{ {NORMS[name]} f = Reshape (h, apart) y = MatMul (f, o) }}"""
    )
    arrays = {"w": normal(1, 4, 4), "u": normal(2, 4, 4), "o": normal(4, 12, 2)}
    arrays |= {"eps": np.array(1e-12), "small": np.array(1e-6), "zero": np.array(0.0)}
    arrays = {k: a.astype(np.float32) for k, a in arrays.items()}
    for key, array in {**arrays, "apart": np.array([-1, 12]), "last": np.array([-1])}.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
    onnx.checker.check_model(parsed)
    return parsed


@pytest.mark.parametrize("values", AT_ZERO)
@pytest.mark.parametrize("name", NORMS)
def test_at_zero(name: str, values: str) -> None:
    """In float32: finite, complete to f(x) - base itself, and no terms that have to cancel."""
    x, r = (a.astype(np.float32) for a in AT_ZERO[values])
    for passes in ("naive", "default", "cuda", "streamed"):
        graph = flat.compile(norm(name), r, passes=PIPELINES[passes], emit="completeness_error").graph
        raw = evaluate(graph, {"x": x})
        values32 = raw["x_attributions"]
        assert np.isfinite(values32).all()
        size = np.abs(raw["y"]).max(1) + np.abs(raw["base_values"])
        assert np.all(np.abs(raw["completeness_error"]) <= 1e-3 * size + 1e-6)
        assert np.all(np.abs(values32).sum((1, 2)) <= 100 * size + 1e-6)
    derivative = flat.compile(norm(name), method="gradient").graph
    if name not in ("root", "logarithm, or 0", "norm by parts"):  # a root's slope at 0 is infinite
        assert np.isfinite(evaluate(derivative, {"x": x})["x_attributions"]).all()


def test_a_guard_that_holds_nowhere_is_a_division() -> None:
    """Where neither world is at the guard, the rule is that of a division, as rules.md has it."""
    x, r = X.astype(np.float32), R.astype(np.float32)
    plain = onnx.ModelProto()
    plain.CopyFrom(norm("max of the norm"))
    del plain.graph.node[:]
    for node in norm("max of the norm").graph.node:
        node = onnx.NodeProto.FromString(node.SerializeToString())
        node.input[:] = ["n" if v == "d" else v for v in node.input]
        plain.graph.node.extend([node] if node.op_type != "Max" else [])
    found, expected = (flat.compile(m, r).explainer()(x).values for m in (norm("max of the norm"), plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_row_that_is_masked_in_one_world_alone() -> None:
    """Its difference is infinite: attributions are finite where x is, and the other sample is explained."""
    parsed = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> toy (float[N,3] x) => (float[N,3] y)
        <float zero = {0}> { p = Softmax (x) i = IsNaN (p) y = Where (i, zero, p) }"""
    )
    x = np.float32([[-np.inf, -np.inf, -np.inf], [1, 2, 3]])
    compiled = irshap.compile(parsed, np.float32([[0.5, 0.25, 1]]), target=0)
    session = Session(compiled.model)
    names = [o.name for o in compiled.model.graph.output]
    found = dict(zip(names, session.run({"x": x}), strict=True))
    values = found["x_attributions"]
    difference = found["y"][:, 0] - found["base_values"]
    assert abs(difference[1] - values[1].sum()) < 1e-6
    finite = np.where(np.isfinite(x), values, 0)
    assert np.isfinite(finite).all()
