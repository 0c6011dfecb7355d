"""`irshap train-step` and `irshap train`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from places import FIXTURES
from shells import Shell
from stepping import initial

from irshap.cli.training import LOSSES, OPTIMIZERS, PRIORS
from irshap.cost.session import predict
from irshap.ir.dims import N
from irshap.passes.training.loss import Losses
from irshap.passes.training.prior import Priors
from irshap.passes.training.step import Optimizers
from irshap.training import train_step

NET = FIXTURES / "training" / "mlp_f32.onnx"


def test_a_step(shell: Shell) -> None:
    options = ["--prior", "sparse", "--method", "input-x-gradient", "--optimizer", "adamw"]
    report = shell.json("train-step", NET, "-o", "step.onnx", *options)
    assert report["parameters"]["layers.0.weight"] == "layers.0.weight_next"
    session = onnxruntime.InferenceSession("step.onnx")
    assert [o.name for o in session.get_outputs()][:2] == ["loss", "prior"]
    assert {i.name for i in session.get_inputs()} == set(report["inputs"])
    options = ["--optimizer", "gradients", "--parameters", "layers.0.*"]
    told = shell.ok("train-step", NET, "-o", "step.onnx", *options)
    assert "layers.0.weight_gradient : f32[9, 6]" in told and "layers.2" not in told


def test_the_cost_of_a_step(shell: Shell) -> None:
    cnn = FIXTURES / "training" / "cnn_f32.onnx"
    shell.ok("train-step", cnn, "-o", "step.onnx", "--prior", "right-reasons")
    (found,) = shell.json("cost", "step.onnx", "-n", "512")["programs"]
    wanted = predict(train_step(cnn, prior="right-reasons").graph, {N: 512})
    assert abs(found["memory"]["peak"] / wanted.peak - 1) < 0.01
    assert "training step" in shell.ok("cost", "step.onnx", "-n", "8", "--memory-limit", "1GiB", "--layers")
    assert "--method is for an explanation" in shell.refused("cost", "step.onnx", "--method", "gradient")
    assert "it is a training step already" in shell.refused("train-step", "step.onnx", "-o", "again.onnx")
    assert "--references is how many" in shell.refused("cost", "step.onnx", "-r", "step.onnx")
    options = ["--prior", "sparse", "--method", "expected-gradients"]
    shell.ok("train-step", cnn, "-o", "step.onnx", *options)
    few, many = (shell.json("cost", "step.onnx", "-r", r)["programs"][0]["flops"] for r in ("1", "8"))
    assert many > 4 * few


def test_what_isnt_trained_is_told(shell: Shell) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y, float[N, 2] z)
        <float[2, 2] w = {1, 2, 3, 4}, float s = {2}, float t = {3}, float[2, 2] v = {1, 2, 3, 4}> {
            a = Mul(x, s)  b = Mul(a, t)  y = MatMul(b, w)  z = MatMul(x, v) }"""
    onnx.save(onnx.parser.parse_model(text), "model.onnx")
    told = shell.ok("train-step", "model.onnx", "-o", "step.onnx")
    assert "not trained: s, t: a number without axes" in told
    assert "not trained: v: the loss doesn't depend on it" in told
    np.savez("data.npz", x=np.ones((4, 2), np.float32), labels=np.zeros(4, int))
    assert "not trained: s, t:" in shell.ok(
        "train", "model.onnx", "data.npz", "-o", "out.onnx", "--epochs", "1"
    )
    before, after = initial(onnx.load("model.onnx")), initial(onnx.load("out.onnx"))
    assert [n for n in before if not np.array_equal(before[n], after[n])] == ["w"]
    refused = shell.refused("train-step", "model.onnx", "-o", "step.onnx", "--parameters", "w, v")
    assert "the loss doesn't depend on the parameter 'v'" in refused and "!v" in refused


def test_training(shell: Shell) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    np.savez("data.npz", x=x, labels=labels, x_mask=np.ones_like(x))
    run = ["train", NET, "data.npz", "-o", "out.onnx", "--prior", "right-reasons", "--prior-weight", "0.01"]
    run += ["--epochs", "2", "--validation", "data.npz", "--checkpoint", "run.npz"]
    told = shell.ok(*run).splitlines()
    assert [line.partition(":")[0] for line in told[:-1]] == ["epoch 1", "epoch 2"]
    assert "loss " in told[0] and "prior" in told[0] and "validation accuracy" in told[0]
    assert told[-1].endswith("after 2 epochs")
    before, after = initial(onnx.load(NET)), initial(onnx.load("out.onnx"))
    assert all(not np.array_equal(before[n], after[n]) for n in before)
    # what is over needs no epoch more
    trained = Path("out.onnx").read_bytes()
    assert "epoch 1" not in shell.ok(*run) and Path("out.onnx").read_bytes() == trained
    # as an array with labels beside it
    np.save("x.npy", x)
    np.save("y.npy", labels)
    shell.ok("train", NET, "x.npy", "-o", "out.onnx", "--labels", "y.npy")


