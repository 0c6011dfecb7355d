"""Models whose whole input is one sample (batch=none): graph networks, a single sequence, a single image."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser

import irshap
from irshap.cli import main
from irshap.errors import ModelError, UserError
from irshap.ir.builder import emit
from irshap.lowering import lift, lower
from irshap.ops.softmax import Softmax

RNG = np.random.default_rng(0)
W, V = RNG.normal(size=(3, 4)).astype(np.float32), RNG.normal(size=(4, 2)).astype(np.float32)
ADJACENCY = (RNG.random((5, 5)) < 0.4).astype(np.float32) * 0.5 + np.eye(5, dtype=np.float32)
X, REFERENCES = RNG.normal(size=(2, 5, 3)).astype(np.float32), RNG.normal(size=(3, 5, 3)).astype(np.float32)
EDGES = np.array([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 3]])

HEADS = {
    "mean": "p = ReduceMean<axes = [0], keepdims = 1>(h2) l = MatMul(p, v) y = Tanh(l)",
    "max": "p = ReduceMax<axes = [0], keepdims = 0>(h2) l = MatMul(p, v) y = Sigmoid(l)",
    "nodes": "l = MatMul(h2, v) y = Softmax<axis = 1>(l)",
    "attention": """l = MatMul(h2, v) s = Softmax<axis = 0>(l) t = Transpose(s) p = MatMul(t, h2)
        shape = Constant<value_ints = [-1]>() y = Reshape(p, shape)""",
    "gemm": "t = Transpose(h2) p = Gemm<transB = 1, alpha = 0.5>(h2, h2) y = Gemm<transA = 1>(p, h2)",
}
SHAPES = {"mean": "1,2", "max": "2", "nodes": "m,2", "attention": "8", "gemm": "m,4"}
BODIES = {
    "adjacency": "h = MatMul(x, w) m = MatMul(a, h) h2 = Relu(m)",
    "edges": """h = MatMul(x, w)
        zero = Constant<value_int = 0>() one = Constant<value_int = 1>()
        from = Gather<axis = 0>(edges, zero) to = Gather<axis = 0>(edges, one)
        sent = Gather<axis = 0>(h, from)
        last = Constant<value_ints = [1]>() place = Unsqueeze(to, last)
        nothing = Mul(h, none) m = ScatterND<reduction = "add">(nothing, place, sent) h2 = Relu(m)""",
    "elements": """h = MatMul(x, w)
        zero = Constant<value_int = 0>() one = Constant<value_int = 1>()
        from = Gather<axis = 0>(edges, zero) to = Gather<axis = 0>(edges, one)
        sent = Gather<axis = 0>(h, from)
        last = Constant<value_ints = [1]>() column = Unsqueeze(to, last) size = Shape(sent)
        place = Expand(column, size)
        m = ScatterElements<axis = 0, reduction = "add">(h, place, sent) h2 = Relu(m)""",
}


def network(body: str, head: str, nodes: object = 5) -> onnx.ModelProto:
    edges = ", int64[2,E] edges" if "edges" in BODIES[body] else ""
    text = f"""<ir_version: 10, opset_import: ["": 17]>
    g (float[{nodes},3] x{edges}) => (float[{SHAPES[head]}] y) {{ {BODIES[body]} {HEADS[head]} }}"""
    model = parser.parse_model(text)
    for name, array in {"w": W, "v": V, "a": ADJACENCY, "none": np.float32(0)}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def alone(model: onnx.ModelProto, **feeds: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {k: v for k, v in feeds.items() if k in {i.name for i in session.get_inputs()}})[
        0
    ]


def whole(model: onnx.ModelProto) -> irshap.Model:
    return irshap.Model(model, batch="none")


@cache
def explained(body: str, head: str, target: str, **arguments: Any) -> irshap.Explainer:
    model = network(body, head)
    return irshap.compile(whole(model), REFERENCES, target=target, **arguments).explainer()


def feeds(explainer: irshap.Explainer) -> dict[str, Any]:
    return {"x": X} | ({"edges": EDGES} if "edges" in explainer.input_names else {})


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("body", BODIES)
def test_a_graph_is_one_sample(body: str, head: str) -> None:
    target = "sum[:, 1]" if head == "nodes" else "1"
    explainer = explained(body, head, target)
    found = explainer(feeds(explainer))
    assert found.values.shape == X.shape
    model = network(body, head)

    def number(y: Any) -> Any:
        return y[:, 1].sum() if head == "nodes" else y.reshape(-1)[1]

    outputs = [alone(model, x=x, edges=EDGES) for x in X]
    np.testing.assert_allclose(found.outputs["y"], np.stack(outputs), rtol=1e-5, atol=1e-6)
    base = np.mean([number(alone(model, x=r, edges=EDGES)) for r in REFERENCES])
    np.testing.assert_allclose(found.base_values, base, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        found.total(), [number(y) - base for y in outputs], rtol=1e-4, atol=2e-6 * np.abs(found.values).sum()
    )
    naive = explained(body, head, target, passes="@naive")(feeds(explainer))
    np.testing.assert_allclose(found.values, naive.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["fold", "stream", "recompute"])
def test_strategies(strategy: str) -> None:
    explainer = explained("edges", "mean", "all", strategy=strategy)
    found = explainer(feeds(explainer))
    assert found.values.shape == (2, 2, 5, 3)
    for k in range(2):
        single = explained("edges", "mean", str(k))(feeds(explainer))
        np.testing.assert_allclose(found.values[:, k], single.values, rtol=1e-4, atol=1e-6)


def test_a_linear_graph_network_has_one_answer() -> None:
    """y = sum of A X W v: what x[i, f] gets is its own share, whatever the method."""
    text = """<ir_version: 10, opset_import: ["": 17]>
    g (float[5,3] x) => (float[1,2] y) { h = MatMul(x, w) m = MatMul(a, h) l = MatMul(m, v)
        y = ReduceSum<keepdims = 1>(l, first) }"""
    model = parser.parse_model(text)
    for name, array in {"w": W, "v": V, "a": ADJACENCY, "first": np.array([0])}.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    slope = np.einsum("vu,fh,hk->kuf", ADJACENCY, W, V)
    found = irshap.compile(whole(model), REFERENCES, target="all").explainer()(X)
    expected = slope * (X[:, None] - REFERENCES.mean(axis=0))
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-6)
    gradient = irshap.compile(whole(model), target="1", method="gradient").explainer()(X)
    np.testing.assert_allclose(gradient.values, np.stack([slope[1]] * 2), rtol=1e-5)


def test_edges_with_weights_are_attributed_or_held() -> None:
    text = """<ir_version: 10, opset_import: ["": 17]>
    g (float[V,3] x, float[V,V] a) => (float[1,4] y) { h = MatMul(x, w) m = MatMul(a, h) r = Relu(m)
        y = ReduceMean<axes = [0], keepdims = 1>(r) }"""
    model = parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(W, "w"))
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = 5
    both = {"x": REFERENCES, "a": np.stack([ADJACENCY.T] * 3)}
    given = {"x": X, "a": np.stack([ADJACENCY] * 2)}
    found = irshap.compile(whole(model), both, target="0").explainer()(given)
    assert {n: v.shape for n, v in found.values.items()} == {"x": (2, 5, 3), "a": (2, 5, 5)}
    assert np.abs(found.completeness_error).max() < 1e-5
    held = irshap.Target("0", context="a")
    found = irshap.compile(whole(model), REFERENCES, target=held).explainer()(given)
    assert found.values.shape == (2, 5, 3)
    assert np.abs(found.completeness_error).max() < 1e-5


def test_nodes_that_the_model_calls_n() -> None:
    """Any number of nodes, in a dimension that is called as irshap calls the number of samples."""
    graph = lift(network("edges", "mean", "N"), batch="none")
    assert [str(v.type) for v in graph.inputs] == ["f32[N, N_, 3]", "i64[2, E]"]
    assert str(graph.outputs[0].value.type) == "f32[N, 1, 2]"
    model = lower(graph)
    for nodes in (5, 7):
        x = RNG.normal(size=(2, nodes, 3)).astype(np.float32)
        together = alone(model, x=x, edges=EDGES)
        for i in range(2):
            one = alone(network("edges", "mean", "N"), x=x[i], edges=EDGES)
            np.testing.assert_allclose(together[i], one, rtol=1e-5, atol=1e-6)


def test_one_sequence_of_tokens_and_one_image() -> None:
    sequence = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (int64[4] ids) => (float[2] y) <float[3,2] table = {1,-1,0.5,2,-0.3,0.7}> {
        rows = Gather<axis = 0>(table, ids)
        h = Tanh(rows)
        y = ReduceMax<axes = [0], keepdims = 0>(h)
    }""")
    ids, others = np.array([[0, 1, 2, 1]]), np.array([[1, 1, 1, 1], [2, 2, 2, 0]])
    found = irshap.compile(whole(sequence), others, target="0").explainer()(ids)
    assert found.values.shape == (1, 4)
    assert np.abs(found.completeness_error).max() < 1e-6
    image = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[1,4,4] x) => (float[3] y)
    <float[3,1,2,2] k = {1,-1,2,0.5,0.3,1,-1,0.2,0.7,0.1,0.9,-2}, int64[1] first = {0}, int64[1] flat = {3}> {
        one = Unsqueeze(x, first)
        c = Conv(one, k)
        p = MaxPool<kernel_shape = [3,3]>(c)
        y = Reshape(p, flat)
    }""")
    pictures = RNG.normal(size=(2, 1, 4, 4)).astype(np.float32)
    found = irshap.compile(whole(image), np.zeros((1, 1, 4, 4), np.float32)).explainer()(pictures)
    assert found.values.shape == pictures.shape
    assert np.abs(found.completeness_error).max() < 1e-5


# --- never by mistake -----------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [5, "V", "N"])
@pytest.mark.parametrize("body", ["edges", "elements"])
@pytest.mark.parametrize("head", ["mean", "nodes"])
def test_nodes_are_not_read_as_samples(body: str, head: str, nodes: object) -> None:
    with pytest.raises(UserError, match="batch=none"):
        irshap.compile(network(body, head, nodes), REFERENCES[0])


def test_a_sample_without_its_axis_is_told_how_to_give_it() -> None:
    explainer = explained("adjacency", "mean", "1")
    with pytest.raises(UserError, match=r"has shape \[5, 3\].*give array\[None\]"):
        explainer(X[0])


def test_an_op_that_has_no_form_for_several_samples_is_named() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[5,3] x) => (float[n,3] y) <float[1] zero = {0}> {
        big = Greater(x, zero)
        [where] at = NonZero(big)
        t = Transpose(at)
        picked = GatherND(x, t)
        y = Exp(picked)
    }""")
    with pytest.raises(
        ModelError, match=r"where \(NonZero\): batch=none: irshap doesn't know what NonZero makes of several"
    ):
        irshap.compile(whole(model), REFERENCES)


