"""Runs an explained model in ONNX Runtime, and checks arrays from users.

Imports numpy, onnxruntime and irshap's errors, contract and files alone: a machine that only explains needs
nothing of the compiler.
"""

from irshap.runtime.explainer import Explainer
from irshap.runtime.explanation import Explanation

__all__ = ["Explainer", "Explanation"]
