"""`irshap train-step` and `irshap train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from places import ROOT
from stepping import initial

from irshap.cli import main
from irshap.cli.training import LOSSES, OPTIMIZERS, PRIORS
from irshap.passes.training.loss import Losses
from irshap.passes.training.prior import Priors
from irshap.passes.training.step import Optimizers

NET = str(ROOT / "tests" / "fixtures" / "training" / "mlp_f32.onnx")


def test_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = str(tmp_path / "step.onnx")
    options = ["--prior", "sparse", "--method", "input-x-gradient", "--optimizer", "adamw"]
    assert main(["train-step", NET, "-o", step, *options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["parameters"]["layers.0.weight"] == "layers.0.weight_next"
    session = onnxruntime.InferenceSession(step)
    assert [o.name for o in session.get_outputs()][:2] == ["loss", "prior"]
    assert {i.name for i in session.get_inputs()} == set(report["inputs"])
    assert (
        main(["train-step", NET, "-o", step, "--optimizer", "gradients", "--parameters", "layers.0.*"]) == 0
    )
    told = capsys.readouterr().out
    assert "layers.0.weight_gradient : f32[9, 6]" in told and "layers.2" not in told


def test_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)).astype(np.float32), rng.integers(0, 3, 40)
    data, out = str(tmp_path / "data.npz"), str(tmp_path / "out.onnx")
    np.savez(data, x=x, labels=labels, x_mask=np.ones_like(x))
    run = [
        "train",
        NET,
        data,
        "-o",
        out,
        "--prior",
        "right-reasons",
        "--prior-weight",
        "0.01",
        "--epochs",
        "2",
    ]
    assert main([*run, "--validation", data, "--checkpoint", str(tmp_path / "run.npz")]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("epoch 1: loss ") and "prior" in told[0] and "validation accuracy" in told[0]
    assert told[-1].endswith("after 2 epochs")
    before, after = initial(onnx.load(NET)), initial(onnx.load(out))
    assert all(not np.array_equal(before[n], after[n]) for n in before)
    # as an array with labels beside it
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    assert main(["train", NET, str(tmp_path / "x.npy"), "-o", out, "--labels", str(tmp_path / "y.npy")]) == 0


def test_a_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    table = pyarrow.table({**{f"feature {i}": x[:, i] for i in range(6)}, "kind": labels})
    parquet.write_table(table, tmp_path / "data.parquet")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", labels)
    outs = [str(tmp_path / f"{i}.onnx") for i in range(2)]
    table_file, plain = str(tmp_path / "data.parquet"), str(tmp_path / "x.npy")
    assert main(["train", NET, table_file, "-o", outs[0], "--labels", "kind"]) == 0
    assert main(["train", NET, plain, "-o", outs[1], "--labels", str(tmp_path / "y.npy")]) == 0
    assert Path(outs[0]).read_bytes() == Path(outs[1]).read_bytes()


def test_tables_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow = pytest.importorskip("pyarrow")
    file = tmp_path / "data.parquet"
    features = {f"f{i}": np.ones(4) for i in range(6)}
    for changed, text in (
        ({"f2": ["a", "b", "c", "d"]}, "column 'f2': is no column of numbers"),
        ({"f2": ["1", "2", "3", "4"]}, "column 'f2': is no column of numbers"),
        ({"x": [[1.0], [1.0, 2.0], [], [1.0]]}, "column 'x': its lists differ in length"),
        ({"f5": [1.0, None, 1.0, 1.0]}, "1 of 24 values are NaN or infinite, the first in row 1"),
    ):
        parquet.write_table(pyarrow.table({**features, "labels": [0, 1, 2, 0], **changed}), file)
        assert main(["train", NET, str(file), "-o", str(tmp_path / "o.onnx")]) == 2
        assert text in capsys.readouterr().err
    assert main(["train", NET, str(tmp_path / "none.parquet"), "-o", str(tmp_path / "o.onnx")]) == 2
    assert "none.parquet: no such file" in capsys.readouterr().err


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out.onnx")
    for options, text in (
        (["--prior", "sparse"], "x-gradient needs a target that scales"),
        (["--prior", "sparse", "--axes", "2"], "--axes is an option of total-variation"),
        (["--nesterov"], "nesterov needs a momentum"),
        (["--parameters", "layers.9"], "no float initializer is called 'layers.9'"),
        (["--prior", "group-lasso", "--method", "gradient"], "group-lasso has no groups for 'x'"),
    ):
        assert main(["train-step", NET, "-o", out, *options]) == 2
        assert text in capsys.readouterr().err
    np.savez(tmp_path / "data.npz", x=np.ones((4, 6), np.float32), labels=np.full(4, 5))
    assert main(["train", NET, str(tmp_path / "data.npz"), "-o", out]) == 2
    assert "label 5 in row 0 is no class: the output has 3" in capsys.readouterr().err
    assert main(["train", NET, str(tmp_path / "data.npz"), "-o", out, "--optimizer", "gradients"]) == 2
    assert not Path(out).exists()


def test_paths_are_looked_at_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = str(tmp_path / "data.npz"), str(tmp_path / "out.onnx")
    np.savez(data, x=np.ones((4, 6), np.float32), labels=np.array([0, 1, 2, 0]))
    before = Path(data).read_bytes()
    nowhere = str(tmp_path / "none" / "run.npz")
    for options, text in (
        (["-o", data], "data.npz: it would overwrite DATA"),
        (["-o", out, "--checkpoint", out], "out.onnx: it would overwrite --checkpoint"),
        (["-o", out, "--checkpoint", nowhere], "its folder doesn't exist"),
    ):
        assert main(["train", NET, data, *options]) == 2
        told = capsys.readouterr()
        assert text in told.err and "epoch" not in told.out
    assert Path(data).read_bytes() == before and not Path(out).exists()


def test_choices_are_those_of_the_passes() -> None:
    """The command line names them without importing the passes."""
    assert get_args(Losses) == LOSSES
    assert get_args(Priors) == PRIORS
    assert (*get_args(Optimizers), "gradients") == OPTIMIZERS
