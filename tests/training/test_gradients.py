"""Gradients of loss + weight x prior by every parameter, against central differences of these numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from stepping import cnn, evaluated, feeds, lstm, mlp, network, run

from irshap.contract import Training
from irshap.errors import IrshapError, ModelError, NotDifferentiable, PipelineError, UserError
from irshap.ir.types import Array
from irshap.training import TrainingStep, evaluation, train_step

NETWORKS = {
    "tanh": mlp("Tanh"),
    "relu": mlp("Relu"),
    "relu without bias": mlp("Relu", bias=False),
    "cnn": cnn(),
    "cnn without bias": cnn(bias=False, normalized=False),
}
SPARSE = {"prior": "sparse", "method": "gradient"}
SMOOTH = ("gradient", "input-x-gradient", "integrated-gradients{steps=3}", "expected-gradients", "deeplift")
CASES = [
    *(("tanh", method, "sparse") for method in SMOOTH),
    ("tanh", "integrated-gradients{steps=3, chunk=2}", "sparse"),
    ("tanh", "input-x-gradient", "total-variation"),
    ("tanh", "gradient", "group-lasso"),
    ("tanh", None, "right-reasons"),
    ("relu", "deeplift", "sparse"),
    ("relu without bias", "x-gradient", "sparse"),
    ("cnn", "input-x-gradient", "total-variation"),
    ("cnn", None, "right-reasons"),
    ("cnn", "expected-gradients", "sparse"),
    ("cnn", "deeplift", "group-lasso"),
    ("cnn without bias", "x-gradient", "sparse"),
]


def objective(step: TrainingStep, inputs: Mapping[str, Array]) -> float:
    found = evaluated(step, inputs)
    return float(found["loss"] + inputs.get("prior_weight", 0.0) * found.get("prior", 0.0))


def check(step: TrainingStep, inputs: dict[str, Array], h: float = 3e-8) -> None:
    """Along three directions for each parameter, in float64."""
    rng = np.random.default_rng(2)
    found = evaluated(step, inputs)
    scale = max(float(np.abs(found[g]).max()) for g in step.training.parameters.values())
    for name, output in step.training.parameters.items():
        for _ in range(3):
            way = rng.standard_normal(inputs[name].shape)
            ends = (objective(step, inputs | {name: inputs[name] + s * h * way}) for s in (1, -1))
            up, down = ends
            wanted, got = (up - down) / (2 * h), float((found[output] * way).sum())
            assert abs(wanted - got) <= 2e-6 * (abs(wanted) + scale), (name, wanted, got)


@pytest.mark.parametrize(("name", "method", "prior"), CASES)
def test_gradients_through_attributions(name: str, method: str | None, prior: str) -> None:
    model = NETWORKS[name]
    groups = np.arange(5) // 2 if name == "tanh" else np.arange(6)[:, None] // 3 * np.ones((6, 6), int)
    step = train_step(model, prior=prior, method=method, optimizer="gradients", groups=groups)
    inputs = feeds(step, model)
    assert any(n.op.mnemonic == "scan" for n in step.graph.nodes) == ("chunk" in (method or ""))
    assert evaluated(step, inputs)["prior"] != 0
    check(step, inputs)


@pytest.mark.parametrize("loss", ["cross-entropy", "binary-cross-entropy", "mse", "hinge"])
@pytest.mark.parametrize("name", ["tanh", "cnn"])
def test_losses(name: str, loss: str) -> None:
    model = NETWORKS[name]
    step = train_step(model, loss=loss, optimizer="gradients")
    check(step, feeds(step, model))


@pytest.mark.parametrize("loss", ["hinge", "cox"])
def test_losses_of_one_number(loss: str) -> None:
    model = mlp(last=1)
    step = train_step(model, loss=loss, optimizer="gradients")
    check(step, feeds(step, model, rows=9))
    if loss == "cox":
        inputs = feeds(step, model, rows=9)
        tied = feeds(step, model, rows=9, labels=np.round(inputs["labels"] * 3))
        check(step, tied)
        nothing_seen = feeds(step, model, rows=9, events=np.zeros(9))
        assert evaluated(step, nothing_seen)["loss"] == 0
        check(step, nothing_seen)


def test_batch_statistics() -> None:
    model = NETWORKS["cnn"]
    for prior in (None, "total-variation"):
        method = {} if prior is None else {"method": "input-x-gradient"}
        step = train_step(model, prior=prior, batch_norm="batch", optimizer="gradients", **method)
        check(step, feeds(step, model))
    inputs = feeds(step, model)
    assert set(step.training.states) == {"p1.2", "p1.3"}
    # running + 0.1 (batch - running), the variance unbiased
    x, w, b = (inputs[n] for n in ("x", "p0.0", "p0.1"))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    h = np.einsum("nchwij,ocij->nohw", views, w) + b[:, None, None]
    found = evaluated(step, inputs)
    np.testing.assert_allclose(found["p1.2_next"], 0.9 * inputs["p1.2"] + 0.1 * h.mean((0, 2, 3)), rtol=1e-12)
    variance = h.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(found["p1.3_next"], 0.9 * inputs["p1.3"] + 0.1 * variance, rtol=1e-12)


def test_equal_initializers_stay_apart() -> None:
    """Two biases of zeros are two parameters."""
    zeros = np.zeros(4)
    layers: list[Any] = [("Gemm", [(5, 4), zeros], {}), ("Tanh", [], {}), ("Gemm", [(4, 4), zeros], {})]
    model = network((5,), 4, layers)
    step = train_step(model, optimizer="gradients")
    assert set(step.training.parameters) == {"p0.0", "p0.1", "p2.0", "p2.1"}
    check(step, feeds(step, model))


def test_chosen_parameters() -> None:
    model = NETWORKS["cnn"]
    step = train_step(model, parameters="p0.*, p7.1", optimizer="gradients")
    assert set(step.training.parameters) == {"p0.0", "p0.1", "p7.1"}
    check(step, feeds(step, model))


def test_what_the_loss_does_not_depend_on_is_left_out_by_its_name() -> None:
    """Not with others that are called alike."""
    model = network((5,), 3, [("Gemm", [(5, 3), (3,)], {})])
    names = ["a,b", "a b", "a[b"]
    for name, other in zip(names, ["a_b", "a-b", "a b"], strict=True):
        source = onnx.ModelProto()
        source.CopyFrom(model)
        source.graph.initializer[0].name = source.graph.node[0].input[1] = other
        source.graph.initializer.append(numpy_helper.from_array(np.ones(3), name))
        source.graph.node.add(op_type="Add", input=["p0.1", name], output=["z"])
        source.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.DOUBLE, [3]))
        step = train_step(source, loss="mse")
        assert set(step.training.parameters) == {other, "p0.1"} and set(step.untrained) == {name}


def _refused(error: type[IrshapError], text: str, model: onnx.ModelProto, **options: Any) -> None:
    with pytest.raises(error, match=text):
        train_step(model, **options)


def test_refusals() -> None:
    net = NETWORKS["cnn"]
    _refused(ModelError, "no float initializer is called 'nothing'", net, parameters="nothing")
    _refused(ModelError, "is called 'p8.1'. did you mean p7.1", net, parameters="*, !p8.1")
    _refused(ModelError, "'p1.2' is a running statistic", net, parameters="p1.2")
    _refused(NotDifferentiable, r"Conv0 \(conv\).*x-gradient needs a target that scales", net, prior="sparse")
    options = {"prior": "sparse", "batch_norm": "batch"}
    _refused(PipelineError, "deeplift runs other rows", net, method="deeplift", **options)
    _refused(PipelineError, "no prior on attributions by occlusion", net, method="occlusion", prior="sparse")
    _refused(UserError, "no groups are given", net, method="gradient", prior="group-lasso")
    axes = "total-variation{axes=(4,)}"
    _refused(UserError, "total variation over axis 4", net, method="gradient", prior=axes)
    _refused(PipelineError, "there is none", net, method="gradient")
    options = {"loss": "mse", "target": "input", "prior": "sparse", "method": "gradient"}
    _refused(PipelineError, "target=input needs an input beside the labels", net, **options)
    _refused(PipelineError, "nesterov needs a momentum", net, optimizer="sgd{nesterov=true}")
    unread = onnx.ModelProto()
    unread.CopyFrom(net)
    unread.graph.initializer.add().CopyFrom(onnx.numpy_helper.from_array(np.ones(3), "lonely"))
    _refused(ModelError, "reads the parameter 'lonely'", unread, parameters="p*, lonely")


@pytest.mark.parametrize(("steps", "options"), [(3, SPARSE), (20, {}), (20, SPARSE)])
def test_recurrent_layers(steps: int, options: dict[str, Any]) -> None:
    """Few steps are written one by one; many stand in loops, which are differentiated twice."""
    model = lstm(steps)
    step = train_step(model, optimizer="gradients", **options)
    assert any(node.op_type == "Scan" for node in step.model.graph.node) == (steps > 16)
    check(step, feeds(step, model))


HEADS = """<ir_version: 8, opset_import: ["": 17]> g (double[N, 4] x) => (double[N, 1] y, double[N, 2] other)
    <double[4, 1] w = {1, 2, 3, 4}, double[1] b = {1}, double[4, 2] head = {1, 2, 3, 4, 5, 6, 7, 8},
     double[2] lonely = {1, 2}, double scale = {2}, double[2] sizes = {-1, 4}, int64[2] whole = {-1, 4},
     double[2, 2] spare = {1, 2, 3, 4}, bool yes = {1}> {
        k = Cast<to = 7>(sizes)  f = Reshape(x, k)  g = Reshape(f, whole)  s = Mul(g, scale)
        h = If(yes) <
            then_branch = t () => (double[N, 1] a) { a = MatMul(s, w) },
            else_branch = e () => (double[N, 1] c) { d = MatMul(s, w)  c = Neg(d) }>
        y = Add(h, b)  other = MatMul(x, head)  gone = MatMul(other, spare) }"""


def test_all_parameters_are_those_that_the_loss_depends_on() -> None:
    model = onnx.parser.parse_model(HEADS)
    step = train_step(model, loss="mse", optimizer="gradients")
    assert set(step.training.parameters) == {"w", "b"}
    assert step.untrained == {
        "head": "the loss doesn't depend on it",
        "lonely": "nothing reads it",
        "scale": "a number without axes",
        "sizes": "a setting of an op",
        "spare": "the loss doesn't depend on it",
    }
    check(step, feeds(step, model))
    assert set(Training.of(evaluation(step.model, model)).parameters) == {"w", "b"}
    other = train_step(model, loss="mse", output="other", optimizer="gradients")
    assert set(other.training.parameters) == {"head"}
    chosen = train_step(model, loss="mse", parameters="*, scale, !b, !head, !spare", optimizer="gradients")
    assert set(chosen.training.parameters) == {"w", "scale"} and not chosen.untrained
    for name, text in {
        "w, head": "the loss doesn't depend on the parameter 'head'",
        "w, spare": "nothing that the model gives reads the parameter 'spare'",
        "lonely, spare": "nothing that the model gives reads the parameter 'lonely' and 1 more",
        "whole": "no float initializer is called 'whole'",
        "w, !nothing": "no float initializer is called 'nothing'",
        "w, !w": "no initializer was made an input",
    }.items():
        _refused(ModelError, re.escape(text), model, loss="mse", parameters=name)


HALF = """<ir_version: 8, opset_import: ["": 17]> g (TYPE[N, 4] x) => (TYPE[N, 2] y)
    <float[4, 3] w = {1, 2, 3, 4, -5, 6, 7, 8, -9, 1, 2, 3}, float[3, 2] v = {1, -2, 3, 1, 2, -1}> {
        a = Cast<to = 1>(x)  b = MatMul(a, w)  s = Constant<value_float = 0.1>()  k = Mul(b, s)
        c = Tanh(k)  d = MatMul(c, v)  y = Cast<to = KIND>(d) }"""


@pytest.mark.parametrize(
    "options", [{}, {"prior": "sparse", "method": "gradient"}, {"prior": "right-reasons"}]
)
def test_a_model_in_half_precision(options: dict[str, Any]) -> None:
    """Computed in float32, of which inputs and outputs have three digits; weights must have them all."""
    half, whole = (
        onnx.parser.parse_model(HALF.replace("TYPE", kind).replace("KIND", code))
        for kind, code in (("float16", "10"), ("float", "1"))
    )
    step, plain = (train_step(m, optimizer="gradients", **options) for m in (half, whole))
    inputs = feeds(step, half)
    exact = {name: a.astype(np.float32) if a.dtype == np.float16 else a for name, a in inputs.items()}
    wanted = evaluated(plain, exact)
    for found in (evaluated(step, inputs), run(step, inputs)):
        for name, value in wanted.items():
            assert found[name].dtype == np.float32
            np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-3 * max(1, np.abs(value).max()))
    for tensor in half.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for name in ("*", "w"):
        _refused(ModelError, "'w' is f16, and what is trained is f32 or f64", half, parameters=name)
