"""Runs: resumed to the byte, stopped early, refused with a reason, and written back into the model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from places import FIXTURES, ROOT
from stepping import initial, lstm, mlp, network

from irshap.errors import ModelError, UserError
from irshap.ir.types import Array
from irshap.training import Settings, Trainer, train_step
from irshap.training.loop import Loop

FOLDER = FIXTURES / "training"
NET = onnx.load(FOLDER / "mlp_f32.onnx")


def blobs(count: int = 90, seed: int = 0) -> tuple[Array, Array]:
    """Three classes around three centres."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centres = np.random.default_rng(9).normal(size=(3, 6)) * 2
    return (centres[labels] + rng.normal(size=(count, 6))).astype(np.float32), labels


def trainer(checkpoint: Path | None = None, step: dict[str, Any] | None = None, **settings: Any) -> Trainer:
    made = train_step(NET, **(step or {"prior": "sparse", "method": "input-x-gradient"}))
    chosen = Settings(**{"epochs": 4, "batch_size": 16, "learning_rate": 0.1, "prior_weight": 0.1} | settings)
    return Trainer(made, NET, chosen, checkpoint=checkpoint)


class Killed(Exception):
    """A process's end, as far as a trainer knows."""


class Steps:
    """Counts the steps that run, of all trainers; `ends` says before how many of them their process ends."""

    def __init__(self) -> None:
        self.count, self.ends = 0, -1

    def restart(self, ends: int = -1) -> None:
        """Counts anew."""
        self.count, self.ends = 0, ends

    def next(self) -> None:
        if self.count == self.ends:
            raise Killed
        self.count += 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    counted, run = Steps(), Loop.run
    monkeypatch.setattr(Loop, "run", lambda loop, given: (counted.next(), run(loop, given))[1])
    return counted


