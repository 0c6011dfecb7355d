"""Runs training steps: epochs, checkpoints, early stopping, and the trained model in the end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from irshap import contract
from irshap.errors import ModelError, UserError
from irshap.ir.types import Array
from irshap.lowering.files.load import inline_functions, load_model
from irshap.lowering.files.save import save_model
from irshap.lowering.parameters import own_statistics
from irshap.passes.training.loss import Loss
from irshap.training.checkpoint import Checkpoint
from irshap.training.data import Data, Features
from irshap.training.loop import Loop
from irshap.training.step import TrainingStep, passes_of
from irshap.training.validation import Validation

__all__ = ["Settings", "Trainer"]

Metrics = dict[str, float]

MOST_THREADS = 1024
"""ONNX Runtime starts as many as it is told, until the system ends the process."""


@dataclass(frozen=True)
class Settings:
    """How a step is repeated.

    Attributes:
        epochs: how many times all samples are seen.
        batch_size: samples in a step; the last one of an epoch may have fewer.
        learning_rate, prior_weight: as the step has them.
        seed: of the order of samples, and of what is drawn; the same seed gives the same run.
        references: how many each sample gets in a step, where it has its own (expected gradients).
        patience: epochs without a smaller loss (on validation data, where there are some) after which
            training ends and the best epoch's parameters are taken; 0: never.
        checkpoint_every: steps between two checkpoints beside those at the end of an epoch; 0: none.
        threads: 1 repeats a run to the bit; 0 is ONNX Runtime's choice.
    """

    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 0.01
    prior_weight: float = 1.0
    seed: int = 0
    references: int = 1
    patience: int = 0
    checkpoint_every: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "references"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, and must be 1 or more")
        for name in ("seed", "patience", "checkpoint_every", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, and must not be negative")
        if self.threads > MOST_THREADS:
            raise UserError(
                f"threads is {self.threads}", mend=f"give up to {MOST_THREADS}; 0 is ONNX Runtime's choice"
            )
        for name in ("learning_rate", "prior_weight"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} is {getattr(self, name)}")


class Trainer:
    """Trains a model by a training step (`train_step`), in ONNX Runtime alone.

    Args:
        step: a `TrainingStep`, or its ONNX model as a path, bytes or an `onnx.ModelProto`.
        model: the model that the step was made of, likewise: parameters start as it has them, and `trained`
            is that model with others.
        settings: how the step is repeated.
        checkpoint: where to keep the run; one that is there is resumed, to the same bytes as if it had never
            stopped.  None: nowhere.
        providers: ONNX Runtime's execution providers; None: the CPU.

    Attributes:
        history: for each epoch its metrics: `loss` and `prior`, means over the samples as each was when it
            was seen; with validation data also `validation_loss` and, where labels are classes,
            `validation_accuracy`.

    Raises:
        ModelError: `step` is no training step, only gives gradients, or wasn't made of `model`.
    """

    def __init__(
        self,
        step: Any,
        model: Any,
        settings: Settings | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        providers: Sequence[Any] | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self._step = step.model if isinstance(step, TrainingStep) else load_model(step)
        # as it was lifted: statistics may be read in a function
        self._model = own_statistics(inline_functions(load_model(model)))
        self._providers = providers
        start = {t.name: t for t in self._model.graph.initializer}
        values = {name: numpy_helper.to_array(t) for name, t in start.items()}
        self._loop = Loop(self._step, values, providers, self.settings.threads)
        training = self._loop.training
        if training.gradients:
            raise ModelError("the step only gives gradients", mend="make it with an optimizer: sgd or adamw")
        for name in training.parameters:
            if name not in start or list(start[name].dims) != self._loop.shapes[name]:
                what = f"the step wasn't made of this model, which has no parameter {name!r} like that"
                raise ModelError(what, mend="give the model that irshap train-step was given")
        self._loss = next(p for p in passes_of(self._step) if isinstance(p, Loss))
        self._running = {n for n in training.states if n in start}
        """Statistics of batch normalizations."""
        self._features: Features = {}
        """The order of a table's columns, as the first data that it was trained on had them."""
        self.history: list[Metrics] = []

    def fit(
        self,
        data: Any,
        labels: Any = None,
        *,
        validation: Any = None,
        validation_labels: Any = None,
        progress: Callable[[int, Metrics], None] | None = None,
    ) -> list[Metrics]:
        """Trains, or goes on where the checkpoint stands.

        Args:
            data: the model's inputs by name, or one array [N, ...] or a DataFrame where it has one input; the
                path of an .npz, .npy or .parquet file.  By name also what the step needs besides: `labels`,
                `events`, `sample_weights`, `<input>_mask`, `<input>_references` (where each sample has its
                own, what they are drawn from: without any, the samples themselves).
            labels: an array, or the name of one in `data`.
            validation: data that is only looked at after each epoch.
            validation_labels: its labels.
            progress: is told each epoch's number, from 1, and metrics.

        Returns:
            The metrics of each epoch.

        Raises:
            UserError: data that doesn't fit; a checkpoint of another run; a loss or prior that is no number:
                says in which step and why.  The last checkpoint then stays.
        """
        known = self._known(data, labels)
        self._features = known.features
        other = None if validation is None else self._known(validation, validation_labels)
        at = self._start(known, other)
        settings = self.settings
        while at.epoch < settings.epochs and not self._waited(at):
            self._epoch(at, known)
            metrics: Metrics = {
                "loss": at.sums[0] / at.sums[2],
                **({"prior": at.sums[1] / at.sums[2]} if self._loop.training.prior else {}),
                **({} if other is None else self._validated(other)),
            }
            at.epoch, at.step, at.sums = at.epoch + 1, 0, [0.0, 0.0, 0.0]
            at.history.append(metrics)
            self._judge(at, metrics.get("validation_loss", metrics["loss"]))
            self._keep(at)
            if progress is not None:
                progress(at.epoch, metrics)
        if at.best_values:
            self._loop.set(at.best_values)
        self.history = at.history
        return self.history

    @property
    def trained(self) -> onnx.ModelProto:
        """The model with the parameters and running statistics of now, its functions written out."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        values = self._loop.values()
        for tensor in model.graph.initializer:
            if tensor.name in values:
                tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `trained` to `path`, all of it or nothing.

        Raises:
            UserError: the folder doesn't exist or can't be written, or the disk is full.
        """
        save_model(self.trained, path)

    def evaluate(self, data: Any, labels: Any = None) -> Metrics:
        """Loss, and accuracy where labels are classes, on other data.

        Raises:
            UserError: data that doesn't fit.
        """
        return self._validated(self._known(data, labels), "")

    def _known(self, data: Any, labels: Any) -> Data:
        loop = self._loop
        likely = self._loss.kind == "binary-cross-entropy"
        step = (loop.training, loop.shapes, loop.dtypes)
        return Data.of(data, labels, *step, self._classes, probabilities=likely, features=self._features)

    @property
    def _classes(self) -> int | None:
        """How many classes labels may be; None where they are none."""
        if self._loss.kind not in ("cross-entropy", "hinge"):
            return None
        told = {v.name: v.type.tensor_type.shape.dim for v in self._model.graph.output}
        shape = [d.dim_value for d in told.get(self._loss.output or next(iter(told)), ())] or [0]
        # where the file doesn't say it, the program that is made of it does
        sizes = [s for s in (shape if all(shape[1:]) else self._validation.shape)[1:] if s != 1]
        return 2 if not sizes else int(sizes[0])

    @cached_property
    def _validation(self) -> Validation:
        return Validation(self._step, self._model, self._loss, self._providers, self.settings.threads)

    def _start(self, data: Data, other: Data | None) -> Checkpoint:
        digests = [data.digest(), "" if other is None else other.digest()]
        model = sha256(self._model.SerializeToString(deterministic=True)).hexdigest()
        step = sha256(self._step.SerializeToString(deterministic=True)).hexdigest()
        # longer training goes on with the same run
        settings = {k: v for k, v in vars(self.settings).items() if k not in ("epochs", "checkpoint_every")}
        text = json.dumps([step, model, settings, *digests], sort_keys=True)
        run = sha256(text.encode()).hexdigest()
        shapes = {name: self._loop.shapes[name] for name in self._loop.handed}
        at = None if self.checkpoint is None else Checkpoint.load(self.checkpoint, run, shapes)
        if at is None:
            return Checkpoint(run)
        self._loop.set(at.values)
        return at

    def _epoch(self, at: Checkpoint, data: Data) -> None:
        """The rest of an epoch."""
        settings, loop = self.settings, self._loop
        order = np.random.default_rng([settings.seed, at.epoch]).permutation(data.count)
        rest = order[at.step * settings.batch_size :]
        scalars = {
            contract.LEARNING_RATE: settings.learning_rate,
            contract.PRIOR_WEIGHT: settings.prior_weight,
        }
        rates = {
            name: np.array(scalars[of], loop.dtypes[name])
            for of, name in loop.training.given.items()
            if of in scalars
        }
        for batch in data.batches(settings.batch_size, rest):
            count = len(next(iter(batch.values())))
            loss, prior = loop.run({**batch, **rates, **self._drawn(data, count, at)})
            weights = batch[loop.training.given[contract.SAMPLE_WEIGHTS]]
            self._require_numbers(at, loss, prior, weights, data.count)
            loop.accept()
            for i, value in enumerate((loss, prior, 1.0)):
                at.sums[i] += value * count
            at.step, at.steps = at.step + 1, at.steps + 1
            if settings.checkpoint_every and at.steps % settings.checkpoint_every == 0:
                self._keep(at)

    def _drawn(self, data: Data, count: int, at: Checkpoint) -> Mapping[str, Array]:
        """References, where between them and the samples gradients are taken, and what samples drop."""
        loop, each = self._loop, self.settings.references
        rng = np.random.default_rng([self.settings.seed, at.epoch, at.step, 1])
        found = {}
        for name, pool in data.pools.items():
            own = loop.shapes[name][0] == "N"
            found[name] = pool[rng.integers(0, len(pool), (count, each))] if own else pool
        for name in loop.training.places.values():
            found[name] = rng.random((count, each)).astype(loop.dtypes[name])
        if (seeds := loop.training.given.get(contract.DROPOUT_SEEDS)) is not None:
            found[seeds] = rng.integers(0, 2**31, count)
        return found

    def _require_numbers(self, at: Checkpoint, loss: float, prior: float, weights: Array, of: int) -> None:
        """Refuses what isn't finite: a loss, and where it may be kept what the step made.

        Args:
            weights: of the batch's samples.
            of: how many samples an epoch has.
        """
        mend = "lower the learning rate or the prior's weight"
        wrong = [n for n, v in (("loss", loss), ("prior", prior)) if not math.isfinite(v)]
        cause = f"no finite number is what it gives for {' and '.join(wrong)}" if wrong else ""
        if not wrong and self._due(at, of):
            bad = [n for n, a in self._loop.made().items() if not np.isfinite(a).all()]
            cause = f"{bad[0]!r} would have NaN or infinite elements" if bad else ""
            if bad and bad[0] in self._running and len(weights) == 1:
                cause += ", since a batch of one sample has no variance"
                mend = "choose a batch size that doesn't leave one sample over"
        if not cause:
            return
        if wrong and (worn := [n for n, a in self._loop.values().items() if not np.isfinite(a).all()]):
            cause += f", since the step before made {worn[0]!r} infinite or NaN"
        if not weights.any():
            cause += ", since all samples of this batch have the weight 0"
            mend = "leave samples of weight 0 out, or take larger batches"
        kept = self.checkpoint is not None and self.checkpoint.exists()
        raise UserError(
            cause,
            where=f"training step {at.steps + 1} (epoch {at.epoch + 1})",
            mend=mend + (f"; the last good state is in {self.checkpoint}" if kept else ""),
        )

    def _due(self, at: Checkpoint, samples: int) -> bool:
        """Whether what the step that is running makes may be kept, so that it must be good."""
        if (at.step + 1) * self.settings.batch_size >= samples:
            return True
        every = self.settings.checkpoint_every
        return self.checkpoint is not None and bool(every) and (at.steps + 1) % every == 0

    def _keep(self, at: Checkpoint) -> None:
        if self.checkpoint is None:
            return
        at.values = self._loop.values()
        at.save(self.checkpoint)

    def _validated(self, data: Data, prefix: str = "validation_") -> Metrics:
        size, classes = self.settings.batch_size, self._classes is not None
        loss, right = self._validation.run(data, self._loop.current, size, classes=classes)
        found = {f"{prefix}loss": loss}
        return found if right is None else {**found, f"{prefix}accuracy": right}

    def _judge(self, at: Checkpoint, loss: float) -> None:
        if not self.settings.patience:
            return
        if at.best is None or loss < at.best:
            at.best, at.waited, at.best_values = loss, 0, self._loop.values()
        else:
            at.waited += 1

    def _waited(self, at: Checkpoint) -> bool:
        return 0 < self.settings.patience <= at.waited
