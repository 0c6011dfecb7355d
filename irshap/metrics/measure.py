"""What every measure of attributions is: one dataclass, whose fields are its options; and their registry."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irshap.metrics.subject import Subject
from irshap.pipeline.text import pass_text, read_calls
from irshap.runtime.arrays import Array

__all__ = ["MEASURES", "Curve", "Measure", "Measured", "read_measures"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores [Q] over the share [Q] of cells, both float64; what the axes say."""

    share: Array
    score: Array
    x: str
    y: str


@dataclass(frozen=True, eq=False)
class Measured:
    """What a measure found.

    Attributes:
        value: the number, over all samples.
        values: that of each sample, float64 [N].
        curve: what the value is the area under, mean over samples.
    """

    value: float
    values: Array
    curve: Curve | None = None

    @classmethod
    def mean(cls, values: Array, curve: Curve | None = None) -> Measured:
        """The mean over samples."""
        return cls(float(np.mean(values)), values, curve)


MEASURES: dict[str, type[Measure]] = {}
"""Every measure by its name."""


class Measure:
    """Base of all measures: a frozen dataclass with a docstring (equation and source) and these facets."""

    FACETS: ClassVar[dict[str, str]] = {
        "name": "what it is called in texts and tables",
        "better": '"higher" or "lower", or "" where neither is',
        "measure": "def measure(self, subject) -> Measured",
    }
    name: ClassVar[str]
    better: ClassVar[str]

    def __init_subclass__(cls, *, family: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family:
            return
        missing = [facet for facet in cls.FACETS if _is_missing(cls, facet)]
        if missing or not (cls.__doc__ or "").strip():
            listed = "; ".join(f"{facet}: {cls.FACETS[facet]}" for facet in missing) or "a docstring"
            raise TypeError(f"measure {cls.__name__} lacks {listed}")
        if cls.name in MEASURES:
            raise TypeError(f"two measures are called {cls.name!r}")
        MEASURES[cls.name] = cls

    @abstractmethod
    def measure(self, subject: Subject) -> Measured:
        """What it says of these attributions.

        Raises:
            UserError: it can't be taken of them; says why.
        """

    @property
    def text(self) -> str:
        """Its name and those of its options that aren't as by default: `read_measures` reads it back."""
        return pass_text(self)


def _is_missing(cls: type[Measure], facet: str) -> bool:
    found = getattr(cls, facet, None)
    return found is None or getattr(found, "__isabstractmethod__", False)


def read_measures(text: str) -> tuple[Measure, ...]:
    """The measures that a text names, such as `insertion{steps=20},sparseness`.

    Raises:
        PipelineError: an unknown measure, option or value.
    """
    return read_calls(text, MEASURES, "measure")
