"""What is measured: each system, the Python that runs it, and where its parts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["BATCH", "COMPILED", "ONE", "SYSTEMS", "YARDSTICK", "System"]


@dataclass(frozen=True)
class System:
    """A way to explain one sample, or to infer.

    Attributes:
        make: module:class of what a worker runs, built on versus.worker.Subject.
        runtime: whose Python: "onnx" has irshap and ONNX Runtime, "torch" torch, SHAP and Captum.
        passes: the pipeline that compiles the model it runs.
        exact: its attributions must be irshap's, or it isn't timed.
        timed: one that isn't runs once, for its completeness, with the fewest references.
    """

    name: str
    title: str
    make: str
    runtime: Literal["onnx", "torch"]
    passes: str | None = None
    exact: bool = False
    timed: bool = True

    @property
    def explains(self) -> bool:
        """Whether it returns attributions."""
        return "Inference" not in self.make


ONE = System("inference 1", "inference of 1", "versus.onnx_side:InferenceOfOne", "onnx")
BATCH = System("inference R", "inference of R", "versus.onnx_side:InferenceOfReferences", "onnx")
YARDSTICK: Sequence[System] = (ONE, BATCH)
"""Run in every round, beside whatever else is: the sum of their times is the unit of relative times."""

COMPILED = "versus.onnx_side:Explained"

_ALL = (
    *YARDSTICK,
    System("default", "irshap `@default`", COMPILED, "onnx", "@default", exact=True),
    System("naive", "irshap `@naive`", COMPILED, "onnx", "@naive"),
    System("opt-torch", "OPT-TORCH", "versus.torch_side:OptTorchSubject", "torch", exact=True),
    System("shap", "SHAP DeepExplainer", "versus.torch_side:Shap", "torch"),
    System("captum", "Captum DeepLiftShap", "versus.torch_side:Captum", "torch"),
    System("torch", "inference of 1 and R, torch", "versus.torch_side:TorchInference", "torch"),
    System("captum-separated", "Captum, separated", "versus.torch_side:Separated", "torch", timed=False),
)
SYSTEMS = {system.name: system for system in _ALL}