def test_a_table(shell: Shell) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    table = pyarrow.table({**{f"feature {i}": x[:, i] for i in range(6)}, "kind": labels})
    parquet.write_table(table, "data.parquet")
    np.save("x.npy", x)
    np.save("y.npy", labels)
    shell.ok("train", NET, "data.parquet", "-o", "0.onnx", "--labels", "kind")
    shell.ok("train", NET, "x.npy", "-o", "1.onnx", "--labels", "y.npy")
    # one column of lists, in parts, with labels of a narrower type
    rows = pyarrow.FixedSizeListArray.from_arrays(x.astype(np.float32).ravel(), 6)
    listed = pyarrow.table({"x": rows, "labels": labels.astype(np.uint8)})
    parquet.write_table(listed, "lists.parquet", row_group_size=7)
    shell.ok("train", NET, "lists.parquet", "-o", "2.onnx")
    assert Path("0.onnx").read_bytes() == Path("1.onnx").read_bytes() == Path("2.onnx").read_bytes()


def test_tables_that_are_none(shell: Shell) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    features = {f"f{i}": np.ones(4) for i in range(6)}
    for changed, text in (
        ({"f2": ["a", "b", "c", "d"]}, "column 'f2': is no column of numbers"),
        ({"f2": ["1", "2", "3", "4"]}, "column 'f2': is no column of numbers"),
        ({"x": [[1.0], [1.0, 2.0], [], [1.0]]}, "column 'x': its lists differ in length"),
        ({"f5": [1.0, None, 1.0, 1.0]}, "1 of 24 values are NaN or infinite, the first in row 1"),
    ):
        parquet.write_table(pyarrow.table({**features, "labels": [0, 1, 2, 0], **changed}), "data.parquet")
        assert text in shell.refused("train", NET, "data.parquet", "-o", "o.onnx")
    assert "none.parquet: no such file" in shell.refused("train", NET, "none.parquet", "-o", "o.onnx")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--prior", "sparse"], "x-gradient needs a target that scales"),
        (["--prior", "sparse", "--axes", "2"], "--axes is an option of total-variation"),
        (["--nesterov"], "nesterov needs a momentum"),
        (["--dropout", "seeded"], "the model has no dropout that could drop"),
        (["--parameters", "!layers.*"], "no initializer was made an input"),
        (["--parameters", "layers.9"], "no float initializer is called 'layers.9'"),
        (["--prior", "group-lasso", "--method", "gradient"], "no groups are given"),
    ],
)
def test_steps_that_are_refused(shell: Shell, options: list[str], text: str) -> None:
    assert text in shell.refused("train-step", NET, "-o", "out.onnx", *options)


def test_labels_that_are_no_classes(shell: Shell) -> None:
    np.savez("data.npz", x=np.ones((4, 6), np.float32), labels=np.full(4, 5))
    train = ("train", NET, "data.npz", "-o", "out.onnx")
    assert "label 5 in row 0 is no class: the output has 3" in shell.refused(*train)
    assert "gradients alone train nothing. use sgd or adamw" in shell.refused(
        *train, "--optimizer", "gradients"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-o", "data.npz"], "data.npz: it would overwrite DATA"),
        (["-o", "out.onnx", "--checkpoint", "out.onnx"], "out.onnx: it would overwrite --checkpoint"),
        (["-o", "out.onnx", "--checkpoint", "none/run.npz"], "its folder doesn't exist"),
    ],
)
def test_paths_are_looked_at_first(shell: Shell, options: list[str], text: str) -> None:
    np.savez("data.npz", x=np.ones((4, 6), np.float32), labels=np.array([0, 1, 2, 0]))
    assert text in shell.refused("train", NET, "data.npz", *options)


def test_choices_are_those_of_the_passes() -> None:
    """The command line names them without importing the passes."""
    assert get_args(Losses) == LOSSES
    assert get_args(Priors) == PRIORS
    assert (*get_args(Optimizers), "gradients") == OPTIMIZERS
