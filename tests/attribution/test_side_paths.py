"""Token ids that go past their embedding: masks of padding, positions counted from them, pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.cli import main
from irshap.contract import Metadata
from irshap.errors import NotDifferentiable
from irshap.lowering.files.session import Session

PAD = 1
HEAD = '<ir_version: 8, opset_import: ["": 17]> text (int64[N,5] ids) => (float[N,4] y)'

# RoBERTa's positions are counted over what isn't padding; the mean pools over that, too.
MASKED = """<int64 pad = {1}, int64 one = {1}, int64[1] end = {-1}> {
    padded = Equal(ids, pad) real = Not(padded) whole = Cast<to=7>(real) counted = CumSum(whole, one)
    own = Mul(counted, whole) places = Add(own, pad) position = Gather(where, places)
    words = Gather(table, ids) both = Add(words, position) t = Tanh(both)
    float = Cast<to=1>(whole) weights = Unsqueeze(float, end)
    kept = Mul(t, weights) total = ReduceSum<keepdims=0>(kept, one_axis) count = ReduceSum(float, one_axis)
    y = Div(total, count) }"""

# GPT-2's classifier looks at the last position that isn't padding.
POOLED = """<int64 pad = {1}, int64[1] one = {1}, int64 i0 = {0}, int64 i1 = {1}, int64[1] end = {-1}> {
    padded = Equal(ids, pad) real = Not(padded) whole = Cast<to=7>(real)
    count = ReduceSum<keepdims=0>(whole, one) last = Sub(count, one) words = Gather(table, ids)
    t = Tanh(words) s = Shape(ids) n = Gather<axis=0>(s, i0)
    r = Range(i0, n, i1) a = Unsqueeze(r, end) b = Unsqueeze(last, end) i = Concat<axis=1>(a, b)
    z = GatherND(t, i) y = MatMul(z, square) }"""

# XLNet has the sequence first.
TRANSPOSED = """{ back = Transpose<perm=[1,0]>(ids) words = Gather(table, back) t = Tanh(words)
    first = Transpose<perm=[1,0,2]>(t) y = ReduceSum<keepdims=0>(first, one_axis) }"""


def model_of(body: str, head: str = HEAD) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    named: dict[str, Any] = {
        "table": generator.standard_normal((9, 4)).astype(np.float32),
        "where": generator.standard_normal((8, 4)).astype(np.float32),
        "square": generator.standard_normal((4, 4)).astype(np.float32),
        "one_axis": np.array([1]),
    }
    model = onnx.parser.parse_model(f"{head} {body}")
    used = {i for n in model.graph.node for i in n.input}
    for name in named.keys() & used:
        model.graph.initializer.append(onnx.numpy_helper.from_array(named[name], name))
    return model


def tokens(seed: int, lengths: list[int]) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(2, 9, (len(lengths), 5))
    for row, length in zip(ids, lengths, strict=True):
        row[length:] = PAD
    return ids


SAMPLES, REFERENCES = tokens(1, [5, 3, 1]), tokens(2, [5, 5])


@pytest.mark.parametrize("passes", ["@naive", "@default"])
@pytest.mark.parametrize("body", [MASKED, POOLED, TRANSPOSED], ids=["masked", "pooled", "transposed"])
def test_attributions_sum_up(body: str, passes: str) -> None:
    model = model_of(body)
    compiled = irshap.compile(model, REFERENCES, target="2", passes=passes)
    found = compiled.explainer()(SAMPLES)
    assert found.values.shape == SAMPLES.shape
    np.testing.assert_allclose(found.values.sum(1) + found.base_values, found.target_values, rtol=1e-5)
    assert bool({p.key: p.value for p in compiled.model.metadata_props}.get(Metadata.HELD)) == (
        body != TRANSPOSED
    )
    # sequences of different lengths, each by itself
    for i in range(len(SAMPLES)):
        alone = compiled.explainer()(SAMPLES[i : i + 1])
        np.testing.assert_allclose(alone.values[0], found.values[i], rtol=1e-5, atol=1e-7)


def test_padded_positions_get_exactly_nothing() -> None:
    found = irshap.compile(model_of(MASKED), REFERENCES, target="2").explainer()(SAMPLES)
    assert np.all(found.values[SAMPLES == PAD] == 0)


def test_the_base_is_that_of_the_references_under_the_samples_mask() -> None:
    model = model_of(MASKED)
    found = irshap.compile(model, REFERENCES, target="2").explainer()(SAMPLES)
    masks = onnx.ModelProto()
    masks.CopyFrom(model)
    # the ids that positions and masks are made of become an input of their own
    masks.graph.node[0].input[0] = "mask_ids"
    masks.graph.input.append(onnx.helper.make_tensor_value_info("mask_ids", onnx.TensorProto.INT64, ["N", 5]))
    run = Session(masks).run
    for sample, base in zip(SAMPLES, found.base_values, strict=True):
        y = run({"ids": REFERENCES, "mask_ids": np.stack([sample] * len(REFERENCES))})[0]
        np.testing.assert_allclose(base, y[:, 2].mean(), rtol=1e-5)


def test_context_none_refuses() -> None:
    with pytest.raises(NotDifferentiable, match="past words, through this op"):
        irshap.compile(model_of(MASKED), REFERENCES, target=irshap.Target("2", context="none"))


def test_floats_that_go_past_stay_an_error() -> None:
    model = model_of(
        "{ h = Tanh(x) z = Add(h, x) y = MatMul(z, square) }",
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4] y)',
    )
    with pytest.raises(NotDifferentiable, match="also past h"):
        irshap.compile(model, np.zeros((2, 4), np.float32), target=irshap.Target("2", wrt="h"))


def test_the_command_says_what_is_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, references, out = (str(tmp_path / name) for name in ("m.onnx", "r.npy", "e.onnx"))
    onnx.save(model_of(MASKED), model)
    np.save(references, REFERENCES)
    assert main(["compile", model, "-o", out, "--references", references, "--target", "2"]) == 0
    assert "held     at the sample's value: ids in padded (equal)" in capsys.readouterr().out
    assert main(["verify", model, "--references", references, "--inputs", references, "--target", "2"]) == 0
    assert "held at the sample's value in both worlds: ids in padded" in capsys.readouterr().out


# The state that the last call returned: with a place for each sample, or one for all.
STATEFUL = """<ir_version: 8, opset_import: ["": 17]> cell
(float[N,5,3] x, float[{rows}] h0) => (float[N,3] y, float[1,N,3] h1) {{
t = Transpose<perm=[1,0,2]>(x) start = Transpose<perm=[0,1,2]>(h0)
s, h1 = GRU<hidden_size=3>(t, w, r, , , {start})
last = Squeeze(h1, zero) y = Tanh(last) }}"""


def stateful(rows: str, start: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(STATEFUL.format(rows=rows, start=start))
    generator = np.random.default_rng(0)
    held = {name: generator.standard_normal((1, 9, 3)).astype(np.float32) for name in ("w", "r")}
    held["zero"] = np.array([0])
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, name) for name, a in held.items())
    return model


@pytest.mark.parametrize("start", ["h0", "start"])
def test_recurrent_states_are_held(start: str) -> None:
    """Unasked, and told; the base is f of the references in the sample's state."""
    model = stateful("1,N,3", start)
    generator = np.random.default_rng(1)
    x, r = (generator.standard_normal((n, 5, 3)).astype(np.float32) for n in (2, 3))
    h0 = generator.standard_normal((1, 2, 3)).astype(np.float32)
    compiled = irshap.compile(model, r, target="1")
    metadata = {p.key: p.value for p in compiled.model.metadata_props}
    assert metadata[Metadata.HELD] == "h0, a recurrent state"
    found = compiled.explainer()({"x": x, "h0": h0})
    assert found.values.shape == x.shape
    session = Session(model)
    for i in range(2):
        base = session.run({"x": r, "h0": np.repeat(h0[:, i : i + 1], 3, 1)})[0][:, 1].mean()
        np.testing.assert_allclose(found.base_values[i], base, atol=1e-6)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-6)


