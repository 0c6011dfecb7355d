"""The versions of ONNX Runtime that the model was made from and measured against."""

from __future__ import annotations

import onnxruntime

__all__ = ["MODELLED", "version_note"]

MODELLED = ("1.31",)
"""Each with its patch releases: that order, buffers, arena and layouts are those of docs/cost.md is known of
these alone."""


def version_note() -> str | None:
    """What to tell where the installed version of ONNX Runtime isn't modelled; otherwise None."""
    installed = str(onnxruntime.__version__)
    if ".".join(installed.split(".")[:2]) in MODELLED:
        return None
    return (
        f"memory is predicted as ONNX Runtime {' or '.join(MODELLED)} takes it; "
        f"{installed}, which is installed, may take another amount"
    )