def test_a_model_without_anything_to_attribute() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (int64[5] k) => (int64[5] y) { y = Neg(k) }""")
    with pytest.raises(ModelError, match="batch=none: no input is float"):
        lift(model, batch="none")
    with pytest.raises(ModelError, match="Use batch=auto, batch=none or batch=keep"):
        lift(model, batch="some")


def test_a_wrong_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # along the same axis, which is another one now
    monkeypatch.setattr(Softmax, "vectorized", lambda op, at: emit(op, *at.operands))
    with pytest.raises(ModelError, match=r"isn't what each gives by itself"):
        lift(network("adjacency", "nodes"), batch="none")


def test_the_command_line(tmp_path: Any) -> None:
    file, out = tmp_path / "m.onnx", tmp_path / "e.onnx"
    onnx.save(network("edges", "mean"), file)
    np.save(tmp_path / "r.npy", REFERENCES)
    np.savez(tmp_path / "x.npz", x=X, edges=EDGES)
    what = [str(file), "-r", str(tmp_path / "r.npy"), "--batch", "none"]
    assert main(["compile", *what, "-o", str(out)]) == 0
    assert main(["run", str(out), str(tmp_path / "x.npz"), "--max-error", "1e-4"]) == 0
    assert main(["verify", *what, "-i", str(tmp_path / "x.npz")]) == 0
    onnx.save(network("adjacency", "mean"), file)
    assert main(["cost", str(file), "-r", "3", "--batch", "none"]) == 0


def test_an_input_that_is_no_tensor() -> None:
    """A sequence can't be made at random: what is lifted can't be checked, and is refused."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (seq(float[2]) s, float[2] x) => (float[2] y)
        <int64 at = {0}> { a = SequenceAt(s, at) y = Add(a, x) }"""
    )
    with pytest.raises(ModelError, match=r"input 's' is .*: no tensor of a known shape"):
        lift(model, batch="none")