def test_a_state_is_attributed_where_it_is_asked_for() -> None:
    generator = np.random.default_rng(2)
    x, r = (generator.standard_normal((n, 5, 3)).astype(np.float32) for n in (2, 3))
    h0, s = (generator.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 3), (3, 1, 3)))
    target = irshap.Target(wrt="x, h0")
    compiled = irshap.compile(stateful("1,N,3", "h0"), {"x": r, "h0": s}, target=target)
    found = compiled.explainer()({"x": x, "h0": h0})
    assert set(found.values) == {"x", "h0"}
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-6)


def test_what_all_samples_share_is_held() -> None:
    """Also where it is no state; an input that the explained output doesn't read isn't spoken of."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x, float[3,3] w, float[2,2] u)
        => (float[N,3] y, float[2,2] z) { m = MatMul(x, w) y = Tanh(m) z = Relu(u) }"""
    )
    compiled = irshap.compile(model, np.zeros((1, 3), np.float32), target="1")
    metadata = {p.key: p.value for p in compiled.model.metadata_props}
    assert metadata[Metadata.HELD] == "w, which all samples share"
    x, w = (np.random.default_rng(i).standard_normal((3, 3)).astype(np.float32) for i in range(2))
    found = compiled.explainer()({"x": x, "w": w, "u": np.ones((2, 2), np.float32)})
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-6)
