"""Kinds of input, and how a page shows a sample of each: one class a kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from irshap.errors import UserError, near
from irshap.report.bars import bar, beeswarm, waterfall
from irshap.report.drawing import Sample, drawable, sample_of
from irshap.report.embedded import SHARP, Embedded, embedded_figure, embedded_pixels
from irshap.report.pictures import heat_of, overlay, plain
from irshap.report.sequences import Word, is_one_hot, logo, steps, words_of
from irshap.runtime import Explanation
from irshap.runtime.arrays import Array

__all__ = ["KINDS", "Kind", "Look", "Shown", "kinds_of"]

Shown: TypeAlias = Embedded | tuple[Word, ...]
"""What stands on a page: a picture, or words on colours."""

_EVERY = 99.9
"""The percentile of magnitudes that ends the scale of maps: one pixel shall not make all others pale."""


@dataclass(frozen=True)
class Look:
    """What is said of drawings beside their kind.

    `layout`: of pictures, as in `image`; `letters`: of one-hot sequences; `most`: how many bars.
    """

    layout: str = "auto"
    letters: str = "ACGT"
    most: int = 10


class Kind(ABC):
    """How attributions to a tensor are shown.

    A class sets `name` and `legend`, which says how its pictures are read.
    """

    name: ClassVar[str]
    legend: ClassVar[str]
    scaled: ClassVar[bool] = False
    """Whether colours stand for numbers, on one scale for the page."""

    @abstractmethod
    def fits(self, sample: Sample, data: Array | None, look: Look) -> bool:
        """Whether a tensor is of this kind, by one sample and, where it is an input, all of them [N, ...]."""

    def input(self, sample: Sample, look: Look) -> Shown | None:
        """The sample itself, where its picture stands beside the attributions'."""
        return None

    def magnitude(self, sample: Sample, look: Look) -> float:
        """How large what the colours stand for gets in one sample, for the page's scale."""
        return float(np.abs(drawable(sample.values)).max(initial=0.0))

    @abstractmethod
    def draw(self, e: Explanation, place: int, rank: int, name: str, look: Look, end: float) -> Shown:
        """The attributions of one sample for one class; colours reach to `end`."""

    def together(self, e: Explanation, rank: int, name: str, look: Look) -> list[tuple[str, Shown]]:
        """Pictures of all samples, with their titles."""
        return []


class Tokens(Kind):
    """Ids at which embeddings are looked up: words on colours."""

    name, legend, scaled = "tokens", "each token stands on the colour of what it adds", True

    def fits(self, sample: Sample, data: Array | None, look: Look) -> bool:
        return (
            data is not None and data.dtype.kind in "iu" and data.ndim == 2 and sample.values.ndim in (1, 2)
        )

    def magnitude(self, sample: Sample, look: Look) -> float:
        values = sample.values if sample.values.ndim == 1 else sample.values.sum(axis=1)
        return float(np.abs(drawable(values)).max(initial=0.0))

    def draw(self, e: Explanation, place: int, rank: int, name: str, look: Look, end: float) -> Shown:
        return tuple(words_of(e, place, rank=rank, name=name, scale=end))


class Letters(Kind):
    """A one-hot sequence: a logo."""

    name, legend = "sequence", "letters are as high as what they add; those below the line speak against"

    def fits(self, sample: Sample, data: Array | None, look: Look) -> bool:
        return data is not None and is_one_hot(data, len(look.letters))

    def draw(self, e: Explanation, place: int, rank: int, name: str, look: Look, end: float) -> Shown:
        return embedded_figure(logo(e, place, rank=rank, name=name, letters=look.letters))


