"""Sessions of ONNX Runtime on the CPU, for any element type and with one kind of error."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state

from irshap.ir.types import Array
from irshap.lowering.files.held import held
from irshap.lowering.files.protos import first_line, nbytes
from irshap.lowering.files.weights import HELD_FROM
from irshap.lowering.files.wire import pieces
from irshap.runtime.sessions import opened

__all__ = ["RuntimeRefusal", "Session", "refusing"]

# ONNX Runtime's own errors derive from Exception directly, a class for each status code.
_OWN = (
    e for e in vars(onnxruntime_pybind11_state).values() if isinstance(e, type) and issubclass(e, Exception)
)
_ERRORS: tuple[type[Exception], ...] = (*_OWN, RuntimeError, ValueError, TypeError, IndexError)

# Types that numpy itself doesn't have: they go in and come out as bits.
_NARROW = ("bfloat16", "float8", "float4", "int4", "int2")

_TRIMMED_FROM = 2**20
"""Bytes of a model from which on what loading frees is worth a walk through the whole heap."""

_PLACE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with[^]]*\])?\s*")


class RuntimeRefusal(Exception):
    """ONNX Runtime doesn't take a model or an input: no kernel, an unknown opset, shapes that don't fit."""


@contextmanager
def refusing() -> Iterator[None]:
    """Makes an error of ONNX Runtime a RuntimeRefusal, without the places in its own sources."""
    try:
        yield
    except _ERRORS as error:
        raise RuntimeRefusal(first_line(Exception(_PLACE.sub("", str(error))))) from error


class Session:
    """A model that is ready to run.

    Args:
        threads: 1 repeats to the bit; 0 is ONNX Runtime's choice, for work that takes long.
        fuse: whether ONNX Runtime may merge nodes into kernels of its own.
        arena: whether memory is kept from run to run, which saves time and takes more of it.

    Raises:
        RuntimeRefusal: ONNX Runtime doesn't load the model.
    """

    def __init__(
        self, model: onnx.ModelProto, *, threads: int = 1, fuse: bool = True, arena: bool = False
    ) -> None:
        options = onnxruntime.SessionOptions()
        # what goes wrong comes as an exception; the log would go to the terminal
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
        if not fuse:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.inputs = {v.name: v.type for v in model.graph.input}
        self.outputs = [v.name for v in model.graph.output]
        # what stands in the message is copied with it, and once more where it is parsed
        shared = {t.name: (t, a) for t in model.graph.initializer if (a := held(t)) is not None}
        held_bytes = sum(a.nbytes for _, a in shared.values())
        if held_bytes <= HELD_FROM:
            shared = {}
        # ONNX Runtime reads these arrays where they are, for as long as it runs
        self._shared = [_shared(array, tensor.data_type) for tensor, array in shared.values()]
        with refusing():
            if shared:
                # for the optimizers, and for the kernels, which would get copies otherwise
                options.add_external_initializers(list(shared), self._shared)
            for name, value in zip(shared, self._shared, strict=True):
                options.add_initializer(name, value)
            message = b"".join(pieces(model, apart=shared))
            # there is nothing to fall back to, and trying would be told on standard output
            self._session = opened(message, options, ["CPUExecutionProvider"], enable_fallback=0)
        if len(message) + held_bytes > _TRIMMED_FROM:
            _trim()

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs in order: an array each, a list of arrays for a sequence, None for an empty optional.

        Raises:
            RuntimeRefusal: ONNX Runtime fails on these inputs.
        """
        with refusing():
            if all(_is_plain(v.type) for v in (*self._session.get_inputs(), *self._session.get_outputs())):
                return list(self._session.run(None, dict(feeds)))
            values = {k: self._value(k, v) for k, v in feeds.items()}
            return [_fetched(v) for v in self._session.run_with_ort_values(self.outputs, values)]

    def run_into(self, feeds: Mapping[str, Array], outputs: Sequence[Array]) -> None:
        """Writes the outputs, plain tensors of known shapes, into arrays of their types.

        Raises:
            RuntimeRefusal: ONNX Runtime fails on these inputs.
        """
        with refusing():
            binding = self._session.io_binding()
            for name, array in feeds.items():
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            for name, array in zip(self.outputs, outputs, strict=True):
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding)
        _trim()

    def close(self) -> None:
        """Gives its memory back; it runs no more."""
        del self._session, self._shared
        _trim()

    def _value(self, name: str, value: Any) -> Any:
        type = self.inputs[name]
        if not type.HasField("tensor_type"):
            raise TypeError(f"input {name!r} is no tensor")
        make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
        return make(np.ascontiguousarray(value), type.tensor_type.elem_type)


def _trim() -> None:
    """Gives back what loading or a run has freed, and glibc would keep: about as much as the weights."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, or another system
        ctypes.CDLL(None).malloc_trim(0)


def _shared(array: Array, kind: int) -> onnxruntime.OrtValue:
    """An array as ONNX Runtime's, without a copy."""
    if array.dtype.isbuiltin == 1:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(f"u{array.itemsize}")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def _is_plain(type: str) -> bool:
    return not any(narrow in type for narrow in _NARROW)


def _fetched(value: Any) -> Any:
    """An output as an array, also of the types that ONNX Runtime doesn't hand out as numpy arrays."""
    if not value.is_tensor():
        return value.numpy()
    tensor = onnx.TensorProto(data_type=value.element_type(), dims=value.shape())
    if helper.tensor_dtype_to_np_dtype(tensor.data_type).isbuiltin == 1:
        return value.numpy()
    # types of less than a byte are packed, as they are in a TensorProto
    tensor.raw_data = ctypes.string_at(value.data_ptr(), nbytes(tensor))
    return numpy_helper.to_array(tensor)