def test_training_teaches(tmp_path: Path) -> None:
    x, labels = blobs()
    held, held_labels = blobs(60, seed=1)
    told: list[int] = []
    run = trainer(epochs=12)
    before = run.evaluate(held, held_labels)
    history = run.fit(
        x, labels, validation=held, validation_labels=held_labels, progress=lambda e, m: told.append(e)
    )
    assert told == list(range(1, 13)) and history == run.history
    assert history[-1]["loss"] < history[0]["loss"] / 2
    assert history[-1]["validation_accuracy"] > 0.9 > before["accuracy"]
    run.save(tmp_path / "trained.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "trained.onnx")
    (logits,) = session.run(None, {"x": held})
    assert float((logits.argmax(1) == held_labels).mean()) == history[-1]["validation_accuracy"]
    # nothing but the weights is another
    trained = onnx.load(tmp_path / "trained.onnx")
    assert trained.graph.node == NET.graph.node and trained.graph.input == NET.graph.input
    assert {n: a.shape for n, a in initial(trained).items()} == {n: a.shape for n, a in initial(NET).items()}


@pytest.mark.parametrize("optimizer", ["sgd{momentum=0.9}", "adamw"])
def test_resumed_to_the_byte(tmp_path: Path, optimizer: str, steps: Steps) -> None:
    """Of 4 epochs of 6 steps; the last checkpoint before step 11 is that of step 8."""
    x, labels = blobs()
    step = {"prior": "sparse", "method": "expected-gradients", "optimizer": optimizer}
    whole = trainer(step=step, references=2)
    history = whole.fit(x, labels)
    assert steps.count == 24
    first = trainer(tmp_path / "run.npz", step, references=2, checkpoint_every=4)
    steps.restart(ends=10)
    with pytest.raises(Killed):
        first.fit(x, labels)
    steps.restart()
    second = trainer(tmp_path / "run.npz", step, references=2)
    assert second.fit(x, labels) == history
    assert steps.count == 24 - 8
    assert second.trained.SerializeToString() == whole.trained.SerializeToString()
    # a run that is over stays as it is
    steps.restart()
    third = trainer(tmp_path / "run.npz", step, references=2)
    assert third.fit(x, labels) == history
    assert steps.count == 0
    assert third.trained.SerializeToString() == whole.trained.SerializeToString()
    # and one of more epochs goes on
    told: list[int] = []
    longer = trainer(tmp_path / "run.npz", step, references=2, epochs=5)
    assert longer.fit(x, labels, progress=lambda e, m: told.append(e))[:4] == history
    assert told == [5]


KILLED = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_trainer import blobs, trainer
run = trainer(Path({checkpoint!r}), epochs=30, checkpoint_every=1)
print("ready", flush=True)
run.fit(*blobs())
run.save({output!r})
"""


@pytest.mark.slow
def test_killed_at_random_steps(tmp_path: Path) -> None:
    """SIGKILL six times: the final model's bytes are those of an undisturbed run."""
    whole = trainer(epochs=30)
    whole.fit(*blobs())
    output, checkpoint = tmp_path / "trained.onnx", tmp_path / "run.npz"
    paths = [str(ROOT), *(str(ROOT / "tests" / p) for p in ("", "helpers", "training"))]
    code = textwrap.dedent(KILLED).format(paths=paths, checkpoint=str(checkpoint), output=str(output))
    rng = np.random.default_rng(4)
    killed, kept = 0, [0]
    while killed < 6 and not output.exists():
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(float(rng.uniform(0.0, 0.03)))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        if checkpoint.exists():
            with np.load(checkpoint) as found:
                kept.append(json.loads(str(found["irshap"]))["steps"])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert killed >= 3
    # none began anew
    assert kept == sorted(kept) and kept[-1] > 0
    assert output.read_bytes() == whole.trained.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"more": 1},
        {"epoch": "1"},
        {"epoch": -1},
        {"sums": [0.0]},
        {"history": 3},
        {"best": "none"},
        None,
        "left out",
        "short",
        "added",
    ],
    ids=str,
)
def test_checkpoints_that_are_none(tmp_path: Path, changed: Any) -> None:
    x, labels = blobs()
    path = tmp_path / "run.npz"
    trainer(path, {}, epochs=1).fit(x, labels)
    with np.load(path) as found:
        arrays = dict(found)
    header, name = json.loads(str(arrays["irshap"])), "values/layers.0.weight"
    if changed == "left out":
        del arrays[name]
    elif changed == "short":
        arrays[name] = arrays[name][:1]
    elif changed == "added":
        arrays["values/other"] = arrays[name]
    else:
        arrays["irshap"] = np.array(json.dumps(None if changed is None else {**header, **changed}))
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=r"run\.npz: is (damaged|no checkpoint)"):
        trainer(path, {}, epochs=2).fit(x, labels)


