"""Attributions to features: of one sample as a waterfall or bars, of many as bars or a swarm; and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.report.drawing import (
    AGAINST,
    FOR,
    MUTED,
    Sample,
    axes_of,
    drawable,
    literal,
    sample_of,
    shades_of,
    shorten,
    stacked,
)
from irshap.runtime import Explanation
from irshap.runtime.arrays import Array

__all__ = ["bar", "beeswarm", "curves", "waterfall"]


def waterfall(
    explanation: Explanation,
    sample: int | str = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    most: int = 10,
    ax: Any = None,
) -> Any:
    """From the base value to the prediction of one sample, a bar for each feature, the largest on top.

    Args:
        rank: which of several explained classes.
        name: the attributed tensor, where there are several; the others are a bar each.
        most: how many bars; features beyond are summed in the last one.

    Raises:
        UserError: no such sample, class or tensor; or attributions that don't start from a base value.
    """
    found = sample_of(explanation, sample, rank, name)
    if found.base is None:
        raise UserError("these attributions have no base value to start from", mend="draw bar(...) instead")
    names, sizes = _largest(found, most)
    ax = axes_of(ax, 6.0, 1.0 + 0.36 * len(sizes))
    base, shown = float(drawable(np.array(found.base))), drawable(sizes)
    ends = base + np.cumsum(shown[::-1])[::-1]  # the smallest starts at the base
    starts = ends - shown
    _bars(ax, names, sizes, starts)
    for place, start in enumerate(starts[:-1]):
        ax.plot([start, start], [place, place + 1], color=MUTED, linewidth=0.8, linestyle=":")
    with np.errstate(over="ignore", invalid="ignore"):
        told = float(found.base + sizes.sum())
    for at, what in ((base, f"base {found.base:.4g}"), (ends[0], f"f(x) {told:.4g}")):
        ax.axvline(at, color=MUTED, linewidth=0.8)
        ax.annotate(
            what, (at, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", fontsize=8, color=MUTED,
        )  # fmt: skip
    low, high = min(starts.min(), ends.min()), max(starts.max(), ends.max())
    ax.set_xlim(low - 0.15 * (high - low or 1.0), high + 0.15 * (high - low or 1.0))
    ax.set_xlabel("explained output" if found.target is None else f"output for {shorten(found.target)}")
    return ax.figure


def bar(
    explanation: Explanation,
    sample: int | str | None = None,
    *,
    rank: int = 0,
    name: str | None = None,
    most: int = 10,
    ax: Any = None,
) -> Any:
    """Bars of the largest attributions: of one sample, or without one the mean magnitude over all samples.

    Args:
        rank: as in `waterfall`.
        name: likewise.
        most: likewise.

    Raises:
        UserError: no such sample, class or tensor.
    """
    if sample is None:
        values, _, names = stacked(explanation, rank, name)
        with np.errstate(over="ignore"):
            names, sizes = _cut(names, np.abs(values).mean(axis=0), most)
    else:
        names, sizes = _largest(sample_of(explanation, sample, rank, name), most)
    ax = axes_of(ax, 6.0, 0.8 + 0.36 * len(sizes))
    _bars(ax, names, sizes, np.zeros(len(sizes)), signed=sample is not None)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.margins(x=0.15)
    ax.set_xlabel("attribution" if sample is not None else "mean |attribution|")
    return ax.figure


def beeswarm(
    explanation: Explanation, *, rank: int = 0, name: str | None = None, most: int = 10, ax: Any = None
) -> Any:
    """A dot for each sample in each of the largest features' rows, coloured by the feature's value.

    Args:
        rank: as in `waterfall`.
        name: likewise.
        most: likewise; features beyond it are left out.

    Raises:
        UserError: no such class or tensor.
    """
    values, data, names = stacked(explanation, rank, name)
    order = np.argsort(-np.abs(drawable(values)).mean(axis=0), kind="stable")[:most]
    ax = axes_of(ax, 6.5, 0.9 + 0.4 * len(order))
    drawn = None
    for place, feature in enumerate(order):
        given = drawable(values[:, feature])
        heights = place + _spread(given)
        shade: dict[str, Any] = {"color": MUTED}
        if data is not None and data.dtype.kind in "fiub":
            shade = {
                "c": _ranked(drawable(data[:, feature])),
                "cmap": "viridis",
                "vmin": 0,
                "vmax": 1,
            }
        drawn = ax.scatter(given, heights, s=12, linewidths=0, **shade)
    ax.axvline(0, color=MUTED, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(order)), [shorten(names[i]) for i in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel("attribution")
    if data is not None and drawn is not None:
        legend = ax.figure.colorbar(drawn, ax=ax, ticks=[0, 1], aspect=40)
        legend.ax.set_yticklabels(["low", "high"])
        legend.set_label("feature value")
    return ax.figure


def curves(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str = "",
    y: str = "",
    ax: Any = None,
) -> Any:
    """Lines by name, such as a metric's over the share of features that were removed.

    Args:
        lines: abscissas and ordinates of each.
        x: what the axis of abscissas says.
        y: what that of ordinates says.
    """
    ax = axes_of(ax, 5.5, 3.6)
    for name, (across, up) in lines.items():
        ax.plot(across, up, label=literal(name))
    ax.set(xlabel=x, ylabel=y)
    ax.grid(alpha=0.3)
    if lines:
        ax.legend(frameon=False)
    return ax.figure


def _largest(found: Sample, most: int) -> tuple[list[str], Array]:
    """Features and attributions, largest first; the rest is summed."""
    names = list(found.names)
    if found.data is not None and found.data.size == len(names) and found.data.dtype.kind in "fiub":
        names = [f"{name} = {value:.4g}" for name, value in zip(names, found.data.reshape(-1), strict=True)]
    values = np.concatenate([found.values.reshape(-1), list(found.others.values())])
    return _cut([*names, *(f"all of {other}" for other in found.others)], values, most)


def _cut(names: Sequence[str], values: Array, most: int) -> tuple[list[str], Array]:
    if most < 1:
        raise UserError(f"{most} bars", mend="draw at least 1")
    order = np.argsort(-np.abs(values), kind="stable")
    kept = order[: most if len(values) <= most else most - 1]
    rest = order[len(kept) :]
    shown, sizes = [names[i] for i in kept], values[kept]
    if len(rest):
        shown, sizes = [*shown, f"{len(rest)} others"], np.append(sizes, values[rest].sum())
    return shown, sizes


def _bars(ax: Any, names: Sequence[str], sizes: Array, starts: Array, *, signed: bool = True) -> None:
    """Horizontal bars from top to bottom, each with its number behind it."""
    shades = [FOR if s >= 0 else AGAINST for s in sizes]
    drawn = ax.barh(range(len(sizes)), drawable(sizes), left=starts, color=shades, height=0.7)
    ax.bar_label(drawn, [f"{s:{'+' if signed else ''}.3g}" for s in sizes], padding=3, fontsize=8)
    ax.set_yticks(range(len(sizes)), [shorten(name) for name in names])
    ax.set_ylim(len(sizes) - 0.4, -0.6)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def _spread(values: Array) -> Array:
    """Heights around a line at which dots of nearly the same value don't cover each other."""
    bins = np.floor(shades_of(values) * 60)
    heights = np.zeros(len(values))
    largest = max(1, int(np.unique(bins, return_counts=True)[1].max()) - 1)
    for one in np.unique(bins):
        members = np.flatnonzero(bins == one)
        # 0, +1, -1, +2, ...
        steps = np.array([(i + 1) // 2 * (1 if i % 2 else -1) for i in range(len(members))])
        heights[members] = steps * min(0.08, 0.7 / largest)
    return heights


def _ranked(values: Array) -> Array:
    """Values as shades from 0 to 1, the outermost 5 % clipped."""
    low, high = np.nanpercentile(values, [5, 95])
    if low == high:
        low, high = np.nanmin(values), np.nanmax(values)
    return np.asarray(np.clip((values - low) / ((high - low) or 1.0), 0, 1))
