"""Methods in ONNX Runtime: compiled files as a user runs them, and what they are held against."""

from __future__ import annotations

from typing import Any

import numpy as np

from irshap.runtime import Explanation
from versus.onnx_side import Explained, InferenceOfOne
from versus.worker import Answer

BATCH, PATCHES = 10, 25
"""Samples at a time: as many as integrated gradients takes points, and occlusion patches."""


class Method(Explained):
    """A compiled file of any method."""

    def answer(self, result: Explanation) -> Answer:
        assert result.target_values is not None and not isinstance(result.values, dict)
        base = 0.0 if result.base_values is None else float(result.base_values[0])
        return Answer(result.values, float(result.target_values[0]), base)


class Gradients(Method):
    """`count` gradients, one after the other."""

    def run(self) -> Any:
        return [self.explainer(self.x) for _ in range(self.files.count)][-1]


class BatchedGradients(Method):
    """`count` gradients, some at a time."""

    def run(self) -> Any:
        rows = np.repeat(self.x, BATCH, axis=0)
        return [self.explainer(rows) for _ in range(self.files.count // BATCH)][-1][:1]


class ManyInference(InferenceOfOne):
    """`count` images and one, in batches of what occlusion takes at a time."""

    def run(self) -> Any:
        whole, rest = divmod(self.files.count, PATCHES)
        sizes = [PATCHES] * whole + ([rest] if rest else []) + [1]
        return [self.session.run(None, {self.name: np.repeat(self.x, size, axis=0)}) for size in sizes]
