"""Recurrent layers in models: whole sequences are explained, and what has no rule says why."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import irshap
from irshap.errors import NotDifferentiable

RNG = np.random.default_rng(0)
W, H = 3, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


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
        ({"steps": 300}, "300 steps are none, or more than 256"),
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
