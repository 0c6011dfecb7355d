"""Attributions to pictures, over them or beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.report.drawing import (
    axes_of,
    colours,
    drawable,
    new_figure,
    require_explanation,
    sample_of,
    scale_of,
    shades_of,
    shorten,
)
from irshap.runtime import Explanation
from irshap.runtime.arrays import Array

__all__ = ["channel_axis", "heat_of", "image", "images", "overlay", "plain", "require_layout"]

_CHANNELS = (1, 3, 4)
_PALE = 0.45
"""How much of a picture shows below its map."""


def image(
    explanation: Explanation,
    sample: int | str = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    layout: str = "auto",
    picture: Any = None,
    scale: float | None = None,
    ax: Any = None,
) -> Any:
    """The attributions of one sample, summed over channels, over its picture in gray.

    Args:
        rank: which of several explained classes.
        name: the attributed tensor, where there are several.
        layout: "channels-first", "channels-last", or "auto", which looks for an axis of 1, 3 or 4; of
            an interior tensor the first axis holds channels.
        picture: the picture [H, W], [C, H, W] or [H, W, C], where the tensor is no input; maps of an interior
            tensor are drawn over its whole area.
        scale: the end of the symmetric scale; None: this sample's largest magnitude.

    Raises:
        UserError: no such sample, class or tensor, or none of height and width.
    """
    found = sample_of(explanation, sample, rank, name)
    heat = heat_of(found.values, layout, found.data is None)
    below = found.data if picture is None else np.asarray(picture)
    ax = axes_of(ax, 3.4, 3.0)
    gray = None if below is None else _gray(below, layout)
    height, width = heat.shape if gray is None else gray.shape[:2]
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    if gray is not None:
        ax.imshow(gray, cmap="gray_r", extent=extent, alpha=_PALE)  # so that colours stay what they are
    end = scale_of(heat) if scale is None else scale
    drawn = ax.imshow(
        heat,
        cmap=colours(),
        vmin=-end,
        vmax=end,
        extent=extent,
        alpha=1.0 if gray is None else _alpha(heat, end),
    )
    ax.set_xticks([])
    ax.set_yticks([])
    ax.figure.colorbar(drawn, ax=ax, ticks=[-end, 0, end], format="%.2g", shrink=0.8)
    if found.target is not None:
        ax.set_title(shorten(found.target), fontsize=9)
    return ax.figure


def images(
    explanation: Explanation, *, name: str | None = None, layout: str = "auto", pictures: Any = None
) -> Any:
    """A row for each sample: its picture, then a map for each explained class, all on one symmetric scale.

    Labels of samples, where there are any, stand beside their rows.

    Args:
        name: as in `image`.
        layout: likewise.
        pictures: the pictures [N, ...], where the tensor is no input.

    Raises:
        UserError: no such tensor, or none of height and width.
    """
    ranks = _ranks(explanation)
    require_explanation(explanation)
    grid = [[sample_of(explanation, i, k, name) for k in range(ranks)] for i in range(len(explanation))]
    inner = grid[0][0].data is None
    maps = [[heat_of(found.values, layout, inner) for found in row] for row in grid]
    end = scale_of(np.array([np.abs(heat).max(initial=0.0) for row in maps for heat in row]))
    shown = [row[0].data if pictures is None else np.asarray(pictures[i]) for i, row in enumerate(grid)]
    first = 0 if any(below is None for below in shown) else 1
    figure = new_figure(0.6 + 1.5 * (first + ranks), 0.5 + 1.5 * len(grid))
    panels = figure.subplots(len(grid), first + ranks, squeeze=False)
    drawn = None
    for panel in panels.ravel():
        panel.set_xticks([])
        panel.set_yticks([])
    for row, found, heats, below, called in zip(
        panels, grid, maps, shown, explanation.sample_names, strict=True
    ):
        if explanation.labels is not None:
            row[0].set_ylabel(shorten(called), fontsize=8)
        if first and below is not None:
            row[0].imshow(plain(below, layout), cmap="gray_r")
        for panel, one, heat in zip(row[first:], found, heats, strict=True):
            drawn = panel.imshow(heat, cmap=colours(), vmin=-end, vmax=end)
            panel.set_title(shorten(one.target or ""), fontsize=8)
    figure.colorbar(drawn, ax=panels, ticks=[-end, 0, end], format="%.2g", shrink=0.8, aspect=30)
    return figure


def _ranks(explanation: Explanation) -> int:
    values = explanation.values
    first = next(iter(values.values())) if isinstance(values, dict) else values
    return first.shape[1] if explanation.several else 1


def heat_of(values: Array, layout: str, inner: bool) -> Array:
    """[H, W]: summed over channels, so that maps add up to what all channels get.

    Args:
        values: one sample's attributions.
        layout: as in `channel_axis`.
        inner: likewise.
    """
    axis = channel_axis(values.shape, layout, inner)
    return drawable(values if axis is None else drawable(values).sum(axis=axis))


def channel_axis(shape: tuple[int, ...], layout: str, inner: bool = False) -> int | None:
    """Which axis of a picture of this shape holds channels, None where it is gray.

    Args:
        layout: "channels-first", "channels-last", or "auto", which looks for an axis of 1, 3 or 4.
        inner: whether it is an interior tensor, whose channels are many.

    Raises:
        UserError: no such layout, or a shape that is no picture's.
    """
    require_layout(layout)
    if len(shape) == 2:
        return None
    if len(shape) != 3:
        raise UserError(f"samples of shape {list(shape)} are no pictures", mend="draw bar(...) or steps(...)")
    if layout != "auto":
        return 0 if layout == "channels-first" else 2
    last = shape[2] in _CHANNELS and shape[0] not in _CHANNELS
    return 2 if last and not inner else 0


def require_layout(layout: str) -> None:
    """Refuses what is no layout of pictures.

    Raises:
        UserError: it is none.
    """
    if layout not in ("auto", "channels-first", "channels-last"):
        mend = "use auto, channels-first or channels-last"
        raise UserError(f"no layout is called {layout!r}", mend=mend)


def plain(picture: Array, layout: str) -> Array:
    """A picture as matplotlib draws it: [H, W], or [H, W, 3] from 0 to 1."""
    axis = channel_axis(picture.shape, layout)
    if axis is None:
        return drawable(picture)
    last = np.moveaxis(picture, axis, -1)
    if last.shape[-1] in (3, 4):
        return shades_of(last[..., :3])
    return np.asarray(drawable(last).mean(axis=-1))


def overlay(heat: Array, picture: Array | None, layout: str, end: float) -> Array:
    """A map in colours over its picture in pale gray, [H, W, 3] from 0 to 1; on white where there is none.

    Args:
        heat: the map [H, W].
        picture: [H, W], [C, H, W] or [H, W, C] of the same height and width.
        end: the end of the symmetric scale; what lies beyond is drawn as the end.
    """
    shades = np.asarray(colours()(0.5 + 0.5 * np.clip(heat / end, -1, 1)))[..., :3]
    if picture is None:
        return shades
    below = 1 - _PALE * shades_of(_gray(picture, layout))
    cover = _alpha(heat, end)[..., None]
    return np.asarray(cover * shades + (1 - cover) * below[..., None])


def _gray(picture: Array, layout: str) -> Array:
    shown = plain(picture, layout)
    # gray_r draws large numbers dark: a colour picture is turned so that it stays as bright as it is
    return 1 - shown @ np.array([0.299, 0.587, 0.114]) if shown.ndim == 3 else shown


def _alpha(heat: Array, end: float) -> Array:
    """Clear where nothing is attributed, so that the picture shows."""
    return np.asarray(np.clip(np.abs(heat) / end, 0, 1) ** 0.5 * 0.9)
