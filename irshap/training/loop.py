"""A training step in ONNX Runtime: parameters and state stay on the device, in two sets that take turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime

from irshap.contract import Training
from irshap.errors import ModelError
from irshap.lowering.files.session import RuntimeRefusal, refusing
from irshap.runtime.arrays import DTYPES, Array, Arrays
from irshap.runtime.explainer import known_providers
from irshap.runtime.sessions import opened

__all__ = ["Loop", "run_bound", "session_of"]


def session_of(model: onnx.ModelProto, providers: Sequence[Any] | None, threads: int) -> Any:
    """A session; with one thread sums have one order, so that a run can be repeated to the bit.

    Raises:
        ModelError: ONNX Runtime doesn't take the model.
        UserError: it hasn't such a provider.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    chosen = known_providers(providers or ["CPUExecutionProvider"])
    with _telling():
        return opened(model.SerializeToString(), options, chosen)


def run_bound(session: Any, binding: Any) -> None:
    """One run.

    Raises:
        ModelError: it fails: some of ONNX Runtime's ops only then say what they don't take.
    """
    with _telling():
        session.run_with_iobinding(binding)


@contextmanager
def _telling() -> Iterator[None]:
    try:
        with refusing():
            yield
    except RuntimeRefusal as error:
        lacking = ("Could not find an implementation", "Failed to find kernel", "does not support double")
        mend = "train in float32" if any(text in str(error) for text in lacking) else None
        raise ModelError(f"ONNX Runtime doesn't run the training step: {error}", mend=mend) from error


class Loop:
    """Runs one step after the other.

    Each run reads one set of tensors and writes the other; then they change places, so that nothing is copied
    and nothing leaves the device but loss and prior.

    Args:
        step: the training step.
        values: what parameters and states start from; states that are left out start from zeros.

    Raises:
        ModelError: it is no training step, or ONNX Runtime doesn't take it.
    """

    def __init__(
        self,
        step: onnx.ModelProto,
        values: Mapping[str, Array],
        providers: Sequence[Any] | None,
        threads: int,
    ) -> None:
        self.training = Training.of(step)
        self._session = session_of(step, providers, threads)
        self.handed = {**self.training.parameters, **self.training.states}
        types = {v.name: v for v in self._session.get_inputs()}
        self.dtypes: dict[str, Any] = {name: DTYPES[v.type] for name, v in types.items()}
        self.shapes = {name: v.shape for name, v in types.items()}
        self._device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        self._scalars = [n for n in (self.training.loss, self.training.prior) if n is not None]
        first = {
            name: values.get(name, np.zeros(self.shapes[name])).astype(self.dtypes[name], order="C")
            for name in self.handed
        }
        self._current, self._other = ({n: self._placed(a) for n, a in first.items()} for _ in range(2))
        self._bindings = [self._bound(self._current, self._other), self._bound(self._other, self._current)]

    def _placed(self, array: Array) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(array), self._device, 0)

    def _bound(self, read: Mapping[str, Any], written: Mapping[str, Any]) -> Any:
        binding = self._session.io_binding()
        for name, output in self.handed.items():
            binding.bind_ortvalue_input(name, read[name])
            binding.bind_ortvalue_output(output, written[name])
        for name in self._scalars:
            binding.bind_output(name, "cpu")
        return binding

    def run(self, given: Mapping[str, Array]) -> tuple[float, float]:
        """One step; loss and prior before it.  Nothing moves on before `accept`.

        Raises:
            ModelError: ONNX Runtime can't run it.
        """
        binding = self._bindings[0]
        for name, array in given.items():
            binding.bind_cpu_input(name, array)
        run_bound(self._session, binding)
        found = [float(v.numpy()) for v in binding.get_outputs()[-len(self._scalars) :]]
        return (found[0], found[1]) if len(found) == 2 else (found[0], 0.0)

    def accept(self) -> None:
        """Takes over what the last run made."""
        self._current, self._other = self._other, self._current
        self._bindings.reverse()

    @property
    def current(self) -> Mapping[str, Any]:
        """Parameters and states, on the device."""
        return self._current

    def values(self) -> Arrays:
        """Parameters and states, copied from the device."""
        return {name: np.array(value.numpy()) for name, value in self._current.items()}

    def made(self) -> Arrays:
        """What the last run made of them."""
        return {name: np.array(value.numpy()) for name, value in self._other.items()}

    def set(self, values: Mapping[str, Array]) -> None:
        """Other values for parameters and states."""
        for name, value in values.items():
            self._current[name].update_inplace(np.ascontiguousarray(value, self.dtypes[name]))
