"""What hidden cells hold: each baseline is one dataclass, written as measures are: `blur{size=11}`."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irshap.errors import UserError
from irshap.metrics.subject import Subject
from irshap.pipeline.text import read_calls
from irshap.runtime.arrays import Array, Arrays, conform

__all__ = ["BASELINES", "Baseline", "Blur", "Constant", "Mean", "Reference", "filled", "read_baseline"]

BASELINES: dict[str, type[Baseline]] = {}
"""Every baseline by its name."""


class Baseline:
    """Base of all baselines."""

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        BASELINES[cls.name] = cls

    @abstractmethod
    def of(self, name: str, x: Array, subject: Subject) -> Array:
        """What the cells of the input `name`, whose samples are `x` [N, ...], hold: broadcasts to `x`.

        Raises:
            UserError: this input has no such baseline.
        """


def read_baseline(text: str) -> Baseline:
    """The baseline that a text names, such as `blur{size=11}`.

    Raises:
        PipelineError: no such baseline, option or value.
        UserError: several.
    """
    baseline, *more = read_calls(text, BASELINES, "baseline")
    if more:
        raise UserError(f"{text} are {1 + len(more)} baselines", mend="name one")
    return baseline


def filled(text: str, subject: Subject) -> Arrays:
    """For each attributed input the sample that is all hidden, of its shape and dtype.

    Args:
        text: a baseline with its options.

    Raises:
        PipelineError: no such baseline.
        UserError: an input has none of this kind.
    """
    baseline, found = read_baseline(text), {}
    for name, x in subject.explained.items():
        values = np.asarray(baseline.of(name, x, subject))
        if x.dtype.kind == "f":
            kept = conform(values, x.dtype, None, UserError, f"the baseline {text}")
        elif not np.array_equal(kept := _as_integers(values, x.dtype), values):
            raise UserError(
                f"{text} isn't of integers, as input {name!r} is", mend="use reference, or a token"
            )
        found[name] = np.broadcast_to(kept, x.shape)
    return found


def _as_integers(values: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(invalid="ignore"):  # what is beyond them becomes another number, and is told by that
        return values.astype(dtype)


@dataclass(frozen=True)
class Blur(Baseline):
    """Each picture, blurred: `size` x `size` weights, per axis as exp(-((u - (size - 1)/2)/(2 sigma))^2).

    So is it in the code behind Hesse et al. 2021 and Lundberg et al. 2020; a normal density's standard
    deviation is then sqrt(2) sigma.  Weights sum to 1; beyond the edges the picture is reflected, as often as
    the size asks for.
    """

    size: int = 51
    sigma: float = 41.0
    name = "blur"

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0 or self.size > 1001 or not self.sigma > 0:
            raise ValueError("size is odd, 1 to 1001, and sigma is over 0")

    def of(self, name: str, x: Array, subject: Subject) -> Array:
        if x.ndim not in (3, 4) or x.dtype.kind != "f":
            what = f"input {name!r} of shape {list(x.shape[1:])} is no picture, so that it can't be blurred"
            raise UserError(what, mend="use the baseline mean, reference or constant{value=...}")
        channels = subject.cells.channels[name]
        axes = [axis for axis in range(1, x.ndim) if channels is None or axis != channels + 1]
        found = x.astype(np.float64)
        for axis in axes:
            found = np.moveaxis(np.tensordot(self._weights(x.shape[axis]), found, (1, axis)), 0, axis)
        return found

    def _weights(self, length: int) -> Array:
        """[length, length]: what each place takes from each one."""
        half = self.size // 2
        along = np.exp(-((np.arange(-half, half + 1) / (2 * self.sigma)) ** 2))
        places = np.pad(np.arange(length), half, mode="reflect")
        found = np.zeros((length, length))
        for place in range(length):
            np.add.at(found[place], places[place : place + self.size], along / along.sum())
        return found


@dataclass(frozen=True)
class Mean(Baseline):
    """The mean of the references, or where none are given of two samples or more, cell by cell."""

    name = "mean"

    def of(self, name: str, x: Array, subject: Subject) -> Array:
        rows = subject.references.get(name, x)
        if rows is x and len(x) == 1:
            raise UserError("the mean of a single sample is the sample", mend="give references")
        return np.asarray(rows.mean(axis=0, dtype=np.float64))


@dataclass(frozen=True)
class Reference(Baseline):
    """The reference: one for all samples, or one for each of them in order."""

    name = "reference"

    def of(self, name: str, x: Array, subject: Subject) -> Array:
        if (rows := subject.references.get(name)) is None:
            raise UserError(
                f"the baseline is a reference, and input {name!r} has none", mend="give references"
            )
        if len(rows) not in (1, len(x)):
            what = f"{len(rows)} references for {len(x)} samples"
            raise UserError(what, mend="give one reference, or one for each sample; or use the baseline mean")
        return rows


@dataclass(frozen=True)
class Constant(Baseline):
    """The number `value` everywhere; for tokens an id, such as that of padding."""

    value: float = 0.0
    name = "constant"

    def __post_init__(self) -> None:
        if not np.isfinite(self.value):
            raise ValueError("value is finite")

    def of(self, name: str, x: Array, subject: Subject) -> Array:
        return np.asarray(self.value)
