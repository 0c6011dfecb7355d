"""Where the batch can't be followed node by node, the model is lifted for one sample and made for N."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.errors import ModelError
from irshap.ir.batch import batch_axes
from irshap.ir.evaluator import evaluate
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session
from irshap.lowering.lift import Lift
from irshap.pipeline.base import Context

HEAD = '<ir_version: 8, opset_import: ["": 17]> g'

# Attention with the sequence first: the batch is merged with the heads, and then with the sequence.
ATTENTION = """(float[batch,5,8] x) => (float[batch,8] y)
<int64[3] h = {5,-1,4}, int64[2] m = {-1,8}, int64[3] b = {5,-1,8}> {
t = Transpose<perm=[1,0,2]>(x) q = Reshape(t, h) k = Transpose<perm=[1,0,2]>(q)
l = Transpose<perm=[0,2,1]>(k) e = MatMul(k, l) p = Softmax<axis=-1>(e) v = MatMul(p, k)
c = Transpose<perm=[1,0,2]>(v) r = Reshape(c, m) o = Gemm<transB=1>(r, w) d = Reshape(o, b)
y = ReduceMean<axes=[0], keepdims=0>(d) }"""

# The last position that isn't padding, as classifiers of text pool at it: rows numbered by Range(N).
POOLED = """(float[batch,5,3] x, int64[batch] last) => (float[batch,3] y)
<int64 i0 = {0}, int64 i1 = {1}, int64[1] front = {0}, int64[1] end = {-1}> {
s = Shape(x) n = Gather<axis=0>(s, i0) r = Range(i0, n, i1) a = Unsqueeze(r, end) l = Unsqueeze(last, end)
i = Concat<axis=1>(a, l) g = GatherND(x, i) y = Tanh(g) }"""

# mask[arange(N)[:, None], positions], as newer exporters write it
MASKED = """(float[batch,4] x, int64[batch,4] mask) => (float[batch,4] y)
<int64 i0 = {0}, int64 i1 = {1}, int64[1] end = {-1}, int64[4] p = {3,2,1,0}> {
s = Shape(x) n = Gather<axis=0>(s, i0) r = Range(i0, n, i1) a = Unsqueeze(r, end)
u = Sub(a, a) b = Add(u, p) c = Add(a, u) f = Expand(c, s) d = Unsqueeze(f, end) q = Unsqueeze(b, end)
i = Concat<axis=2>(d, q) g = GatherND(mask, i) k = Cast<to=1>(g) y = Mul(x, k) }"""

# states: outputs and inputs whose batch isn't first
STATES = """(float[batch,2,3] x, float[2,batch,3] state) => (float[2,batch,3] t, float[batch,3] y)
<int64[2] m = {-1,3}, int64[3] b = {2,-1,3}> {
a = Transpose<perm=[1,0,2]>(x) c = Reshape(a, m) e = Relu(c) d = Reshape(e, b) t = Add(d, state)
y = ReduceSum<keepdims=0>(t, z) }"""


def model_of(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {text}")
    weights = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    named = {"w": weights, "z": np.array([0], np.int64)}
    used = {i for n in model.graph.node for i in n.input}
    for name in used & named.keys():
        model.graph.initializer.append(onnx.numpy_helper.from_array(named[name], name))
    return model


def feeds_of(model: onnx.ModelProto, rows: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(rows)
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value or rows for d in kind.shape.dim]
        whole = kind.elem_type == onnx.TensorProto.INT64
        feeds[value.name] = (
            generator.integers(0, 2, shape) if whole else generator.standard_normal(shape).astype(np.float32)
        )
    return feeds


def test_weights_that_are_inputs_are_those_of_all_samples() -> None:
    model = model_of(ATTENTION)
    given = feeds_of(model, 3)
    weights = next(t for t in model.graph.initializer if t.name == "w")
    graph = Lift(parameters="w").run(model, Context())
    assert graph.source.batch == "" and batch_axes(graph).axis(graph.outputs[0].value) == 0
    for scale in (1.0, 2.0):
        array = scale * onnx.numpy_helper.to_array(weights)
        weights.CopyFrom(onnx.numpy_helper.from_array(array, "w"))
        wanted = Session(model).run(given)[0]
        np.testing.assert_allclose(evaluate(graph, {**given, "w": array})["y"], wanted, atol=1e-5)


@pytest.mark.parametrize(
    "text", [ATTENTION, POOLED, MASKED, STATES], ids=["attention", "pooled", "masked", "states"]
)
def test_as_the_original(text: str) -> None:
    model = model_of(text)
    graph = lift(model)
    assert graph.source.batch == ""
    axes = batch_axes(graph)
    names = [v.name for v in model.graph.output]
    where = {o.name: axes.axis(o.value) for o in graph.outputs}
    assert where == {n: 1 if n == "t" else 0 for n in names}
    for rows in (1, 4):
        feeds = feeds_of(model, rows)
        for a, b in zip(Session(lower(graph)).run(feeds), Session(model).run(feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("passes", ["@naive", "@default"])
def test_attributions_sum_up(passes: str) -> None:
    model = model_of(ATTENTION)
    references, samples = feeds_of(model, 2)["x"], feeds_of(model, 3)["x"]
    found = irshap.compile(model, references, target="3", passes=passes).explainer()(samples)
    f = Session(model).run
    gap = f({"x": samples})[0][:, 3] - f({"x": references})[0][:, 3].mean()
    np.testing.assert_allclose(found.values.sum((1, 2)), gap, rtol=1e-5, atol=1e-6)


def test_models_that_mix_rows_stay_refused() -> None:
    """With one row the mean over the batch is nothing; running several tells."""
    model = model_of("(float[batch,3] x) => (float[batch,3] y) { m = ReduceMean<axes=[0]>(x) y = Sub(x, m) }")
    with pytest.raises(ModelError, match="reduces over the batch"):
        irshap.compile(model, np.zeros((2, 3), np.float32), target="0")


def test_a_model_that_takes_only_some_rows_together() -> None:
    """view(N, -1, size) of marked positions asks for as many in each row, which random rows don't have."""
    text = """(float[batch,5,3] x, int64[batch,5] ids) => (float[batch,3] y)
    <int64 i0 = {0}, int64 i1 = {1}, int64[1] v0 = {0}, int64 last = {-1}, int64[1] end = {-1},
    int64[2] m = {-1,3}> {
    s = Shape(x) n = Gather(s, i0) r = Range(i0, n, i1) a = Unsqueeze(r, end) h = GatherND(x, a)
    e = Equal(ids, i1) f = NonZero(e) t = Transpose<perm=[1,0]>(f) g = GatherND(h, t)
    v = Unsqueeze(n, v0) o = Concat<axis=0>(v, m) q = Reshape(g, o) p = Gather<axis=1>(q, last)
    y = Tanh(p) }"""
    model = model_of(text)
    graph = lift(model)
    assert batch_axes(graph).axis(graph.outputs[0].value) == 0
    x = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
    ids = np.array([[1, 1, 0, 0, 2], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 7]])
    (found,) = Session(lower(graph)).run({"x": x, "ids": ids})
    original = Session(model)
    for i in range(4):
        (expected,) = original.run({"x": x[i : i + 1], "ids": ids[i : i + 1]})
        np.testing.assert_allclose(found[i : i + 1], expected, rtol=1e-6)


