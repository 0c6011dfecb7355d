"""Attributions along a sequence: steps of a time series, tokens of a text, letters of a one-hot sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.report.drawing import (
    AGAINST,
    FOR,
    MUTED,
    Sample,
    axes_of,
    colours,
    drawable,
    literal,
    matplotlib,
    sample_of,
    scale_of,
    shorten,
)
from irshap.runtime import Explanation
from irshap.runtime.arrays import Array

__all__ = ["Word", "is_one_hot", "logo", "steps", "tokens", "tokens_html", "words_of"]


def steps(
    explanation: Explanation,
    sample: int | str = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    time: int = 0,
    scale: float | None = None,
    ax: Any = None,
) -> Any:
    """A heat map of one sample [T, F] or [T]: time goes right, a row for each feature.

    Args:
        rank: which of several explained classes.
        name: the attributed tensor, where there are several.
        time: the sample's axis of time, 0 for [T, F], 1 for [F, T].
        scale: the end of the symmetric scale; None: this sample's largest magnitude.

    Raises:
        UserError: no such sample, class, tensor or axis.
    """
    found = sample_of(explanation, sample, rank, name)
    values = found.values if found.values.ndim != 1 else found.values[:, None]
    if values.ndim != 2 or time not in (0, 1):
        what = f"samples of shape {list(found.values.shape)} are no steps with features"
        raise UserError(what, mend="draw image(...) or bar(...)")
    heat = drawable(values.T if time == 0 else values)
    ax = axes_of(ax, 7.0, 1.3 + 0.3 * min(len(heat), 20))
    end = scale_of(heat) if scale is None else scale
    drawn = ax.imshow(heat, cmap=colours(), vmin=-end, vmax=end, aspect="auto", interpolation="nearest")
    given = explanation.names.features.get(found.name) if time == 0 else None
    if given and len(given) == len(heat):
        ax.set_yticks(range(len(heat)), [shorten(name) for name in given])
    elif len(heat) == 1:
        ax.set_yticks([])
    ax.set_xlabel("step")
    ax.figure.colorbar(drawn, ax=ax, ticks=[-end, 0, end], format="%.2g")
    return ax.figure


def tokens(
    explanation: Explanation,
    sample: int | str = 0,
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
    end, shades, values = scale_of(values), colours(), drawable(values)
    for line, row in enumerate(rows):
        at = 0.0
        for i in row:
            wide = len(words[i]) + 0.6
            face = shades(0.5 + 0.5 * values[i] / end)
            box = matplotlib("patches").Rectangle((at, line - 0.42), wide, 0.84, facecolor=face, linewidth=0)
            ax.add_patch(box)
            dark = abs(values[i]) / end > 0.55
            ax.text(
                at + wide / 2, line, literal(words[i]), ha="center", va="center", fontsize=8,
                family="monospace", color="white" if dark else "black",
            )  # fmt: skip
            at += wide + 0.4
    ax.set_xlim(0, columns + 4)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_axis_off()
    return ax.figure


def tokens_html(
    explanation: Explanation,
    sample: int | str = 0,
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
    spans = []
    for word in words_of(explanation, sample, rank=rank, name=name, texts=texts):
        style = f"background:{word.shade};color:{word.ink};padding:0 .15em"
        spans.append(f'<span style="{style}" title="{word.value:+.4g}">{escape(word.text)}</span>')
    return f'<p style="line-height:1.9">{" ".join(spans)}</p>'


@dataclass(frozen=True)
class Word:
    """A token on the colour of its attribution: `shade` is the colour's, `ink` the text's, as #rrggbb."""

    text: str
    value: float
    shade: str
    ink: str


def words_of(
    explanation: Explanation,
    sample: int | str = 0,
    *,
    rank: int = 0,
    name: str | None = None,
    texts: Sequence[str] | None = None,
    scale: float | None = None,
) -> list[Word]:
    """The tokens of one sample and their colours.

    Args:
        rank: as in `tokens`.
        name: likewise.
        texts: likewise.
        scale: as in `steps`.

    Raises:
        UserError: as `tokens`.
    """
    found = sample_of(explanation, sample, rank, name)
    words, values = _words(explanation, found, sample, texts)
    end = scale_of(values) if scale is None else scale
    parts = drawable(values) / end
    return [_word(*each) for each in zip(words, map(float, values), map(float, parts), strict=True)]


def _word(text: str, value: float, part: float) -> Word:
    shade = _mixed(FOR if part >= 0 else AGAINST, min(abs(part), 1.0))
    return Word(
        text, value, shade, "#000000" if _contrast(shade, 0.0) >= _contrast(shade, 1.0) else "#ffffff"
    )


def logo(
    explanation: Explanation,
    sample: int | str = 0,
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
    heights = (drawable(values) * hot).sum(axis=1)
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
    explanation: Explanation, found: Sample, sample: int | str, texts: Sequence[str] | None
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


def is_one_hot(data: Array, count: int) -> bool:
    """Whether samples [N, L, letters] or [N, letters, L] hold one of so many letters, or none, everywhere."""
    return data.ndim == 3 and any(_of_letters(turned, count) for turned in (data, data.swapaxes(1, 2)))


def _of_letters(hot: Array, count: int) -> bool:
    zeros_and_ones = bool(((hot == 0) | (hot == 1)).all())
    return hot.shape[-1] == count and zeros_and_ones and bool((hot.sum(axis=-1) <= 1).all())


def _one_hot(found: Sample, count: int) -> tuple[Array, Array]:
    """Attributions and sample as [L, letters]."""
    data = found.data
    if data is not None and data.ndim == 2 and data.shape == found.values.shape:
        for values, hot in ((found.values, data), (found.values.T, data.T)):
            if _of_letters(hot, count):
                return values, hot
    what = f"the sample is no one-hot sequence of {count} letters"
    raise UserError(what, mend="give letters= for another alphabet, or draw steps(...)")


def _mixed(colour: str, strength: float) -> str:
    """A colour on white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (part - 255) * strength):02x}" for part in parts)


def _contrast(colour: str, other: float) -> float:
    """The contrast of a colour with one of luminance `other`, from 1 to 21 (WCAG 2.2)."""
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    light, dark = sorted((float(linear @ [0.2126, 0.7152, 0.0722]), other), reverse=True)
    return (light + 0.05) / (dark + 0.05)
