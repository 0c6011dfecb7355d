"""Runs an explained model in ONNX Runtime: nothing of the compiler is needed or imported here."""
