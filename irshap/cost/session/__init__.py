"""A model of ONNX Runtime's session and of malloc: what memory a lowered file takes."""
