"""How IR ops become ONNX nodes, a file for each family.  Importing this package registers all exporters."""

from irshap.lowering.exporters import activations, basic, reduction, scalar, window

__all__ = ["activations", "basic", "reduction", "scalar", "window"]
