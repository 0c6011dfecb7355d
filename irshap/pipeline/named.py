"""Pipelines with a name: `@naive` in a pipeline's text stands for the text here."""

from __future__ import annotations

from irshap.pipeline.base import Points

__all__ = ["DEVICES", "PIPELINES", "SESSIONS", "for_method"]

PIPELINES: dict[str, str] = {
    # The slot of the attribution method; DeepLIFT where none is chosen.
    "method": "deeplift",
    # What SHAP computes, pass by pass: every sample tiled and joined with every reference, and nothing
    # optimized.  It stays as it is, as the oracle of every optimized pipeline.
    "naive": "lift,single,target,canonicalize,piecewise,autodiff,@method,bind-references,dce,lower",
    # What is fastest in ONNX Runtime on a CPU; equal to naive up to rounding.
    "default": (
        "lift,single,target,canonicalize,piecewise,fuse-activations,nest-concats,autodiff,@method,eliminate-split-tile,"
        "broadcast-target,canonicalize,polyphase,dce,stream{otherwise=fold},conv-adjoint,absorb-scales,"
        "max-unpool,narrow-positions,sink-reshapes,time-blocks,canonicalize,dce,share-weights,order,lower"
    ),
    # For CUDA: cuDNN has kernels for the adjoint of a convolution, with the weights as they are; max-unpool
    # and loops over small chunks would go back to the CPU or pay for each node (docs/gpu.md).
    "cuda": (
        "lift,single,target,canonicalize,piecewise,fuse-activations,nest-concats,autodiff,@method,eliminate-split-tile,"
        "broadcast-target,dce,fold-references,absorb-scales,canonicalize,dce,lower"
    ),
    # For runtimes of other makers: nothing that some don't read (loops that capture, MaxUnpool), nothing that
    # some get wrong in silence (guards that reassociation moves, weights in two layouts); docs/runtimes.md.
    "any": (
        "lift,single,target,canonicalize,piecewise,fuse-activations,nest-concats,autodiff,@method,firm-guards,"
        "eliminate-split-tile,broadcast-target,canonicalize,dce,fold-references,conv-adjoint,absorb-scales,"
        "part-scatters,canonicalize,dce,close-loops,own-weights,lower"
    ),
    # For methods that look at the sample alone: nothing to bind, and one backward pass.
    "sample": "lift,single,target,canonicalize,piecewise,autodiff,@method,dce,lower",
    # For methods that take gradients between references and samples: what follows from references alone is
    # stored, and the loop over points of the path is optimized inside.
    "path": (
        "lift,single,target,canonicalize,piecewise,fuse-activations,nest-concats,autodiff,@method,"
        "eliminate-split-tile,broadcast-target,canonicalize,dce,fold-references,conv-adjoint,absorb-scales,"
        "max-unpool,canonicalize,dce,share-weights,order,lower"
    ),
    "cuda-path": (
        "lift,single,target,canonicalize,piecewise,fuse-activations,nest-concats,autodiff,@method,"
        "eliminate-split-tile,broadcast-target,dce,fold-references,absorb-scales,canonicalize,dce,lower"
    ),
    # For methods that take gradients around the sample: nothing to bind, and a loop that is optimized inside.
    "nearby": (
        "lift,single,target,canonicalize,piecewise,fuse-activations,nest-concats,autodiff,@method,"
        "eliminate-split-tile,canonicalize,dce,conv-adjoint,absorb-scales,max-unpool,canonicalize,dce,"
        "share-weights,order,lower"
    ),
    # For methods that run the model on masked samples: the forward program alone.
    "masks": "lift,single,target,canonicalize,@method,eliminate-split-tile,canonicalize,dce,order,lower",
    # The same with the parts from references, which are stored with what follows from them alone.
    "coalitions": (
        "lift,single,target,canonicalize,@method,eliminate-split-tile,canonicalize,dce,fold-references,"
        "canonicalize,dce,order,lower"
    ),
    # A training step; with a prior it is one on the attributions of a method, whose derivative is taken.
    "train": (
        "lift,single,trainable,canonicalize,loss,gradients,step,canonicalize,samples-last,canonicalize,cast-masks,"
        "max-unpool,dce,order,lower"
    ),
    "train-prior": (
        "lift,single,trainable,target,canonicalize,piecewise,autodiff,@method,eliminate-split-tile,broadcast-target,"
        "canonicalize,dce,loss,prior,gradients,step,canonicalize,samples-last,canonicalize,cast-masks,"
        "max-unpool,dce,order,lower"
    ),
    # What a model gives and its loss, with the parameters as inputs: how it is evaluated while it is trained.
    "train-evaluate": "lift,single,trainable,canonicalize,loss,dce,order,lower",
    "gradient": "lift,single,target,canonicalize,piecewise,autodiff,gradient,dce,lower",
}

DEVICES = ("cpu", "cuda", "openvino", "web", "any")
"""What an explained model can be compiled for; docs/runtimes.md tells what runs which."""

SESSIONS = ("default", "explainer")
"""Whose memory a limit is for: ONNX Runtime's session as it is made without options, or `Explainer`'s."""

_FOR_METHODS = {
    Points.SAMPLE: {"cpu": "@sample"},
    Points.SAMPLE_AND_REFERENCE: {"cpu": "@default", "cuda": "@cuda", "any": "@any"},
    Points.PATH: {"cpu": "@path", "cuda": "@cuda-path"},
    Points.NEARBY: {"cpu": "@nearby", "cuda": "@sample"},
    Points.MASKS: {"cpu": "@masks"},
    Points.COALITIONS: {"cpu": "@coalitions"},
}
"""For each kind of points the pipeline on a CPU, and those for devices that want another one."""

_PORTABLE = "{before=(lower, close-loops, own-weights)}"
"""What runtimes of other makers want of any pipeline."""


def for_method(points: Points, device: str) -> str:
    """The text of the pipeline, with a slot `@method`, for methods that run these points on a device."""
    known = _FOR_METHODS[points]
    if device in ("openvino", "any"):
        return known.get("any") or known.get("cuda", known["cpu"]) + _PORTABLE
    # a browser runs ONNX Runtime's own kernels for CPUs
    return known["cpu"] if device == "web" else known.get(device, known["cpu"])
