"""Attributions along a sequence: steps of a time series, tokens of a text, letters of a one-hot sequence."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from irshap.errors import UserError
from irshap.report.drawing import (
    AGAINST,
    FOR,
    MUTED,
    Sample,
    axes_of,
    colours,
    matplotlib,
    sample_of,
    scale_of,
)
from irshap.runtime import Explanation
from irshap.runtime.arrays import Array

__all__ = ["logo", "steps", "tokens", "tokens_html"]


def steps(
    explanation: Explanation,
    sample: int = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    time: int = 0,
    ax: Any = None,
) -> Any:
    """A heat map of one sample [T, F] or [T]: time goes right, a row for each feature.

    Args:
        rank: which of several explained classes.
        name: the attributed tensor, where there are several.
        time: the sample's axis of time, 0 for [T, F], 1 for [F, T].

    Raises:
        UserError: no such sample, class, tensor or axis.
    """
    found = sample_of(explanation, sample, rank, name)
    values = found.values if found.values.ndim != 1 else found.values[:, None]
    if values.ndim != 2 or time not in (0, 1):
        what = f"samples of shape {list(found.values.shape)} are no steps with features"
        raise UserError(what, mend="draw image(...) or bar(...)")
    heat = values.T if time == 0 else values
    ax = axes_of(ax, 7.0, 1.3 + 0.3 * min(len(heat), 20))
    end = scale_of(heat)
    drawn = ax.imshow(heat, cmap=colours(), vmin=-end, vmax=end, aspect="auto", interpolation="nearest")
    given = explanation.names.features.get(found.name) if time == 0 else None
    if given and len(given) == len(heat):
        ax.set_yticks(range(len(heat)), given)
    elif len(heat) == 1:
        ax.set_yticks([])
    ax.set_xlabel("step")
    ax.figure.colorbar(drawn, ax=ax, ticks=[-end, 0, end], format="%.2g")
    return ax.figure


def tokens(
    explanation: Explanation,
    sample: int = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    texts: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """The tokens of one sample in reading order, each on the colour of its attribution.

    Args:
        rank: as in `steps`.
        name: likewise.
        texts: the tokens' texts; None: by `Names.tokens`, or their ids.

    Raises:
        UserError: no such sample, class or tensor, or another number of texts than tokens.
    """
    found = sample_of(explanation, sample, rank, name)
    words, values = _words(explanation, found, sample, texts)
    columns = 60
    rows: list[list[int]] = [[]]
    width = 0
    for i, word in enumerate(words):
        if width + len(word) + 1 > columns and rows[-1]:
            rows.append([])
            width = 0
        rows[-1].append(i)
        width += len(word) + 1
    ax = axes_of(ax, 7.0, 0.5 + 0.32 * len(rows))
    end, shades = scale_of(values), colours()
    for line, row in enumerate(rows):
        at = 0.0
        for i in row:
            wide = len(words[i]) + 0.6
            face = shades(0.5 + 0.5 * values[i] / end)
            box = matplotlib("patches").Rectangle((at, line - 0.42), wide, 0.84, facecolor=face, linewidth=0)
            ax.add_patch(box)
            dark = abs(values[i]) / end > 0.55
            ax.text(
                at + wide / 2, line, words[i], ha="center", va="center", fontsize=8, family="monospace",
                color="white" if dark else "black",
            )  # fmt: skip
            at += wide + 0.4
    ax.set_xlim(0, columns + 4)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_axis_off()
    return ax.figure


def tokens_html(
    explanation: Explanation,
    sample: int = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    texts: Sequence[str] | None = None,
) -> str:
    """The same as a paragraph of HTML; each token's attribution shows when it is pointed at.

    Args:
        rank: as in `tokens`.
        name: likewise.
        texts: likewise.

    Raises:
        UserError: as `tokens`.
    """
    found = sample_of(explanation, sample, rank, name)
    words, values = _words(explanation, found, sample, texts)
    end = scale_of(values)
    spans = []
    for word, value in zip(words, values, strict=True):
        strength = abs(value) / end
        shade = FOR if value >= 0 else AGAINST
        ink = "#fff" if strength > 0.55 else "#000"
        style = f"background:{_mixed(shade, strength)};color:{ink};padding:0 .15em"
        spans.append(f'<span style="{style}" title="{value:+.4g}">{escape(word)}</span>')
    return f'<p style="line-height:1.9">{" ".join(spans)}</p>'


def logo(
    explanation: Explanation,
    sample: int = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    letters: str = "ACGT",
    ax: Any = None,
) -> Any:
    """A one-hot sequence as letters as high as their attributions; those below the line speak against.

    Args:
        rank: as in `steps`.
        name: likewise.
        letters: one for each place on the axis of letters.

    Raises:
        UserError: no such sample, class or tensor, or one whose sample isn't one-hot over these letters.
    """
    found = sample_of(explanation, sample, rank, name)
    values, hot = _one_hot(found, len(letters))
    heights = (values * hot).sum(axis=1)
    ax = axes_of(ax, max(4.0, 0.16 * len(heights)), 1.8)
    path, transform = matplotlib("textpath"), matplotlib("transforms")
    patches = matplotlib("patches")
    palette = ["#1a8f3c", AGAINST, "#e08a00", FOR, *[MUTED] * len(letters)]
    font = matplotlib("font_manager").FontProperties(family="DejaVu Sans", weight="bold")
    for place, (height, letter) in enumerate(zip(heights, hot.argmax(axis=1), strict=True)):
        if not height:
            continue
        outline = path.TextPath((0, 0), letters[letter], size=1, prop=font)
        box = outline.get_extents()
        # the glyph's own box, stretched to its place and height; downwards it is turned over
        move = transform.Affine2D().translate(-box.x0, -box.y0).scale(0.9 / box.width, height / box.height)
        move = move.translate(place - 0.45, 0)
        ax.add_patch(patches.PathPatch(move.transform_path(outline), facecolor=palette[letter], linewidth=0))
    ax.axhline(0, color=MUTED, linewidth=0.8)
    ax.set_xlim(-0.6, len(heights) - 0.4)
    low, high = min(heights.min(initial=0), 0), max(heights.max(initial=0), 0)
    room = 0.05 * ((high - low) or 1.0)
    ax.set_ylim(low - room, high + room)
    ax.set_xlabel("position")
    ax.set_ylabel("attribution")
    return ax.figure


def _words(
    explanation: Explanation, found: Sample, sample: int, texts: Sequence[str] | None
) -> tuple[list[str], Array]:
    values = found.values
    if values.ndim == 2 and (texts is not None or found.data is None or found.data.ndim == 1):
        values = values.sum(axis=1)  # over the embedding
    if values.ndim != 1:
        raise UserError(
            f"samples of shape {list(values.shape)} are no tokens", mend="draw steps(...) or bar(...)"
        )
    if texts is None:
        texts = list(map(str, explanation[sample].tokens(found.name)[0]))
    if len(texts) != len(values):
        raise UserError(f"{len(texts)} texts for {len(values)} tokens", mend="give one for each")
    return list(map(str, texts)), values


def _one_hot(found: Sample, count: int) -> tuple[Array, Array]:
    """Attributions and sample as [L, letters]."""
    data = found.data
    if data is not None and data.ndim == 2 and data.shape == found.values.shape:
        for values, hot in ((found.values, data), (found.values.T, data.T)):
            zeros_and_ones = ((hot == 0) | (hot == 1)).all()
            if hot.shape[1] == count and zeros_and_ones and (hot.sum(axis=1) <= 1).all():
                return values, hot
    what = f"the sample is no one-hot sequence of {count} letters"
    raise UserError(what, mend="give letters= for another alphabet, or draw steps(...)")


def _mixed(colour: str, strength: float) -> str:
    """A colour on white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (part - 255) * strength):02x}" for part in parts)
