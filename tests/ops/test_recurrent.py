"""Recurrent layers in models: whole sequences are explained, and what has no rule says why."""

from __future__ import annotations

import flat
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import irshap
from irshap.errors import NotDifferentiable
from irshap.ir.builder import Builder, emit
from irshap.ir.core import Graph, Output, Point, Sample
from irshap.ir.evaluator import evaluate
from irshap.ir.types import DType, TensorType
from irshap.ops import recurrent
from irshap.ops.program import Input, constant
from irshap.ops.samples import randn
from irshap.ops.scan import Scan
from irshap.pipeline.named import PIPELINES

RNG = np.random.default_rng(0)
W, H = 3, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same numbers for each test, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def model(kind: str, *, batch: str = "N", steps: int | str = 4, lengths: str = "", **options: str) -> bytes:
    """A recurrent layer over the second axis of x, all of whose outputs are read."""
    ways = 2 if options.get("direction") == '"bidirectional"' else 1
    attributes = ", ".join(f"{k} = {v}" for k, v in {"hidden_size": H, **options}.items())
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[{batch}, {steps}, {W}] x) => (float[{batch}, {H}] y)
        <int64[1] zero = {{0}}, int32[1] lengths = {{{lengths or "0"}}}> {{
            t = Transpose<perm = [1, 0, 2]>(x)
            all, last = {kind}<{attributes}>(t, w, r, b, {"lengths" if lengths else ""})
            a = ReduceSum<keepdims = 0>(last, zero)
            s = ReduceSum<keepdims = 0>(all, zero)
            c = ReduceSum<keepdims = 0>(s, zero)
            y = Add(a, c) }}"""
    made = onnx.parser.parse_model(text)
    size = GATES[kind] * H
    for name, shape in {"w": (ways, size, W), "r": (ways, size, H), "b": (ways, 2 * size)}.items():
        made.graph.initializer.append(numpy_helper.from_array(RNG.standard_normal(shape).astype("f"), name))
    return made.SerializeToString()


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("batch", ["N", "1"])
def test_sequences_are_explained(kind: str, batch: str) -> None:
    x, references = (RNG.standard_normal((n, 4, W)).astype("f") for n in (3, 2))
    both = model(kind, batch=batch, direction='"bidirectional"')
    explanation = irshap.compile(both, references).explainer()(x)
    gap = np.abs(explanation.target_values - explanation.base_values).max()
    assert np.abs(explanation.completeness_error).max() < 1e-5 * gap
    # a step that is as in the reference gets nothing
    x[:, 1] = references[0, 1]
    single = irshap.compile(model(kind, batch=batch), references[:1]).explainer()(x)
    assert (single.values[:, 1] == 0).all() and (single.values[:, 0] != 0).any()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"clip": "0.5"}, "its gates are clipped or coupled"),
        ({"lengths": "2", "batch": "1"}, "lengths of their own"),
        ({"activations": '["Sigmoid", "Softsign", "Tanh"]'}, "no rule for its activation Softsign"),
        ({"activation_alpha": "[0.5]"}, "parameters of their own"),
    ],
)
def test_what_has_no_rule_says_why(options: dict[str, str], why: str) -> None:
    steps = options.get("steps", 4)
    with pytest.raises(NotDifferentiable, match=why):
        irshap.compile(model("LSTM", **options), np.zeros((2, int(steps), W), "f"))


@pytest.mark.parametrize("batch", ["auto", "keep"])
def test_lengths_that_are_the_whole_sequences_change_nothing(batch: str) -> None:
    given = irshap.lift(model("GRU", batch="1", lengths="4"), batch=batch)
    assert [n.op.mnemonic for n in given.nodes if n.op.mnemonic in ("gru", "opaque")] == ["gru"]


def _pulled(
    sample: Sample, few: int, monkeypatch: pytest.MonkeyPatch, *, weights: bool = False
) -> tuple[Graph, dict[str, np.ndarray]]:
    """Cotangents by the derivative and by the secant, with sequences spelled out up to so many steps.

    With `weights` those of all operands, by the derivative alone.
    """
    monkeypatch.setattr(recurrent, "FEW_STEPS", few)
    arrays = [a.astype(np.float64) for a in sample.operands]
    others = [a + randn(*a.shape, seed=90 + i) if i in sample.varying else a for i, a in enumerate(arrays)]
    with Builder() as b:
        kinds = [TensorType(DType.F64, a.shape) for a in arrays]
        given, given0 = (
            [b.emit(Input(f"{n}{i}"), types=(k,), names=(f"{n}{i}",))[0] for i, k in enumerate(kinds)]
            for n in "xr"
        )
        at, at0 = (Point(tuple(v), emit(sample.op, *v)) for v in (given, given0))
        cts = [constant(randn(*v.shape, seed=50 + i)) for i, v in enumerate(at.results)]
        found = [*sample.op.derivative(cts, at, range(len(arrays)) if weights else sample.varying)]
        if not weights:
            found += sample.op.secant(cts, at, at0, sample.varying)
        graph = b.build("pulled", [Output(f"m{i}", v) for i, v in enumerate(found)])
    feeds = {f"x{i}": a for i, a in enumerate(arrays)} | {f"r{i}": a for i, a in enumerate(others)}
    return graph, evaluate(graph, feeds)


SAMPLES = [s for op in (recurrent.Lstm, recurrent.Gru, recurrent.Rnn) for s in op.samples()]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: f"{s.op.mnemonic}-{s.op.direction}")
@pytest.mark.parametrize("weights", [False, True])
def test_through_time_as_spelled_out(sample: Sample, weights: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spelled, looped = (_pulled(sample, few, monkeypatch, weights=weights)[1] for few in (16, 0))
    assert len(spelled) == (len(sample.operands) if weights else 2 * len(sample.varying))
    for name, value in spelled.items():
        np.testing.assert_allclose(looped[name], value, atol=1e-12)


@pytest.mark.parametrize(
    ("sample", "products", "concats"),
    [
        # c += h a, c f, and all gates at once
        (next(iter(recurrent.Lstm.samples())), 3, 1),
        # h z, both gates at once, and what is new, which `late` tells apart for x and for h
        (list(recurrent.Gru.samples())[1], 4, 3),
        (next(iter(recurrent.Rnn.samples())), 1, 0),
    ],
    ids=["lstm", "gru", "rnn"],
)
def test_trips_back_multiply_once_for_all_gates(
    sample: Sample, products: int, concats: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, _ = _pulled(sample, 0, monkeypatch)
    loops = [n.op.body for n in graph.nodes if isinstance(n.op, Scan) and n.op.last_first]
    assert loops
    for body in loops:
        kinds = [n.op.mnemonic for n in body.nodes]
        assert [kinds.count(k) for k in ("matmul", "mul", "concat", "neg")] == [1, products, concats, 0]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_long_sequences(kind: str, direction: str) -> None:
    x, references = (RNG.standard_normal((n, 60, W)).astype("f") for n in (3, 2))
    source = model(kind, steps=60, direction=f'"{direction}"')
    default, naive = (flat.compile(source, references, passes=p) for p in ("@default", "@naive"))
    found = default.explainer()(x)
    gap = np.abs(found.target_values - found.base_values).max()
    assert np.abs(found.completeness_error).max() < 1e-5 * gap
    np.testing.assert_allclose(
        found.values, naive.explainer()(x).values, atol=1e-5 * np.abs(found.values).max()
    )


def _loops(graph: onnx.GraphProto) -> list[str]:
    """The names of all loops' bodies."""
    bodies = [a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [name for body in bodies for name in (body.name, *_loops(body))]


@pytest.mark.parametrize("binding", ["fold-references", "stream{chunk=2}"])
@pytest.mark.parametrize("kind", GATES)
def test_blocks_of_steps_change_nothing(kind: str, binding: str) -> None:
    """Nor do they where the loop is in one over references."""
    x, references = (RNG.standard_normal((n, 24, W)).astype("f") for n in (3, 4))
    source = model(kind, steps=24, direction='"bidirectional"')
    pipeline = PIPELINES["default"].replace("stream{otherwise=fold}", binding)
    blocks = pipeline.replace("time-blocks", "time-blocks{longest=6}")
    compiled = [irshap.compile(source, references, passes=p, target=0) for p in (pipeline, blocks)]
    assert ["blocks" in _loops(c.model.graph) for c in compiled] == [False, True]
    expected, found = (c.explainer()(x).values for c in compiled)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("steps", "nested"), [(101, False), (120, True)])
