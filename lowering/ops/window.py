"""Sliding windows: what convolutions and pools have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, floor_div
from irshap.lowering.importer import Import, Unmodeled
from irshap.ops.shape import Pad

__all__ = ["Geometry", "disputed", "padded_at_run_time", "same_pads", "window", "window_attributes"]

Geometry: TypeAlias = tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]]
"""Strides, pads and dilations."""


def window(n: Import, kernel: Sequence[Dim]) -> Geometry:
    """Strides, pads and dilations of a sliding window, with auto_pad worked out."""
    x = n.tensor()
    spatial = x.rank - 2
    if len(kernel) != spatial or spatial < 1:
        raise Unmodeled(f"a window of {len(kernel)} axes over {x.tensor}")
    strides = tuple(n.attribute("strides", [1] * spatial))
    dilations = tuple(n.attribute("dilations", [1] * spatial))
    mode = n.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        flat = n.attribute("pads", [0] * 2 * spatial)
        return strides, tuple(zip(flat[:spatial], flat[spatial:], strict=True)), dilations
    if mode == "VALID":
        return strides, ((0, 0),) * spatial, dilations
    pads = []
    for before, after in same_pads(n, kernel, strides, dilations):
        if not isinstance(before, int) or not isinstance(after, int):
            raise Unmodeled(f"auto_pad={mode} on an axis whose size is only known at run time")
        pads.append((before, after))
    return strides, tuple(pads), dilations


def same_pads(
    n: Import, kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[Dim, Dim]]:
    """The padding that makes ceil(size / stride) windows of each spatial axis, symbolic where the size is."""
    pads: list[tuple[Dim, Dim]] = []
    for size, k, stride, dilation in zip(n.tensor().shape[2:], kernel, strides, dilations, strict=True):
        reach = dilation * (int(k) - 1) + 1
        # ceil(size / stride) - 1, in the form that counts windows elsewhere
        steps = floor_div(as_dim(size - 1), stride)
        total = as_dim(steps * stride + reach - size)
        if isinstance(total, int) or reach == 1:
            total = max(0, total) if isinstance(total, int) else 0
        elif reach < stride:
            raise Unmodeled(
                "auto_pad where kernels leave gaps, on an axis whose size is only known at run time"
            )
        small = floor_div(total, 2)
        both = (small, as_dim(total - small))
        pads.append(both if n.attribute("auto_pad", "") == "SAME_UPPER" else both[::-1])
    return pads


def padded_at_run_time(n: Import, kernel: Sequence[Dim], fill: float) -> tuple[Value, Geometry]:
    """The operand and its windows; padding that is only known at run time is put around the operand first."""
    x = n.tensor()
    spatial = x.rank - 2
    strides = tuple(n.attribute("strides", [1] * spatial))
    dilations = tuple(n.attribute("dilations", [1] * spatial))
    same = n.attribute("auto_pad", "NOTSET").startswith("SAME") and len(kernel) == spatial
    pads = same_pads(n, kernel, strides, dilations) if same else []
    if all(isinstance(d, int) for ends in pads for d in ends):
        return x, window(n, kernel)
    before, after = ((0, 0, *(ends[side] for ends in pads)) for side in (0, 1))
    return n.one(Pad(before, after, fill), x), (strides, ((0, 0),) * spatial, dilations)


def disputed(n: Import, kernel: Sequence[int]) -> None:
    """Refuses padding on which runtimes disagree."""
    dilations = n.attribute("dilations", [1] * len(kernel))
    if n.attribute("auto_pad", "NOTSET").startswith("SAME") and any(d > 1 for d in dilations):
        raise Unmodeled("auto_pad with dilations: runtimes disagree on the padding")


def window_attributes(op: Any) -> dict[str, Any]:
    """Strides, pads and dilations as ONNX's attributes: all pads before, then all behind."""
    pads = [*(p[0] for p in op.pads), *(p[1] for p in op.pads)]
    return {"strides": op.strides, "pads": pads, "dilations": op.dilations}
