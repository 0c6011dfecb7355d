"""How IR ops become ONNX nodes, a file for each family.  Importing this package registers all exporters."""

from irshap.lowering.exporters import (
    activations,
    basic,
    control,
    index,
    norm,
    reduction,
    scalar,
    transform,
    window,
)

__all__ = ["activations", "basic", "control", "index", "norm", "reduction", "scalar", "transform", "window"]
