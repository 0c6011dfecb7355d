"""How good a model is while it is trained, on data that it isn't trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from irshap import contract
from irshap.contract import Training
from irshap.passes.training.loss import Loss
from irshap.training.data import Data
from irshap.training.loop import run_bound, session_of
from irshap.training.step import evaluation

__all__ = ["Validation"]

_FEWEST = 256
"""Samples that are evaluated at once, at least: nothing is stored for a reverse pass."""


class Validation:
    """Runs a model and its loss, with the parameters of a training step as inputs.

    Args:
        step: the training step, whose loss it is.
        model: the model that it was made of.

    Raises:
        ModelError: `step` is no training step, or ONNX Runtime doesn't take what is made of it.
    """

    def __init__(
        self, step: onnx.ModelProto, model: onnx.ModelProto, loss: Loss, providers: Any, threads: int
    ) -> None:
        self._training = Training.of(step)
        self._session = session_of(evaluation(step, model), providers, threads)
        self._inputs = {v.name for v in self._session.get_inputs()}
        outputs = [o for o in self._session.get_outputs() if o.name != self._training.loss]
        self._output = next((o for o in outputs if o.name == loss.output), outputs[0])

    @property
    def shape(self) -> Sequence[Any]:
        """The shape of the output that the loss is of."""
        shape: Sequence[Any] = self._output.shape
        return shape

    def run(
        self, data: Data, parameters: Mapping[str, Any], size: int, *, classes: bool
    ) -> tuple[float, float | None]:
        """The mean loss, weighted as samples are, and where labels are classes how many are right: a share.

        Args:
            parameters: parameters and states on the device, by their names.
            size: samples at once, or more.
        """
        binding = self._session.io_binding()
        for name, value in parameters.items():
            if name in self._inputs:
                binding.bind_ortvalue_input(name, value)
        given = self._training.given
        total = right = weight = 0.0
        for batch in data.batches(max(size, _FEWEST), np.arange(data.count)):
            for name in batch.keys() & self._inputs:
                binding.bind_cpu_input(name, batch[name])
            for name in (self._training.loss, self._output.name):
                binding.bind_output(name, "cpu")
            run_bound(self._session, binding)
            loss, output = (v.numpy() for v in binding.get_outputs())
            binding.clear_binding_outputs()
            # a batch of no weight has no mean
            if each := float(batch[given[contract.SAMPLE_WEIGHTS]].sum()):
                total, weight = total + float(loss) * each, weight + each
            if classes:
                flat = output.reshape(len(output), -1)
                chosen = flat[:, 0] > 0 if flat.shape[1] == 1 else flat.argmax(1)
                right += float((chosen == batch[given[contract.LABELS]]).sum())
        return total / weight, right / data.count if classes else None
