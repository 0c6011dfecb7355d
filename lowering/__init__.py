"""The ONNX boundary: reading, lifting, lowering and writing models.  The only place that knows ONNX."""

from irshap.lowering.lift import lift
from irshap.lowering.load import load_model
from irshap.lowering.lower import lower
from irshap.lowering.save import save_model

__all__ = ["lift", "load_model", "lower", "save_model"]
