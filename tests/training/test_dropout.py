"""Dropout in a training step: what seeds draw, what it does to gradients, and what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from stepping import evaluated, feeds, initial, network, run

import irshap
from irshap.errors import ModelError, NotDifferentiable, PipelineError
from irshap.ir.builder import Builder
from irshap.ir.core import Output
from irshap.ir.dims import Dim, N, symbol
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array, DType, TensorType
from irshap.ops.program import new_input
from irshap.passes.training.dropped import dropped
from irshap.training import Settings, Trainer, evaluation, train_step

RATIO = 0.3
STEPS = symbol("steps")


def kept(shape: tuple[Dim, ...], seeds: Array, place: int = 1, ratio: float = RATIO, **sizes: int) -> Array:
    """What a dropout makes of ones."""
    with Builder() as b:
        x = new_input("x", TensorType(DType.F64, shape))
        given = new_input("seeds", TensorType(DType.I64, (N,)))
        graph = b.build("g", [Output("y", dropped(x, ratio, given, place))])
    ones = np.ones([len(seeds) if d == N else d if isinstance(d, int) else sizes[str(d)] for d in shape])
    return evaluate(graph, {"x": ones, "seeds": seeds})["y"]


def model(training: bool = True, fed: bool = False) -> onnx.ModelProto:
    """5 features and 40 hidden, which a dropout is behind, or a product with an int64 input `m` [N, 40]."""
    layers: list[Any] = [
        ("Gemm", [(5, 40), (40,)], {}),
        ("Tanh", [], {}),
        ("Dropout", [np.array(RATIO), np.array(training)], {}),
        ("Gemm", [(40, 3), (3,)], {}),
    ]
    made = network((5,), 3, layers)
    if fed:
        del made.graph.initializer[3]
        made.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array(1 / (1 - RATIO)), "scale"))
        nodes = [
            helper.make_node("Cast", ["m"], ["floats"], to=onnx.TensorProto.DOUBLE),
            helper.make_node("Mul", ["floats", "scale"], ["mask"]),
            helper.make_node("Mul", ["h1", "mask"], ["h2"]),
        ]
        nodes = [*made.graph.node[:2], *nodes, made.graph.node[3]]
        del made.graph.node[:]
        made.graph.node.extend(nodes)
        made.graph.input.append(helper.make_tensor_value_info("m", onnx.TensorProto.INT64, ["N", 40]))
    return made


def test_what_is_drawn() -> None:
    seeds = np.arange(400)
    found = kept((N, 500), seeds)
    assert set(np.unique(found)) == {0.0, 1 / (1 - RATIO)}
    keeps = (found > 0) - (1 - RATIO)
    # of so many draws means and correlations are 0 within a few standard errors
    variance, count = RATIO * (1 - RATIO), keeps.size
    assert abs(keeps.mean()) < 4 * (variance / count) ** 0.5
    assert np.abs(keeps.mean(0)).max() < 5 * (variance / 400) ** 0.5
    assert np.abs(keeps.mean(1)).max() < 5 * (variance / 500) ** 0.5
    others = (kept((N, 500), seeds, 2) > 0) - (1 - RATIO)
    beyond = (kept((N, 500), seeds + 2**33) > 0) - (1 - RATIO)
    square = (kept((N, 20, 25), seeds) > 0) - (1 - RATIO)
    pairs = [(square[:, 1:], square[:, :-1]), (square[:, :, 1:], square[:, :, :-1])]
    pairs += [(square[:, 1:, 1:], square[:, :-1, :-1]), (square[:, 1:, :-1], square[:, :-1, 1:])]
    pairs += [(keeps[1:], keeps[:-1]), (keeps[:, 1:], keeps[:, :-1]), (keeps[:, 16:], keeps[:, :-16])]
    pairs += [(keeps[1:, 1:], keeps[:-1, :-1]), (keeps, others), (keeps[1:], others[:-1])]
    for a, b in pairs:
        assert abs((a * b).mean()) < 4 * variance / count**0.5
    assert (beyond == keeps).all()  # the seed counts by its lower 31 bits


def test_a_sample_drops_the_same_in_any_batch() -> None:
    seeds = np.array([7, -3, 2**31 - 1, 7])
    found = kept((N, 2, 6, STEPS), seeds, steps=9)
    assert (found[0] == found[3]).all() and (found[0] != found[1]).any()
    assert (kept((N, 2, 6, STEPS), seeds[1:3], steps=9) == found[1:3]).all()
    assert len({a.tobytes() for a in found[0].reshape(12, 9)}) == 12
    assert (kept((6, N, 4), seeds)[:, 0] != kept((6, N, 4), seeds)[:, 1]).any()
    assert set(kept((N,), seeds)) <= {0.0, 1 / (1 - RATIO)}
    assert (kept((N, 3), seeds, ratio=0.0) == 1).all()
    for shape in ((2 * N, 4), (3, 4)):
        with pytest.raises(ModelError, match="no axis counts them alone"):
            kept(shape, seeds)


PRIOR = {"prior": "sparse", "method": "input-x-gradient"}


@pytest.mark.parametrize("options", [{}, PRIOR], ids=["plain", "prior"])
def test_gradients_are_those_with_the_mask_fed(options: dict[str, Any]) -> None:
    step = train_step(model(), dropout="seeded", optimizer="gradients", **options)
    fed = train_step(model(fed=True), optimizer="gradients", **options)
    assert step.idle_dropouts == 0
    inputs = {**feeds(step, model()), "dropout_seeds": np.arange(6) + 11}
    given = {name: array for name, array in inputs.items() if name != "dropout_seeds"}
    wanted = evaluated(fed, given | {"m": (kept((N, 40), np.arange(6) + 11) > 0).astype(np.int64)})
    found, again, other = (
        evaluated(step, inputs | {"dropout_seeds": seeds})
        for seeds in (np.arange(6) + 11, np.arange(6) + 11, np.arange(6))
    )
    in_runtime = run(step, inputs)
    assert found.keys() == wanted.keys() and len(found) > 4
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-13)
        np.testing.assert_allclose(in_runtime[name], value, rtol=0, atol=1e-13)
        assert (again[name] == value).all() and (other[name] != value).any()


def test_none_drops_nothing() -> None:
    for training in (True, False):
        step = train_step(model(training), optimizer="gradients")
        assert step.idle_dropouts == 1 and "dropout_seeds" not in {v.name for v in step.model.graph.input}
        inputs = {**feeds(step, model()), "m": np.ones((6, 40), np.int64)}
        fed = train_step(model(fed=True), optimizer="gradients")
        scaled = {n: a / (1 - RATIO) if n == "p3.0" else a for n, a in inputs.items()}
        found, wanted = evaluated(step, scaled), evaluated(fed, inputs)
        np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-12)
    with pytest.raises(PipelineError, match="deeplift runs other rows than samples"):
        train_step(model(), dropout="seeded", prior="sparse", method="deeplift")
    with pytest.raises(PipelineError, match="dropout='some' is unknown"):
        train_step(model(), dropout="some")


def test_a_run_draws_anew_in_each_step_and_is_repeated() -> None:
    step = train_step(model(False), dropout="seeded")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, 5)), rng.integers(0, 3, 20)

    def trained(seed: int, rate: float = 0.1) -> Trainer:
        trainer = Trainer(step, model(False), Settings(epochs=2, learning_rate=rate, seed=seed))
        trainer.fit(x, labels, validation=x, validation_labels=labels)
        return trainer

    one, same, other = trained(0), trained(0), trained(1)
    assert one.trained == same.trained != other.trained
    assert [n.op_type for n in one.trained.graph.node] == [n.op_type for n in model().graph.node]
    # without moving, only what is dropped differs
    still = trained(0, rate=0.0).history
    assert still[0]["loss"] != still[1]["loss"] and still[0]["validation_loss"] == still[1]["validation_loss"]
    assert "dropout_seeds" not in {v.name for v in evaluation(step.model, model(False)).graph.input}


def test_two_of_one_tensor_drop_others() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (double[N, 6] x) => (double[N, 6] y)
        <double[6] w = {1, 2, 3, 4, 5, 6}> {
            h = Mul(x, w)  a = Dropout(h)  b, m = Dropout(h)  y = Sub(a, b) }"""
    source = onnx.parser.parse_model(text)
    step = train_step(source, loss="mse", dropout="seeded", optimizer="gradients")
    found = evaluated(step, feeds(step, source, labels=np.zeros((6, 6)), dropout_seeds=np.arange(6)))
    assert found["loss"] > 0 and (found["w_gradient"] != 0).any()


