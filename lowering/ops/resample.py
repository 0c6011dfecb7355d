"""Averages over windows, and interpolation, from Upsample of opset 7 on; what pools that add up share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, as_dim, floor_div, same, symbols_of
from irshap.lowering.emitter import FLOOR, Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.window import Geometry, disputed, window, window_attributes
from irshap.ops import resample
from irshap.ops.program import constant
from irshap.ops.window import window_count

__all__ = ["kernel_of", "lowest_opset", "pool_attributes", "pool_window", "reaching"]

_FINEST = 64
"""Factors of sizes that are known at run time only have to be fractions with denominators up to this."""


def kernel_of(n: Import) -> tuple[int, ...]:
    """The shape of a pool's window, without what ceil_mode lets a lone one hang over the data."""
    kernel = tuple(n.attributes["kernel_shape"])
    plain = not any(n.attribute("pads", [])) and n.attribute("auto_pad", "NOTSET") in ("NOTSET", "")
    if not n.attribute("ceil_mode", 0) or not plain or any(d > 1 for d in n.attribute("dilations", [])):
        return kernel
    sizes, strides = n.tensor().shape[2:], n.attribute("strides", [1] * len(kernel))
    return tuple(
        size if isinstance(size, int) and 0 < k - size < s else k
        for k, size, s in zip(kernel, sizes, strides, strict=True)
    )


def pool_window(n: Import, kernel: Sequence[int]) -> Geometry:
    """Strides, pads and dilations of a pool that counts or adds up."""
    disputed(n, kernel)
    strides, pads, dilations = window(n, kernel)
    if n.attribute("auto_pad", "NOTSET").startswith("SAME") and any(
        k < s for k, s in zip(kernel, strides, strict=True)
    ):
        raise Unmodeled("auto_pad with strides beyond the kernel: runtimes disagree on the padding")
    return strides, pads, dilations


def reaching(n: Import, kernel: Sequence[int], geometry: Geometry) -> Geometry:
    """`geometry` with ceil_mode's last window given as padding at the end, which then counts windows alike.

    Raises:
        Unmodeled: it depends on a size that is only known at run time, or pads more than runtimes take.
    """
    strides, pads, dilations = geometry
    if not n.attribute("ceil_mode", 0):
        return geometry
    ends = []
    for size, k, s, (before, after), d in zip(
        n.tensor().shape[2:], kernel, strides, pads, dilations, strict=True
    ):
        if s == 1:
            ends.append((before, after))
            continue
        if not isinstance(size, int):
            raise Unmodeled("ceil_mode on an axis whose size is only known at run time")
        count = window_count(size, k, s, (before, after), d, ceil=True)
        reach = (int(count) - 1) * s + d * (k - 1) + 1 - before - size
        if reach >= k:
            raise Unmodeled("ceil_mode reaches further than padding may")
        # a shorter reach leaves the number of windows as it is
        ends.append(
            (before, max(reach, after) if count != window_count(size, k, s, (before, after), d) else after)
        )
    return strides, tuple(ends), dilations


def lowest_opset(dilated: int) -> Callable[[resample.Windowed], int]:
    """The opset that a pool needs: `dilated` where there are gaps in its windows."""
    return lambda op: dilated if any(d > 1 for d in op.dilations) else FLOOR


def pool_attributes(op: resample.Windowed) -> dict[str, Any]:
    """The attributes of a pool's windows; dilations only where there are some, which need a later opset."""
    attributes = window_attributes(op)
    if not any(d > 1 for d in op.dilations):
        del attributes["dilations"]
    return {"kernel_shape": op.kernel, **attributes}


@importer("AveragePool")
def _read_average_pool(n: Import) -> Value:
    x, kernel = n.tensor(), kernel_of(n)
    given = pool_window(n, kernel)
    reached = reaching(n, kernel, given)
    include = bool(n.attribute("count_include_pad", 0)) and any(map(any, given[1]))
    if not include or reached == given:
        return n.one(resample.AveragePool(kernel, *reached, include), x)
    # what ceil_mode adds beyond the padding is not counted: the sum over all, divided by what is
    whole = resample.AveragePool(kernel, *reached, include_pad=True)
    padded = tuple(size + sum(p) for size, p in zip(x.shape[2:], given[1], strict=True))
    beyond = tuple((0, r[1] - p[1]) for r, p in zip(reached[1], given[1], strict=True))
    counts = resample.AveragePool(kernel, reached[0], beyond, reached[2]).counts(padded)
    factor = np.prod(kernel) / np.asarray(counts)
    return n.one(whole, x) * constant(factor, x.dtype)


@exporter(resample.AveragePool, opset=lowest_opset(19))
def _write_average_pool(e: Export, op: resample.AveragePool) -> None:
    e.result("AveragePool", e.inputs, count_include_pad=int(op.include_pad), **pool_attributes(op))


@importer("Upsample")
def _read_upsample(n: Import) -> Value:
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
def _read_resize(n: Import) -> Value:
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
    if coordinates not in resample.COORDINATES:
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
    return n.one(resample.Resize(sizes=tuple(sizes), **_cubic(n), **options), x)  # type: ignore[arg-type]


def _resized(n: Import, scales: Sequence[float], **options: str) -> Value:
    x = n.tensor()
    sizes = tuple(_scaled(d, s) for d, s in zip(x.shape, scales, strict=True))
    return n.one(resample.Resize(sizes=sizes, scales=tuple(scales), **_cubic(n), **options), x)  # type: ignore[arg-type]


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


def _resize_opset(op: resample.Resize) -> int:
    return 19 if op.coordinates == "half_pixel_symmetric" else FLOOR


@exporter(resample.Resize, opset=_resize_opset)
def _write_resize(e: Export, op: resample.Resize) -> None:
    size = [e.constant(op.scales, "float32")] if op.scales else ["", e.shape(op.sizes)]
    e.result(
        "Resize",
        [e.inputs[0], "", *size],
        mode=op.mode,
        coordinate_transformation_mode=op.coordinates,
        nearest_mode=op.nearest if op.mode == "nearest" else None,
        cubic_coeff_a=op.cubic if op.mode == "cubic" else None,
        exclude_outside=int(op.exclude_outside) if op.mode == "cubic" else None,
    )
