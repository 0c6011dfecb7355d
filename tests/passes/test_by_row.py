"""Choices that a row makes, such as a router's experts: what they change goes to the row's scores."""

from __future__ import annotations

import flat
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import irshap
from irshap.errors import NotDifferentiable
from irshap.ir.evaluator import evaluate
from irshap.ops.by_row import ByRow
from irshap.pipeline.manager import PassManager
from irshap.pipeline.named import PIPELINES

TOKENS, WIDTH, EXPERTS = 3, 4, 5

ROUTERS = {
    "largest by token": """
        p = Softmax <axis = -1> (logits)  w, i = TopK <axis = -1> (p, two)""",
    "merged tokens": """
        l = Reshape (logits, merged)  p = Softmax <axis = -1> (l)  w0, i0 = TopK <axis = -1> (p, two)
        w = Reshape (w0, apart)  i = Reshape (i0, apart)""",
    "gathered weights": """
        p = Sigmoid (logits)  c = Add (p, bias)  u, i = TopK <axis = -1> (c, two)
        w = GatherElements <axis = -1> (p, i)""",
    "picked from what is ranked": """
        p = Softmax <axis = -1> (logits)  u, i = TopK <axis = -1> (p, two)
        w = GatherElements <axis = -1> (p, i)""",
    "masked with infinity": """
        m = ReduceMax <axes = [-1], keepdims = 1> (logits)  d = Sub (m, logits)  c = Greater (d, half)
        l = Where (c, infinite, logits)  p = Softmax <axis = -1> (l)  w, i = TopK <axis = -1> (p, two)""",
    "two best groups": """
        p = Sigmoid (logits)  front = Slice (p, zero, four, last)  g = Reshape (front, groups)
        best = ReduceMax <axes = [-1], keepdims = 0> (g)  b, j = TopK <axis = -1> (best, one)
        k = Gather <axis = 0> (members, j)  i = Reshape (k, apart)  w = GatherElements <axis = -1> (p, i)""",
}


