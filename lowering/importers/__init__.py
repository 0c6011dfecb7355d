"""How ONNX nodes become IR ops, a file for each family.  Importing this package registers all importers."""

from irshap.lowering.importers import (
    activations,
    arithmetic,
    index,
    network,
    norm,
    pooling,
    reduction,
    scalar,
    shape,
)

__all__ = ["activations", "arithmetic", "index", "network", "norm", "pooling", "reduction", "scalar"]
__all__ += ["shape"]