# The batch of inputs and outputs is open, but a shape inside was written for the one that was exported.
PROMISED = """(float[batch,5,8] x) => (float[batch,8] y)
<int64[3] h = {5,2,4}, int64[2] m = {5,8}, int64[1] five = {5}, int64[1] eight = {8}> {
t = Transpose<perm=[1,0,2]>(x) q = Reshape(t, h) k = Transpose<perm=[1,0,2]>(q)
l = Transpose<perm=[0,2,1]>(k) e = MatMul(k, l) p = Softmax<axis=-1>(e) v = MatMul(p, k)
c = Transpose<perm=[1,0,2]>(v) r = Reshape(c, m) o = Gemm<transB=1>(r, w)
n = Shape<start=0, end=1>(x) b = Concat<axis=0>(five, n, eight) d = Reshape(o, b)
y = ReduceMean<axes=[0], keepdims=0>(d) }"""


def test_a_batch_that_is_promised_and_not_kept_is_made() -> None:
    model = model_of(PROMISED)
    graph = lift(model)
    assert batch_axes(graph).axis(graph.outputs[0].value) == 0
    feeds = feeds_of(model, 3)
    (found,) = Session(lower(graph)).run(feeds)
    alone = Session(model)
    for i, row in enumerate(found):
        expected = alone.run({"x": feeds["x"][i : i + 1]})[0][0]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_an_output_without_a_batch_gets_one() -> None:
    """Behind a Squeeze one sample's output has no axis for it; a state of one sample allows no other."""
    model = onnx.parser.parse_model(
        f"""{HEAD} (float[batch,5,3] x, float[1,1,3] h0) => (float[2] y)
        <int64[1] front = {{0}}, float[1,9,3] w = {{{", ".join(str(0.1 * (i % 7)) for i in range(27))}}},
        float[1,9,3] r = {{{", ".join(str(0.2 * (i % 5) - 0.3) for i in range(27))}}}> {{
        t = Transpose<perm=[1,0,2]>(x) s, last = GRU<hidden_size=3>(t, w, r, , , h0)
        p = Slice(last, zeros, two, back) q = Squeeze(p) y = Tanh(q) }}"""
    )
    held = {"zeros": np.array([0]), "two": np.array([2]), "back": np.array([2])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in held.items())
    generator = np.random.default_rng(0)
    x, h0 = (generator.standard_normal(s).astype(np.float32) for s in ((3, 5, 3), (1, 1, 3)))
    original, lifted = Session(model), Session(lower(lift(model)))
    each = [original.run({"x": row[None], "h0": h0})[0] for row in x]
    np.testing.assert_allclose(lifted.run({"x": x, "h0": h0})[0], each, atol=1e-6)


