"""Sessions of ONNX Runtime, around what older releases fuse and then can't run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import onnxruntime

__all__ = ["opened"]


def opened(content: str | bytes, options: Any, providers: Sequence[Any], **more: Any) -> Any:
    """An `onnxruntime.InferenceSession`: what it takes, and the errors that it raises.

    ONNX Runtime 1.23 fuses a transposition and a product of float64 into FusedMatMul, which it has in float32
    alone.  What fails for that is loaded without this fusion.
    """
    session = partial(onnxruntime.InferenceSession, content, options, providers, **more)
    try:
        return session()
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        if "Failed to find kernel for com.microsoft.FusedMatMul" not in str(error):
            raise
        return session(disabled_optimizers=["MatmulTransposeFusion"])
