"""ONNX files: read with care, written whole, run in a session."""
