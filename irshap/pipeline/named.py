"""Pipelines with a name: `@naive` in a pipeline's text stands for the text here."""

from __future__ import annotations

__all__ = ["DEVICES", "METHODS", "PIPELINES"]

PIPELINES: dict[str, str] = {
    # What SHAP computes, pass by pass: every sample tiled and joined with every reference, and nothing
    # optimized.  It stays as it is, as the oracle of every optimized pipeline.
    "naive": "lift,target,canonicalize,autodiff,deeplift,bind-references,dce,lower",
    # What is fastest in ONNX Runtime on a CPU; equal to naive up to rounding.
    "default": (
        "lift,target,canonicalize,fuse-activations,nest-concats,autodiff,deeplift,eliminate-split-tile,"
        "broadcast-target,canonicalize,polyphase,dce,stream{otherwise=fold},conv-adjoint,absorb-scales,"
        "max-unpool,sink-reshapes,canonicalize,dce,share-weights,order,lower"
    ),
    # For CUDA: cuDNN has kernels for the adjoint of a convolution, with the weights as they are; max-unpool
    # and loops over small chunks would go back to the CPU or pay for each node (docs/gpu.md).
    "cuda": (
        "lift,target,canonicalize,fuse-activations,nest-concats,autodiff,deeplift,eliminate-split-tile,"
        "broadcast-target,dce,fold-references,absorb-scales,canonicalize,dce,lower"
    ),
    "gradient": "lift,target,canonicalize,autodiff,gradient,dce,lower",
}

METHODS: dict[str, dict[str, str]] = {
    "deeplift": {"cpu": "@default", "cuda": "@cuda"},
    "gradient": {"cpu": "@gradient", "cuda": "@gradient"},
}
"""The pipeline of each method for each device."""

DEVICES = ("cpu", "cuda")
