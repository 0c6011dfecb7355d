"""How ONNX nodes become IR ops, a file for each family.  Importing this package registers all importers."""

from irshap.lowering.importers import arithmetic, network, shape

__all__ = ["arithmetic", "network", "shape"]
