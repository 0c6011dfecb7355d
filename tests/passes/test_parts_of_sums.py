"""Numbers divided by their sum, as scikit-learn makes probabilities of one-against-the-rest scores."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import irshap
from irshap.pipeline.manager import PassManager

SCORES = "l = MatMul (x, w) p = Sigmoid (l)"
# where no class speaks, skl2onnx gives all the same
GUARDED = """s = ReduceSum <keepdims = 1> (p, last) any = Cast <to = 9> (s)
    none = Not (any) i = Cast <to = 1> (none) u = Add (p, i)
    three = Mul (i, n) v = Add (s, three) y = Div (u, v)"""
FORMS = {
    "plain": "s = ReduceSum <keepdims = 1> (p, last) y = Div (p, s)",
    "guarded": GUARDED,
    "without the axis": "s = ReduceSum <keepdims = 0> (p, last) v = Unsqueeze (s, last) y = Div (p, v)",
    "a little more": "s = ReduceSum <keepdims = 1> (p, last) v = Add (s, tiny) y = Div (p, v)",
    "expanded": "s = ReduceSum <keepdims = 1> (p, last) d = Shape (p) v = Expand (s, d) y = Div (p, v)",
    "one of two terms": "h = Mul (l, half) q = Sigmoid (h) v = Add (p, q) y = Div (p, v)",
}
OTHERS = {
    "by the sum of others": "q = Exp (l) s = ReduceSum <keepdims = 1> (q, last) y = Div (p, s)",
    "by the sum of sizes": "a = Abs (l) s = ReduceSum <keepdims = 1> (a, last) y = Div (l, s)",
    "by the root of a sum": "q = Mul (p, p) s = ReduceSum (q, last) v = Sqrt (s) y = Div (p, v)",
}


def model(form: str, scale: float = 1.0) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,3] y)
        <int64[1] last = {{-1}}, float n = {{3}}, float tiny = {{1e-30}}, float half = {{0.5}}>
        {{ {SCORES} {form} }}"""
    made = parser.parse_model(text)
    w = scale * np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(w, "w"))
    return made


def kinds(form: str) -> set[str]:
    graph = PassManager.from_text("lift,target,canonicalize,piecewise").run(model(form))
    return {node.op.mnemonic for node in graph.nodes}


@pytest.mark.parametrize("name", FORMS)
def test_found(name: str) -> None:
    assert "part_of_sum" in kinds(FORMS[name])


@pytest.mark.parametrize("name", OTHERS)
def test_not_mistaken(name: str) -> None:
    assert "part_of_sum" not in kinds(OTHERS[name])


@pytest.mark.parametrize("name", FORMS)
def test_complete_where_a_sum_is_nearly_0(name: str) -> None:
    rng = np.random.default_rng(1)
    # sums are between 1e-35 and 3; where one more sigmoid makes 0/0 of what is smaller, to 1e-8
    scale = 5.0 if name == "one of two terms" else 20.0
    x, references = (rng.standard_normal((n, 4)).astype(np.float32) for n in (200, 5))
    made = irshap.compile(model(FORMS[name], scale), references, method="deeplift{emit=completeness_error}")
    explanation = made.explainer()(x)
    assert explanation.completeness_error is not None
    assert np.abs(explanation.completeness_error).max() < 2e-6
    # probabilities are between 0 and 1; what features get isn't far beyond
    assert np.abs(explanation.values).max() < 20
