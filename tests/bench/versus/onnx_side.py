"""Systems that run in ONNX Runtime alone."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import onnxruntime

import irshap
from irshap.runtime import Explainer, Explanation
from versus.worker import Answer, Array, Subject


class _OnnxSubject(Subject):
    def versions(self) -> dict[str, str]:
        return {
            "Python": platform.python_version(),
            "irshap": irshap.__version__,
            "ONNX Runtime": onnxruntime.__version__,
            "numpy": np.__version__,
        }


class _Inference(_OnnxSubject):
    """The model as it was exported, with ONNX Runtime's own settings."""

    def batch(self) -> Array:
        """What is inferred."""
        raise NotImplementedError

    def load(self) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            self.files.onnx, options, providers=["CPUExecutionProvider"]
        )
        self.name = self.session.get_inputs()[0].name

    def run(self) -> Any:
        return self.session.run(None, {self.name: self.batch()})


class InferenceOfOne(_Inference):
    """The sample."""

    def batch(self) -> Array:
        return self.x


class InferenceOfReferences(_Inference):
    """The references in one batch."""

    def batch(self) -> Array:
        return self.references


class Explained(_OnnxSubject):
    """A compiled file, as a user runs it; the references are in the file."""

    def load(self) -> None:
        self.explainer = Explainer(self.files.compiled)

    def run(self) -> Explanation:
        return self.explainer(self.x)

    def answer(self, result: Explanation) -> Answer:
        assert result.target_values is not None and result.base_values is not None
        assert not isinstance(result.values, dict)
        return Answer(result.values, float(result.target_values[0]), float(result.base_values[0]))
