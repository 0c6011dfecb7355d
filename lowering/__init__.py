"""The ONNX boundary: reading, lifting, lowering and writing models.  The only place that knows ONNX."""