def model(router: str) -> onnx.ModelProto:
    rng = np.random.default_rng(4)
    found = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        moe (float[N, {TOKENS}, {WIDTH}] x) => (float[N, 2] y) {{
            logits = MatMul (x, gate)
            {ROUTERS[router]}
            e = Gather <axis = 0> (experts, i)
            xs = Reshape (x, column)
            h = MatMul (e, xs)
            a = Tanh (h)
            ws = Unsqueeze (w, last_two)
            t = Mul (a, ws)
            s = ReduceSum <keepdims = 0> (t, middle)
            f = ReduceSum <keepdims = 0> (s, last)
            y = MatMul (f, out)
        }}"""
    )
    held = {
        "gate": rng.standard_normal((WIDTH, EXPERTS)).astype(np.float32),
        "experts": rng.standard_normal((EXPERTS, WIDTH, WIDTH)).astype(np.float32),
        "out": rng.standard_normal((TOKENS, 2)).astype(np.float32),
        "bias": rng.standard_normal(EXPERTS).astype(np.float32),
        "infinite": np.float32(-np.inf),
        "half": np.float32(2.5),
        "members": np.array([[0, 1], [2, 3]]),
        "two": np.array([2]),
        "one": np.array([1]),
        "zero": np.array([0]),
        "four": np.array([4]),
        "last": np.array([-1]),
        "last_two": np.array([-1, -2]),
        "middle": np.array([2, 4]),
        "merged": np.array([-1, EXPERTS]),
        "apart": np.array([-1, TOKENS, 2]),
        "groups": np.array([-1, TOKENS, 2, 2]),
        "column": np.array([-1, TOKENS, 1, WIDTH, 1]),
    }
    found.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in held.items())
    return found


def wide(passes: str) -> str:
    """A pipeline in float64, to its last graph."""
    return PIPELINES[passes].replace("lift,", "lift,widen,").removesuffix(",lower")


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.standard_normal((4, TOKENS, WIDTH)), rng.standard_normal((3, TOKENS, WIDTH))


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("passes", ["default", "naive"])
def test_complete(router: str, passes: str) -> None:
    x, r = data()
    found = evaluate(flat.run_passes(wide(passes), model(router), r), {"x": x})
    summed = found["x_attributions"].reshape(len(x), -1).sum(1)
    y = found["y"]
    explained = np.take_along_axis(y, found["target_index"].reshape(-1, 1), 1)[:, 0]
    np.testing.assert_allclose(summed, explained - found["base_values"], atol=1e-12)


@pytest.mark.parametrize("router", ROUTERS)
def test_naive_and_default_agree_in_onnx_runtime(router: str) -> None:
    x, r = (a.astype(np.float32) for a in data())
    pipelines = ("@default", "@naive")
    default, naive = (flat.compile(model(router), r, passes=p).explainer()(x) for p in pipelines)
    np.testing.assert_allclose(default.values, naive.values, atol=1e-5 * np.abs(naive.values).max())


@pytest.mark.parametrize("router", ROUTERS)
def test_a_token_answers_for_its_own_choice(router: str) -> None:
    """The rule's rows are tokens: those that are the reference's own get nothing."""
    x, r = data()
    x[:, 1] = r[:1, 1]
    found = evaluate(flat.run_passes(wide("default"), model(router), r[:1]), {"x": x})["x_attributions"]
    assert np.abs(found[:, 1]).max() == 0
    assert np.abs(found[:, [0, 2]]).max() > 0


def test_shares_by_squares() -> None:
    """y = table[argmax z]: what the choice changes, by the squares of the differences."""
    found = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        m (float[N, 3] x) => (float[N, 1] y)
        <float[3, 1] table = {1, 2, 5}, float[3, 3] scale = {2, 0, 0, 0, 2, 0, 0, 0, 2}> {
            z = MatMul (x, scale)
            i = ArgMax <axis = 1, keepdims = 0> (z)
            y = Gather <axis = 0> (table, i)
        }"""
    )
    x, r = np.array([[0.0, 1.0, 5.0], [3.0, 1.0, 0.0]]), np.array([[2.0, 0.0, 0.0]])
    found = evaluate(flat.run_passes(wide("default"), found, r), {"x": x})["x_attributions"]
    d = x - r
    changed = np.array([[4.0], [0.0]])
    np.testing.assert_allclose(found, changed * d**2 / (d**2).sum(1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("router", ROUTERS)
def test_gradients_leave_the_choice_alone(router: str) -> None:
    """As frameworks differentiate: positions have no derivative, and what they pick keeps its own."""
    x, _ = data()
    raw = model(router)
    graph = PassManager.from_text("lift,widen,target,canonicalize,piecewise,autodiff,gradient").run(raw)
    found = evaluate(graph, {"x": x})["x_attributions"]
    forward = PassManager.from_text("lift,widen,canonicalize").run(raw)
    best = evaluate(forward, {"x": x})["y"].argmax(1)
    for place in np.ndindex(x.shape[1:]):
        step = np.zeros_like(x)
        step[(slice(None), *place)] = 1e-6
        up, down = (evaluate(forward, {"x": x + s})["y"][range(len(x)), best] for s in (step, -step))
        np.testing.assert_allclose(found[(slice(None), *place)], (up - down) / 2e-6, atol=1e-6)


def test_what_is_picked_alike_keeps_its_own_rule() -> None:
    """Where both worlds choose alike, scores that weren't picked get nothing of what was."""
    found = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> m (float[N, 3] x) => (float[N, 1] y)
        <int64[1] one = {1}, float[3, 3] scale = {2, 0, 0, 0, 2, 0, 0, 0, 2}> {
            z = MatMul (x, scale)
            u, i = TopK <axis = 1> (z, one)
            y = GatherElements <axis = 1> (z, i)
        }"""
    )
    x, r = np.array([[0.0, 1.0, 5.0]]), np.array([[2.0, 0.0, 4.0]])
    attributed = evaluate(flat.run_passes(wide("default"), found, r), {"x": x})["x_attributions"]
    np.testing.assert_allclose(attributed, [[0, 0, 2]], atol=1e-12)


def test_a_path_of_derivatives_is_refused() -> None:
    _, r = data()
    with pytest.raises(NotDifferentiable, match="it jumps"):
        irshap.compile(model("gathered weights"), r.astype(np.float32), method="integrated-gradients")


def test_features_are_no_scores() -> None:
    """The squares of what is attributed itself, in whatever units, are no measure."""
    _, r = data()
    found = model("gathered weights")
    with pytest.raises(NotDifferentiable, match="its result jumps"):
        irshap.compile(found, r.astype(np.float32), target=irshap.Target(wrt="logits"))


def test_no_layer_is_crossed() -> None:
    """Two scores that one layer makes are two tensors: the layer's input isn't asked for what they chose."""
    graph = PassManager.from_text("lift,target,canonicalize,piecewise").run(model("largest by token"))
    (found,) = {node.operands[0] for node in graph.nodes if isinstance(node.op, ByRow)}
    assert found.name == "p"
