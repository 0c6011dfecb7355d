"""The model card: what an explained file says of itself, and what running it cost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from irshap.contract import VERSION, Metadata, said
from irshap.files import size_on_disk
from irshap.runtime import Explainer

__all__ = ["facts"]


def facts(
    explainer: Explainer,
    path: str | os.PathLike[str] | None = None,
    *,
    samples: int = 0,
    seconds: float = 0.0,
) -> list[tuple[str, str]]:
    """Lines of the card: a name, and what it is, as text.

    Args:
        path: the explained file, to tell its size.
        samples: how many were explained in one run, and
        seconds: how long that took; the cost is left out without them.
    """
    told = explainer.metadata
    found = [(name, told[key]) for key, name in _SAID.items() if told.get(key)]
    if text := told.get(Metadata.SIZES):
        found.append(("fixed sizes", ", ".join(f"{axis} = {size}" for axis, size in _json(text).items())))
    if text := told.get(Metadata.GAPS):
        found.append(("left out of attributions", text))
    found.append(("attributed", ", ".join(explainer.attributed)))
    if path is not None and Path(path).is_file():
        found.append(("file", f"{Path(path).name}, {size_on_disk(path) / 2**20:.1f} MiB"))
    if memory := _memory(_json(told.get(Metadata.MEMORY, ""))):
        found.append(("peak memory, predicted", memory))
    if samples and seconds:
        found.append(("cost of this run", f"{1e3 * seconds / samples:.3g} ms a sample, {samples} at once"))
    provider = ", ".join(explainer.providers)
    found.append(("run by", f"ONNX Runtime {onnxruntime.__version__} ({provider}), NumPy {np.__version__}"))
    found.append(("page by", f"irshap {VERSION}"))
    return found


_SAID = {
    Metadata.VERSION: "compiled by irshap",
    Metadata.MODEL_SHA256: "source model, SHA-256",
    Metadata.EXPLAINED_OUTPUT: "explained output",
    Metadata.REFERENCES: "references",
    Metadata.REFERENCES_SHA256: "references, SHA-256",
    Metadata.PIPELINE: "passes",
    Metadata.HELD: "held at the sample's value",
    Metadata.UNCOVERED: "uncovered by any mask",
}


def _memory(told: Mapping[str, Any]) -> str:
    """What a file says of its memory, as text; "" where that says nothing."""
    peak, samples = told.get("peak"), told.get("samples")
    if not isinstance(peak, int) or not isinstance(samples, int):
        return ""
    many = "1 sample" if samples == 1 else f"{samples} samples"
    return f"{peak / 2**20:.1f} MiB for {many} at a time, by a session of ONNX Runtime on a CPU"


def _json(text: str) -> Mapping[str, Any]:
    try:
        found = said(text)
    except ValueError:  # a file's metadata may say anything
        return {}
    return found if isinstance(found, dict) else {}
