"""The ONNX boundary: reading, lifting, lowering and writing models.  The only place that knows ONNX."""

from irshap.lowering import contrib, ops
from irshap.lowering.files.load import load_model
from irshap.lowering.files.save import save_model
from irshap.lowering.lift import lift
from irshap.lowering.lower import lower

__all__ = ["contrib", "lift", "load_model", "lower", "ops", "save_model"]