def test_early_stopping_takes_the_best_epoch(tmp_path: Path) -> None:
    x, labels = blobs(30)
    held, held_labels = blobs(60, seed=5)
    run = trainer(tmp_path / "run.npz", {}, epochs=80, patience=3, learning_rate=1.5)
    history = run.fit(x, labels, validation=held, validation_labels=held_labels)
    losses = [m["validation_loss"] for m in history]
    assert len(losses) < 80 and int(np.argmin(losses)) == len(losses) - 4
    assert run.evaluate(held, held_labels)["loss"] == pytest.approx(min(losses), rel=1e-6)
    again = trainer(tmp_path / "run.npz", {}, epochs=80, patience=3, learning_rate=1.5)
    assert again.fit(x, labels, validation=held, validation_labels=held_labels) == history
    assert again.trained.SerializeToString() == run.trained.SerializeToString()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    x, labels = blobs()
    good = trainer(tmp_path / "run.npz", epochs=1)
    good.fit(x, labels)
    kept = (tmp_path / "run.npz").read_bytes()
    wild = trainer(tmp_path / "wild.npz", learning_rate=1e30)
    with pytest.raises(UserError) as error:
        wild.fit(x, labels)
    assert "training step " in str(error.value) and "no finite number is what it gives for loss" in str(
        error.value
    )
    assert "lower the learning rate" in str(error.value)
    # nothing was good yet, and nothing is said to be
    assert "the last good state" not in str(error.value) and not (tmp_path / "wild.npz").exists()
    with pytest.raises(UserError, match="is of another run"):
        trainer(tmp_path / "run.npz", learning_rate=1e30).fit(x, labels)
    assert (tmp_path / "run.npz").read_bytes() == kept
    nothing = np.zeros_like(x)
    assert np.isfinite(trainer(epochs=1).fit(nothing, labels)[0]["prior"])


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_last_good_checkpoint_stays_and_loads(tmp_path: Path, steps: Steps, every: int) -> None:
    """Weight decay times the rate is 1e4: weights grow by that in each step, until the loss is no number."""
    data, wild = blobs(), tmp_path / "wild.npz"
    options = {"learning_rate": 1e3, "checkpoint_every": every}
    step = {"optimizer": "sgd{weight_decay=10.0}"}
    with pytest.raises(UserError, match=r"the last good state is in .*wild\.npz") as error:
        trainer(wild, step, **options).fit(*data)
    failing = steps.count
    last = (failing - 1) // every * every
    assert last > 0 and f"training step {failing} " in str(error.value)
    kept = wild.read_bytes()
    # what a run keeps that ends there for another reason
    steps.restart(ends=failing - 1)
    with pytest.raises(Killed):
        trainer(tmp_path / "ended.npz", step, **options).fit(*data)
    assert kept == (tmp_path / "ended.npz").read_bytes()
    with np.load(wild) as found:
        assert json.loads(str(found["irshap"]))["steps"] == last
        assert all(np.isfinite(found[name]).all() for name in found if name.startswith("values/"))
    # it goes on from there, to the same end
    steps.restart()
    with pytest.raises(UserError, match=f"training step {failing} "):
        trainer(wild, step, **options).fit(*data)
    assert steps.count == failing - last and wild.read_bytes() == kept


def test_batch_statistics_are_written_back() -> None:
    net = onnx.load(FOLDER / "cnn_f32.onnx")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(24, 2, 8, 8)).astype(np.float32) * 3 + 1, rng.integers(0, 3, 24)
    run = Trainer(train_step(net, batch_norm="batch"), net, Settings(epochs=3, batch_size=8))
    run.fit(x, labels, validation=x, validation_labels=labels)
    before, after = initial(net), initial(run.trained)
    assert any(np.abs(before[n] - after[n]).max() > 0.1 for n in before if "running" in n)
    session = onnxruntime.InferenceSession(run.trained.SerializeToString())
    (logits,) = session.run(None, {"x": x})
    shifted = logits - logits.max(1, keepdims=True)
    each = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(24), labels]
    assert run.history[-1]["validation_loss"] == pytest.approx(each.mean(), rel=1e-5)


def refused(text: str, data: Any, labels: Any = None, **step: Any) -> None:
    with pytest.raises(UserError, match=text):
        Trainer(train_step(NET, **step), NET, Settings(epochs=1)).fit(data, labels)


def test_data_is_checked_first() -> None:
    x, labels = blobs()
    refused("label 7 in row 3 is no class: the output has 3", x, np.where(np.arange(90) == 3, 7, labels))
    refused("label -1 in row 0 is no class", x, labels - 1 - labels[0])
    refused("labels are float64, and must be whole", x, labels + 0.5)
    refused("'labels' has 89 rows, and 'x' 90", x, labels[:-1])
    refused("there is no 'labels'", x)
    bad = x.copy()
    bad[5, 1] = np.nan
    refused("1 of 540 values are NaN or infinite, the first in row 5", bad, labels)
    refused(r"shape", x[:, :4], labels)
    refused("there is no 'x_mask'", x, labels, prior="right-reasons")
    refused("there is no 'x_references'", x, labels, prior="sparse", method="integrated-gradients{steps=2}")
    with pytest.raises(UserError, match="batch_size is 0"):
        Settings(batch_size=0)
    with pytest.raises(UserError, match=r"threads is 100000000\. give up to 1024"):
        Settings(threads=10**8)