class Image(Kind):
    """A picture: a map over it."""

    name, legend, scaled = "image", "each map shows what its pixels add", True

    def fits(self, sample: Sample, data: Array | None, look: Look) -> bool:
        shape = sample.values.shape
        return len(shape) == 3 or (len(shape) == 2 and shape[0] == shape[1] >= 8)

    def input(self, sample: Sample, look: Look) -> Shown | None:
        return None if sample.data is None else embedded_pixels(plain(sample.data, look.layout))

    def magnitude(self, sample: Sample, look: Look) -> float:
        return float(np.percentile(np.abs(_heat(sample, look)), _EVERY))

    def draw(self, e: Explanation, place: int, rank: int, name: str, look: Look, end: float) -> Shown:
        found = sample_of(e, place, rank, name)
        heat = _heat(found, look)
        # of few pixels the colours are read one by one, beside the picture
        below = found.data if max(heat.shape) > SHARP else None
        return embedded_pixels(overlay(heat, below, look.layout, end))


def _heat(sample: Sample, look: Look) -> Array:
    return heat_of(sample.values, look.layout, sample.data is None)


class Series(Kind):
    """Steps with features: a heat map over time."""

    name, legend, scaled = "series", "time goes right, a row for each feature", True

    def fits(self, sample: Sample, data: Array | None, look: Look) -> bool:
        return sample.values.ndim == 2

    def draw(self, e: Explanation, place: int, rank: int, name: str, look: Look, end: float) -> Shown:
        shape = sample_of(e, place, rank, name).values.shape
        # the longer axis is time
        time = int(len(shape) == 2 and shape[1] > shape[0])
        return embedded_figure(steps(e, place, rank=rank, name=name, time=time, scale=end))


class Bars(Kind):
    """Anything else: bars of the largest elements."""

    name, legend = "bars", "a bar for each of the largest elements"

    def fits(self, sample: Sample, data: Array | None, look: Look) -> bool:
        return True

    def draw(self, e: Explanation, place: int, rank: int, name: str, look: Look, end: float) -> Shown:
        return embedded_figure(bar(e, place, rank=rank, name=name, most=look.most))


class Table(Bars):
    """Columns of a table: from the base value to f(x), a bar for each feature."""

    name, legend = "table", "bars lead from the base value to f(x), the largest on top"

    def fits(self, sample: Sample, data: Array | None, look: Look) -> bool:
        return sample.values.ndim < 2

    def draw(self, e: Explanation, place: int, rank: int, name: str, look: Look, end: float) -> Shown:
        if e.base_values is None:
            return super().draw(e, place, rank, name, look, end)
        return embedded_figure(waterfall(e, place, rank=rank, name=name, most=look.most))

    def together(self, e: Explanation, rank: int, name: str, look: Look) -> list[tuple[str, Shown]]:
        if len(e) < 2:
            return []
        means = bar(e, rank=rank, name=name, most=look.most)
        dots = beeswarm(e, rank=rank, name=name, most=look.most)
        return [
            ("Mean magnitude of attributions", embedded_figure(means)),
            ("Attributions of all samples", embedded_figure(dots)),
        ]


# in the order in which a tensor is asked whether it is one
KINDS: dict[str, Kind] = {k.name: k for k in (Tokens(), Letters(), Image(), Series(), Table(), Bars())}
"""Every kind by its name."""


def kinds_of(e: Explanation, said: Mapping[str, str], look: Look) -> dict[str, Kind]:
    """The kind of each attributed tensor.

    Args:
        said: kinds by tensor, "" for all others; who isn't named is guessed from shapes.

    Raises:
        UserError: no such tensor or kind.
    """
    for name, kind in said.items():
        if name and name not in e.inputs:
            raise UserError(f"no attributed tensor {name!r}", where="kind", mend=near(name, e.inputs))
        if kind not in KINDS:
            raise UserError(f"no kind of input is called {kind!r}", mend=near(kind, KINDS))
    found = {}
    for name in e.inputs:
        asked = said.get(name, said.get(""))
        data = e.data.get(name) if isinstance(e.data, dict) else e.data
        sample = sample_of(e, 0, 0, name)
        fitting = (k for k in KINDS.values() if k.fits(sample, data, look))
        found[name] = next(fitting) if asked is None else KINDS[asked]
    return found