def test_what_a_model_takes_may_leave_nothing() -> None:
    """8 frames are none behind four poolings; more are looked for."""
    pools = " ".join(f"p{i + 1} = MaxPool<kernel_shape=[2], strides=[2]>(p{i})" for i in range(4))
    model = onnx.parser.parse_model(
        f"""{HEAD} (float[batch,3,frames] p0, float[1,1,3] h0) => (float[3] y) {{
        {pools} m = ReduceMax<axes=[2], keepdims=0>(p4) s = Add(m, h0) y = Squeeze(s) }}"""
    )
    graph = lift(model)
    assert str(graph.outputs[0].value.type) == "f32[N, 3]"


def test_why_rows_that_are_numbered_stay_so() -> None:
    """Squeeze takes the only sample's axis away, and Unsqueeze then has no axis 1 to add."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x, int64[N, 1] place) => (float[N] y)
        <int64 zero = {0}, int64 one = {1}, int64[1] second = {1}> {
            s = Shape(x)  n = Gather(s, zero)  r = Range(zero, n, one)  rows = Unsqueeze(r, second)
            flat = Squeeze(place)  there = Unsqueeze(flat, second)
            at = Concat<axis = 1>(rows, there)  z = Mul(x, x)  y = GatherND(z, at) }"""
    )
    with pytest.raises(
        ModelError, match=r"numbers the rows of the batch \(.* what Unsqueeze makes of several"
    ):
        irshap.compile(model, np.zeros((1, 3), np.float32), target=irshap.Target("all"))
