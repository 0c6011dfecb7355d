"""Runs ONNX models while compiling, in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

__all__ = ["RuntimeRefusal", "Session"]


class RuntimeRefusal(Exception):
    """Why ONNX Runtime doesn't load or run a model, in one line."""


class Session:
    """One model, loaded into ONNX Runtime on the CPU.

    Args:
        optimize: whether its graph is optimized; a model that runs once loses time by it.

    Raises:
        RuntimeRefusal: it can't be loaded.
    """

    def __init__(self, model: onnx.ModelProto, *, optimize: bool = True) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        self._errors = tuple(
            getattr(errors, name) for name in dir(errors) if _is_error(getattr(errors, name))
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_ENABLE_BASIC
        self.names = [o.name for o in model.graph.output]
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise RuntimeRefusal(_line(error)) from None

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, in order; raises RuntimeRefusal."""
        try:
            return list(self._session.run(None, dict(feeds)))
        except self._errors as error:
            raise RuntimeRefusal(_line(error)) from None


def _is_error(item: object) -> bool:
    return isinstance(item, type) and issubclass(item, Exception)


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