def test_data_of_little_use_is_refused(tmp_path: Path) -> None:
    x, labels = blobs()
    count = len(x)
    known = {"x": x, "labels": labels}
    refused(r"'x': has shape \[\]", {**known, "x": np.float32(1)})
    refused(
        "'sample_weight' is nothing that is read.*sample_weights", {**known, "sample_weight": np.ones(count)}
    )
    refused("-1 in row 0 is out of range.*0 or more", {**known, "sample_weights": -np.ones(count)})
    refused("all sample weights are 0", {**known, "sample_weights": np.zeros(count)})
    late = np.arange(count) < 2
    refused("this batch have the weight 0", {**known, "sample_weights": late})
    refused("2 in row 0 is out of range.*0 to 1", x, np.full((count, 3), 2.0), loss="binary-cross-entropy")
    for method in ("integrated-gradients{steps=2}", "expected-gradients"):
        nothing = {**known, "x_references": x[:0]}
        refused("'x_references': there is no reference", nothing, prior="sparse", method=method)
    # what counts, or is 0 or 1, may be integers or truths
    kinds = {"sample_weights": np.ones(count, np.int64), "x_mask": np.ones(x.shape, bool)}
    histories = [
        trainer(step={"prior": "right-reasons"}, epochs=1).fit({**known, **k})
        for k in (kinds, {n: a.astype(np.float32) for n, a in kinds.items()})
    ]
    assert histories[0] == histories[1]


def test_validation_is_weighted() -> None:
    """The loss of 300 samples is that of those with a weight, whatever batches they are in."""
    x, labels = blobs(300)
    run, weights = trainer(step={}), np.arange(300) % 100 < 7
    weights[256:] = False
    found = run.evaluate({"x": x, "labels": labels, "sample_weights": weights})
    assert found["loss"] == pytest.approx(run.evaluate(x[weights], labels[weights])["loss"], rel=1e-5)


def test_nothing_that_is_no_number_is_kept(tmp_path: Path) -> None:
    """What the last step of an epoch makes, and a running variance, which no loss shows."""
    net, path = onnx.load(FOLDER / "mlp_f32.onnx"), tmp_path / "run.npz"
    wild = train_step(net, optimizer="sgd{weight_decay=1000.0}")
    with pytest.raises(UserError, match=r"training step 1 .*would have NaN or infinite"):
        Trainer(wild, net, Settings(epochs=1, batch_size=90, learning_rate=1e38), checkpoint=path).fit(
            *blobs()
        )
    values = {"p1.2": np.zeros(4), "p1.3": np.ones(4)}
    layers: list[Any] = [
        ("Gemm", [(6, 4)], {}),
        ("BatchNormalization", [(4,), (4,), *values.values()], {}),
        ("Gemm", [(4, 3)], {}),
    ]
    net = network((6,), 3, layers)
    step = train_step(net, batch_norm="batch")
    with pytest.raises(UserError, match=r"'p1\.3' would have .* a batch of one sample has no variance"):
        Trainer(step, net, Settings(epochs=1, batch_size=89), checkpoint=path).fit(*blobs())
    assert not path.exists()
    assert len(Trainer(step, net, Settings(epochs=1, batch_size=88)).fit(*blobs())) == 1


def test_what_runs_in_no_session_says_so() -> None:
    """ONNX Runtime's LSTM refuses float64 when it runs, not when it is made."""
    net = lstm(4)
    with pytest.raises(ModelError, match=r"does not support double.*train in float32"):
        Trainer(train_step(net), net).fit(np.ones((5, 4, 3)), np.zeros(5))


def test_steps_that_are_none() -> None:
    with pytest.raises(ModelError, match="it is no training step"):
        Trainer(NET, NET)
    with pytest.raises(ModelError, match="only gives gradients"):
        Trainer(train_step(NET, optimizer="gradients"), NET)
    with pytest.raises(ModelError, match="wasn't made of this model"):
        Trainer(train_step(NET), mlp())


@pytest.mark.parametrize("loss", ["mse", "binary-cross-entropy"])
def test_losses_without_classes(loss: str) -> None:
    wanted = np.random.default_rng(0).random((90, 3))
    run = Trainer(train_step(NET, loss=loss), NET, Settings(epochs=3))
    history = run.fit(blobs()[0], wanted)
    assert history[-1]["loss"] < history[0]["loss"] and "accuracy" not in run.evaluate(blobs()[0], wanted)
