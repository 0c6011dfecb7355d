"""The demo: a CNN for scikit-learn's 8x8 digits, compiled with 100 references and run in ONNX Runtime."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irshap import contract

if TYPE_CHECKING:
    from irshap.ir.types import Array
    from irshap.pipeline.instrument import Instrument
    from irshap.runtime import Explainer, Explanation

__all__ = ["DemoResult", "digits", "model_path", "references_path", "run"]

_HERE = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found.

    Attributes:
        path: the explained model.
        labels: the true digits (int64 [N]).
        explanation: attributions of the N digits.
        milliseconds: the time of each digit explained alone, the best of three runs.
        batch_milliseconds: the time of all digits in one run.
        compile_seconds: the time of compiling and saving.
        references: how many.
    """

    path: Path
    labels: Array
    explanation: Explanation
    milliseconds: list[float]
    batch_milliseconds: float
    compile_seconds: float
    references: int


def model_path() -> Path:
    """The ONNX model of the digits CNN: image f32 [N, 1, 8, 8] in 0..1 -> logits f32 [N, 10]."""
    return _HERE / "digits.onnx"


def references_path() -> Path:
    """100 digits of the training set, f32 [100, 1, 8, 8]."""
    return _HERE / "digits_references.npy"


def digits() -> tuple[Array, Array]:
    """The 360 test digits, f32 [360, 1, 8, 8], and their labels, int64 [360]."""
    with np.load(_HERE / "digits_test.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


def run(
    folder: Path, count: int = 10, *, passes: str | None = None, progress: Instrument | None = None
) -> DemoResult:
    """Compiles the digits CNN into `folder` and explains `count` test digits, one of each kind first."""
    from irshap.compiler.compile import compile as compile_model
    from irshap.runtime import Explainer

    start = time.perf_counter()
    compiled = compile_model(
        model_path(),
        references_path(),
        method=f"deeplift{{emit={contract.COMPLETENESS_ERROR}}}",
        passes=passes,
        instruments=[] if progress is None else [progress],
    )
    path = folder / "digits_explained.onnx"
    compiled.save(path)
    compile_seconds = time.perf_counter() - start
    images, labels = digits()
    order = _one_of_each(labels)[:count]
    images, labels = images[order], labels[order]
    explainer = Explainer(path)
    explanation = explainer(images)  # the first run also sets up the runtime's memory
    batch = _milliseconds(explainer, images)
    alone = [_milliseconds(explainer, image[None]) for image in images]
    references = int(explainer.metadata[contract.Metadata.REFERENCES])
    return DemoResult(path, labels, explanation, alone, batch, compile_seconds, references)


def _milliseconds(explainer: Explainer, images: Array, runs: int = 3) -> float:
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        explainer(images)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def _one_of_each(labels: Array) -> Array:
    """Indices with 0, 1, ... 9 first, then again 0 to 9, and so on."""
    nth = np.zeros(len(labels), dtype=np.int64)
    for digit in range(10):
        same = labels == digit
        nth[same] = np.arange(np.count_nonzero(same))
    return np.lexsort((labels, nth))
