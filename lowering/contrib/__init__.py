"""How ONNX Runtime's own ops, which its optimizers write, are lifted: as what they mean in standard ones.

What they mean is told by ONNX Runtime's docs/ContribOperators.md, and where that is silent by its kernels.
Nothing here is lowered: an explained file runs on any runtime.  Importing this package registers all of them.
"""

from irshap.lowering.contrib import attention, embedding, fused, grouped, norms, rotary, weights

__all__ = ["attention", "embedding", "fused", "grouped", "norms", "rotary", "weights"]
