"""irshap compiles an ONNX model into one ONNX file that also returns its attributions."""

from __future__ import annotations

__version__ = "0.1.0"
