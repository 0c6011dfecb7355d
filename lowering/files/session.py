"""Sessions of ONNX Runtime on the CPU, for any element type and with one kind of error."""

from __future__ import annotations

import ctypes
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state

from irshap.lowering.files.protos import first_line, nbytes
from irshap.lowering.files.save import save_model
from irshap.lowering.files.spool import resident

__all__ = ["RuntimeRefusal", "Session"]

# ONNX Runtime's own errors derive from Exception directly, a class for each status code.
_OWN = (
    e for e in vars(onnxruntime_pybind11_state).values() if isinstance(e, type) and issubclass(e, Exception)
)
_ERRORS: tuple[type[Exception], ...] = (*_OWN, RuntimeError, ValueError, TypeError, IndexError)

# Types that numpy itself doesn't have: they go in and come out as bits.
_NARROW = ("bfloat16", "float8", "float4", "int4", "int2")


_MAPPED = 256 * 2**20
"""Bytes of weights from which on a session maps them from a temporary file, instead of holding copies."""

_PLACE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\((?:[^()]|\([^()]*\))*\)(?: const)?(?: \[with[^]]*\])?\s*")


class RuntimeRefusal(Exception):
    """ONNX Runtime doesn't take a model or an input: no kernel, an unknown opset, shapes that don't fit."""


class Session:
    """A model that is ready to run.

    Args:
        threads: 1 repeats to the bit; 0 is ONNX Runtime's choice, for work that takes long.
        fuse: whether ONNX Runtime may merge nodes into kernels of its own.

    Raises:
        RuntimeRefusal: ONNX Runtime doesn't load the model.
    """

    def __init__(self, model: onnx.ModelProto, *, threads: int = 1, fuse: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        # what goes wrong comes as an exception; the log would go to the terminal
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        if not fuse:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self.inputs = {v.name: v.type for v in model.graph.input}
        self.outputs = [v.name for v in model.graph.output]
        large = sum(nbytes(t) for t in model.graph.initializer) > _MAPPED
        try:
            if not large:
                self._session = _session(resident(model).SerializeToString(), options)
                return
            with tempfile.TemporaryDirectory(prefix="irshap-") as folder:
                path = str(Path(folder, "model.onnx"))
                save_model(model, path, external_over=0, check=False)
                del model  # a caller who keeps nothing of it has the memory back while the session is made
                self._session = _session(path, options)
        except _ERRORS as error:
            raise _refusal(error) from error

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs in order: an array each, a list of arrays for a sequence, None for an empty optional.

        Raises:
            RuntimeRefusal: ONNX Runtime fails on these inputs.
        """
        try:
            if all(_is_plain(v.type) for v in (*self._session.get_inputs(), *self._session.get_outputs())):
                return list(self._session.run(None, dict(feeds)))
            values = {k: self._value(k, v) for k, v in feeds.items()}
            return [_fetched(v) for v in self._session.run_with_ort_values(self.outputs, values)]
        except _ERRORS as error:
            raise _refusal(error) from error

    def _value(self, name: str, value: Any) -> Any:
        type = self.inputs[name]
        if not type.HasField("tensor_type"):
            raise TypeError(f"input {name!r} is no tensor")
        make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
        return make(np.ascontiguousarray(value), type.tensor_type.elem_type)


def _session(model: bytes | str, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    # there is nothing to fall back to, and trying would be told on standard output
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"], enable_fallback=0)


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


def _refusal(error: Exception) -> RuntimeRefusal:
    """Without the places in ONNX Runtime's own sources."""
    return RuntimeRefusal(first_line(Exception(_PLACE.sub("", str(error)))))