def test_only_whole_blocks(steps: int, nested: bool) -> None:
    """101 is a prime: such a loop stays as it is."""
    x, references = (RNG.standard_normal((n, steps, W)).astype("f") for n in (3, 2))
    compiled = irshap.compile(model("LSTM", steps=steps), references)
    assert ("blocks" in _loops(compiled.model.graph)) == nested
    explanation = compiled.explainer()(x)
    gap = np.abs(explanation.target_values - explanation.base_values).max()
    assert np.abs(explanation.completeness_error).max() < 1e-5 * gap


@pytest.mark.parametrize("kind", GATES)
def test_what_fades_is_nothing_in_the_end(kind: str) -> None:
    """Many processors are far slower on products with denormal numbers."""
    x, r = (RNG.standard_normal((n, 400, W)).astype("f") for n in (2, 3))
    raw = onnx.ModelProto.FromString(model(kind, steps=400))
    raw.graph.node[-1].CopyFrom(onnx.helper.make_node("Identity", ["a"], ["y"]))
    weights = {t.name: t for t in raw.graph.initializer}
    fading = numpy_helper.to_array(weights["r"]) * np.float32(0.2)
    weights["r"].CopyFrom(numpy_helper.from_array(fading, "r"))
    found = np.abs(irshap.compile(raw, r).explainer()(x).values)
    least = np.finfo(np.float32).tiny
    assert found[:, -1].min() > least
    assert not ((found > 0) & (found < least)).any()
    assert (found[:, 0] == 0).all()


@pytest.mark.parametrize("kind", GATES)
def test_any_number_of_steps(kind: str) -> None:
    """Known at run time only: as for a model of that many, also where those are spelled out."""
    source = onnx.ModelProto.FromString(model(kind, steps="t", direction='"bidirectional"'))
    compiled = irshap.compile(source, method="input-x-gradient", target=0)
    for steps in (1, 7, 20):
        x = RNG.standard_normal((2, steps, W)).astype("f")
        fixed = onnx.ModelProto()
        fixed.CopyFrom(source)
        fixed.graph.input[0].type.tensor_type.shape.dim[1].dim_value = steps
        expected = irshap.compile(fixed, method="input-x-gradient", target=0).explainer()(x).values
        found = compiled.explainer()(x).values
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_no_steps_have_no_rule() -> None:
    source = model("LSTM", steps=0)
    with pytest.raises(NotDifferentiable, match="it makes no steps"):
        irshap.compile(source, np.zeros((1, 0, W), np.float32))