SHARED = """<ir_version: 8, opset_import: ["": 17]> g (double[N, 3] x) => (double[N, 3] y)
    <double[3] ones = {1, 1, 1}, double[3] zeros = {0, 0, 0}, double[3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 10}> {
        second.var = Identity(ones)  also = Identity(zeros)  second.bias = Identity(also)
        a = BatchNormalization<TRAINING>(x, ones, zeros, zeros, ones)
        b = MatMul(a, w)
        y = BatchNormalization(b, ones, second.bias, also, second.var) }"""


@pytest.mark.parametrize("attributes", ["epsilon = 1e-5", "training_mode = 1"])
def test_statistics_that_are_shared_in_the_file_are_apart(attributes: str) -> None:
    """Exporters make one of tensors that are equal: of a fresh network nearly all."""
    source = onnx.parser.parse_model(SHARED.replace("TRAINING", attributes).replace("second.", "second_"))
    step = train_step(source, loss="mse", batch_norm="batch")
    assert set(step.training.parameters) == {"ones", "zeros", "w"}
    states = step.training.states
    assert len(states) == 4 and "second_var" in states
    x, labels = np.random.default_rng(0).normal(size=(2, 20, 3))
    trainer = Trainer(step, source, Settings(epochs=1, batch_size=20, learning_rate=0.0))
    trainer.fit(x, labels)
    after, w = initial(trainer.trained), initial(source)["w"]
    normalized = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) @ w
    wanted = [m for z in (x, normalized) for m in (0.1 * z.mean(0), 0.9 + 0.1 * z.var(0, ddof=1))]
    found = [after[name] for name in states]
    for value in wanted:
        assert min(np.abs(value - other).max() for other in found) < 1e-7
    np.testing.assert_allclose(after["second_var"], wanted[3], atol=1e-7)
    # frozen, a parameter moves and the statistics stay
    frozen = train_step(source, loss="mse", optimizer="gradients")
    assert not frozen.training.states and set(frozen.training.parameters) == {"ones", "zeros", "w"}
    inputs = feeds(frozen, source, labels=labels, x=x, sample_weights=np.ones(20), rows=20)
    moved = evaluated(frozen, inputs | {"ones": np.full(3, 2.0)})
    y = (x / np.sqrt(1 + 1e-5) * 2 @ w) / np.sqrt(1 + 1e-5) * 2
    np.testing.assert_allclose(moved["loss"], ((y - labels) ** 2).mean(), rtol=1e-6)


