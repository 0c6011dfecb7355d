"""How ONNX resizing is lifted, from Upsample of opset 7 on."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, as_dim, floor_div, same, symbols_of
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.resample import COORDINATES, Resize

__all__: list[str] = []

_FINEST = 64
"""Factors of sizes that are known at run time only have to be fractions with denominators up to this."""


@importer("Upsample")
def _upsample(n: Import) -> Value:
    scales = [float(s) for s in (n.static(1) if n.opset >= 9 else n.attributes["scales"])]
    return _simple(n, scales)


def _simple(n: Import, scales: Sequence[float]) -> Value:
    """As it was before opset 11: positions are quotients by the scale, rounded down (up where it shrinks)."""
    mode = n.attribute("mode", "nearest")
    shrinks = {s < 1 for s in scales if s != 1}
    if len(shrinks) > 1 and mode == "nearest":
        raise Unmodeled("it grows on one axis and shrinks on another: before opset 11 that rounds both ways")
    nearest = "ceil" if shrinks == {True} else "floor"
    return _resized(n, scales, mode=mode, coordinates="asymmetric", nearest=nearest)


@importer("Resize")
def _resize(n: Import) -> Value:
    x, mode = n.tensor(), n.attribute("mode", "nearest")
    if n.opset < 11:
        return _simple(n, [float(s) for s in n.static(1)])
    if n.attribute("antialias", 0):
        raise Unmodeled("it smooths (antialias)")
    coordinates = n.attribute("coordinate_transformation_mode", "half_pixel")
    nearest = n.attribute("nearest_mode", "round_prefer_floor")
    if coordinates == "tf_half_pixel_for_nn" and nearest == "floor":
        # floor((i + 1/2) / scale) is the nearest of the positions that lie half a pixel lower
        coordinates, nearest = "half_pixel", "round_prefer_ceil"
    if coordinates not in COORDINATES:
        raise Unmodeled(f"positions by {coordinates}")
    options = {"mode": mode, "coordinates": coordinates}
    if mode == "nearest":
        options["nearest"] = nearest
    axes = [n.axis(a) for a in n.attribute("axes", range(x.rank))]
    if n.has(3) and not same(n.tensor(3).shape[0], 0):
        return _to_sizes(n, axes, options)
    scales = [1.0] * x.rank
    for axis, scale in zip(axes, n.static(2), strict=True):
        scales[axis] = float(scale)
    return _resized(n, scales, **options)


def _to_sizes(n: Import, axes: Sequence[int], options: dict[str, str]) -> Value:
    x, wanted = n.tensor(), n.dims(3)
    policy = n.attribute("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        given = [(int(w), x.shape[a]) for w, a in zip(wanted, axes, strict=True)]
        quotients = [w / d for w, d in given if isinstance(d, int)]
        if len(quotients) < len(given):
            raise Unmodeled(f"keep_aspect_ratio_policy={policy} of a size that is only known at run time")
        scale = min(quotients) if policy == "not_larger" else max(quotients)
        wanted = [int(np.floor(scale * int(d) + 0.5)) for _, d in given]
    sizes = list(x.shape)
    for axis, size in zip(axes, wanted, strict=True):
        # written for a batch of 1, it holds for any
        if not (n.rebatched and same(size, 1) and N in symbols_of([x.shape[axis]])):
            sizes[axis] = as_dim(size)
    return n.one(Resize(sizes=tuple(sizes), **_cubic(n), **options), x)  # type: ignore[arg-type]


def _resized(n: Import, scales: Sequence[float], **options: str) -> Value:
    x = n.tensor()
    sizes = tuple(_scaled(d, s) for d, s in zip(x.shape, scales, strict=True))
    return n.one(Resize(sizes=sizes, scales=tuple(scales), **_cubic(n), **options), x)  # type: ignore[arg-type]


def _scaled(dim: Dim, scale: float) -> Dim:
    """floor(dim scale), in float32 as runtimes do."""
    if isinstance(dim, int):
        return int(np.float32(dim) * np.float32(scale))
    exact = Fraction(scale)
    if exact.denominator > _FINEST:
        raise Unmodeled(f"a size that is only known at run time, {scale} times")
    return floor_div(as_dim(dim * exact.numerator), exact.denominator)


def _cubic(n: Import) -> dict[str, object]:
    if n.attribute("mode", "nearest") != "cubic":
        return {}
    return {
        "cubic": n.attribute("cubic_coeff_a", -0.75),
        "exclude_outside": bool(n.attribute("exclude_outside", 0)),
    }
