"""Pictures inside a page: their bytes stand in the page, so that nothing is fetched."""

from __future__ import annotations

import io
import warnings
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np

from irshap.report.drawing import matplotlib, shades_of
from irshap.runtime.arrays import Array

__all__ = ["SHARP", "Embedded", "embedded_figure", "embedded_pixels"]

SHARP = 64
"""Pictures of fewer pixels a side are magnified with sharp squares, and stored without loss."""

_SIDE = 168
"""How many pixels of the page a small picture takes."""


@dataclass(frozen=True)
class Embedded:
    """A picture as a `data:` address, its size on the page in pixels, and whether its squares stay sharp."""

    source: str
    width: int
    height: int
    sharp: bool = False


def embedded_figure(figure: Any) -> Embedded:
    """A figure of matplotlib as SVG; the same bytes for the same drawing."""
    content = io.BytesIO()
    # names of parts would be random; text as outlines takes ten times as much, in bytes and in the browser
    with (
        matplotlib().rc_context({"svg.hashsalt": "irshap", "svg.fonttype": "none"}),
        warnings.catch_warnings(),
    ):
        # the browser has the glyphs that matplotlib's font lacks
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    width, height = figure.get_size_inches()
    return Embedded(_address("svg+xml", content.getvalue()), round(96 * width), round(96 * height))


def embedded_pixels(pixels: Array) -> Embedded:
    """A picture [H, W] of any range, dark where it is large, or colours [H, W, 3] from 0 to 1."""
    if pixels.ndim == 2:
        pixels = np.repeat(1 - shades_of(pixels)[..., None], 3, axis=2)
    height, width = pixels.shape[:2]
    small = max(height, width) <= SHARP
    content = io.BytesIO()
    # a map's noise takes ten times as much without loss
    kind, options = ("png", {}) if small else ("jpeg", {"pil_kwargs": {"quality": 90, "subsampling": 0}})
    shades = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    matplotlib("image").imsave(content, shades, format=kind, **options)
    zoom = _SIDE / max(height, width) if small else min(1.0, 1.6 * _SIDE / max(height, width))
    return Embedded(_address(kind, content.getvalue()), round(zoom * width), round(zoom * height), small)


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