FIVE = """<ir_version: 7, opset_import: ["": 13]> g (double[N, 2] x) => (double[N, 2] y, double[2] s_mean)
    <double[2] w = {3, 5}, double[2] b = {0, 0}, double[2] mean = {0, 0}, double[2] var = {1, 1}> {
        y, r_mean, r_var, s_mean, s_var = BatchNormalization(x, w, b, mean, var) }"""


@pytest.mark.parametrize("batch_norm", ["frozen", "batch"])
def test_training_form_until_opset_13_has_five_outputs(batch_norm: str) -> None:
    """Two had no form, and the model was refused for a rank that nothing told."""
    source = onnx.parser.parse_model(FIVE)
    step = train_step(source, loss="mse", batch_norm=batch_norm, optimizer="gradients")
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(6, 2))
    inputs = feeds(step, source, labels=np.zeros((6, 2)), x=x, sample_weights=np.ones(6), rows=6)
    center, spread = (x.mean(0), x.var(0)) if batch_norm == "batch" else (0.0, 1.0)
    y = (x - center) / np.sqrt(spread + 1e-5) * [3.0, 5.0]
    np.testing.assert_allclose(evaluated(step, inputs)["loss"], (y**2).mean(), rtol=1e-9)


def test_what_is_in_training_form_is_refused_for_that() -> None:
    with pytest.raises(NotDifferentiable, match="in training mode"):
        irshap.compile(onnx.parser.parse_model(FIVE), np.zeros((1, 2)), target=0)


@pytest.mark.parametrize("version", [3, 8])
def test_statistics_get_names_that_are_free(version: int) -> None:
    """An initializer called as an input would be read in its place; old files list all among the inputs."""
    source = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 9]> g (double[N, 3] x, double[N, 3] zeros_1) => (double[N, 3] y)
        <double[3] ones = {1, 1, 1}, double[3] zeros = {0, 0, 0}> {
            a = BatchNormalization(x, ones, zeros, zeros, ones)  y = Add(a, zeros_1) }"""
    )
    if version < 4:
        source.ir_version = version
        for name in ("ones", "zeros"):
            source.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [3]))
    step = train_step(source, loss="mse", batch_norm="batch")
    assert {"x", "zeros_1", "zeros_2"} <= {v.name for v in step.graph.inputs}
    onnx.checker.check_model(Trainer(step, source).trained)


def test_statistics_in_a_function_are_written_back() -> None:
    source = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "f": 1]> g (double[N, 2] x) => (double[N, 2] y)
        <double[2] ones = {1, 1}, double[2] zeros = {0, 0}, double[2] var = {1, 1}>
        { y = f.norm(x, ones, zeros, var) }
        <domain: "f", opset_import: ["": 17]> norm (x, s, b, v) => (y)
        { y = BatchNormalization(x, s, b, b, v) }"""
    )
    reasons = {"var": "a running statistic of a batch normalization"}
    assert train_step(source, loss="mse").untrained == reasons
    step = train_step(source, loss="mse", batch_norm="batch")
    trainer = Trainer(step, source, Settings(epochs=1, batch_size=4, learning_rate=0.0))
    x = np.random.default_rng(0).normal(size=(4, 2))
    trainer.fit(x, np.zeros((4, 2)))
    np.testing.assert_allclose(initial(trainer.trained)["zeros_1"], 0.1 * x.mean(0), atol=1e-7)
