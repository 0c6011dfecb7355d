"""How ONNX nodes become IR ops, a file for each family.  Importing this package registers all importers."""

from irshap.lowering.importers import (
    activations,
    arithmetic,
    generate,
    index,
    network,
    norm,
    pooling,
    recurrent,
    reduction,
    resize,
    scalar,
    shape,
    transform,
)

__all__ = ["activations", "arithmetic", "generate", "index", "network", "norm", "pooling", "reduction"]
__all__ += ["recurrent", "resize", "scalar", "shape", "transform"]
