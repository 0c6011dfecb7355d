"""What all pictures share: axes, colours, scales, and the numbers of one sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.extras import optional
from irshap.runtime import Explanation
from irshap.runtime.arrays import Array
from irshap.runtime.labels import flat_names
from irshap.runtime.selection import labelled_place
from irshap.runtime.sizes import is_whole

__all__ = ["AGAINST", "FOR", "MUTED", "Sample", "axes_of", "colours", "drawable", "matplotlib", "new_figure"]
__all__ += ["literal", "require_explanation", "sample_of", "scale_of", "shades_of", "shorten", "stacked"]

AGAINST, FOR, MUTED = "#1746c8", "#d3121f", "#555555"


def matplotlib(module: str = "") -> Any:
    """A module of matplotlib, or matplotlib itself.

    Raises:
        UserError: it is missing.
    """
    return optional(f"matplotlib.{module}" if module else "matplotlib", "matplotlib", "plot", "drawing")


def new_figure(width: float, height: float) -> Any:
    """A figure of its own, in inches: without pyplot no display is needed and no global state is touched."""
    figure = matplotlib("figure").Figure(figsize=(width, height), dpi=120, layout="constrained")
    matplotlib("backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def axes_of(ax: Any, width: float, height: float) -> Any:
    """`ax`, or the axes of a new figure."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def colours() -> Any:
    """From what speaks against the output to what speaks for it, white at 0."""
    make = matplotlib("colors").LinearSegmentedColormap.from_list
    return make("attributions", [AGAINST, "white", FOR])


def literal(text: str) -> str:
    """A text from a model or its user, drawn as it is: matplotlib reads formulas between two dollars."""
    return text.replace("$", r"\$")


def shorten(name: str) -> str:
    """A name, to be drawn literally, that leaves room for what is drawn beside it."""
    return literal(name if len(name) <= _LONG else f"{name[: _LONG - 1]}…")


_LONG = 40


_MOST = 1e300
"""Larger numbers, and smaller ones than one by it, have no place on an axis: differences would overflow."""


def drawable(values: Array) -> Array:
    """Numbers as they can be drawn, float64: infinities as the largest one, and as 0 what is no number.

    What is written beside a drawing, and what is told of sums, are the numbers themselves.
    """
    given = np.asarray(values, dtype=np.float64)
    most = np.abs(given[np.isfinite(given)]).max(initial=0.0) or 1.0
    found = np.clip(np.nan_to_num(given, posinf=most, neginf=-most), -_MOST, _MOST)
    return np.where(np.abs(found) < 1 / _MOST, 0.0, found)


def scale_of(values: Array) -> float:
    """The largest magnitude that is drawn, 1 where all are zero: the end of a symmetric scale."""
    return float(np.abs(drawable(values)).max(initial=0.0)) or 1.0


def shades_of(values: Array) -> Array:
    """Numbers on their own range, from 0 to 1."""
    shown = drawable(values)
    low, high = shown.min(), shown.max()
    return np.asarray((shown - low) / ((high - low) or 1.0))


@dataclass(frozen=True)
class Sample:
    """One sample's attributions to one tensor, for one class.

    `values`: of the tensor's shape without samples; `data`: the sample, or None; `others`: what other
    attributed tensors get in all.
    """

    name: str
    values: Array
    data: Array | None
    names: list[str]
    base: float | None
    prediction: float | None
    target: str | None
    others: dict[str, float]


def sample_of(explanation: Explanation, sample: int | str, rank: int, name: str | None) -> Sample:
    """What a picture of one sample shows.

    Args:
        sample: its place, or its label.
        rank: which of several classes.
        name: the attributed tensor, where there are several.

    Raises:
        UserError: no such sample, class or tensor, or it is no explanation.
    """
    require_explanation(explanation)
    sample = _place(explanation, sample)
    all_values, name = _by_name(explanation, name)
    several = explanation.several
    count = next(iter(all_values.values())).shape[1] if several else 1
    if not -count <= rank < count:
        what = f"there is no class {rank} among the {count} that are explained"
        raise UserError(what, mend=f"give its place in their order, from 0 to {count - 1}")
    place = (sample, rank) if several else (sample,)
    values = {key: array[place].astype(np.float64) for key, array in all_values.items()}
    data = explanation.data.get(name) if isinstance(explanation.data, dict) else explanation.data

    def told(array: Array | None) -> Any:
        return None if array is None else array[place]

    base, prediction = told(explanation.base_values), told(explanation.target_values)
    return Sample(
        name,
        values[name],
        None if data is None else data[sample],
        flat_names(name, values[name].shape, explanation.names),
        None if base is None else float(base),
        None if prediction is None else float(prediction),
        told(explanation.target_names),
        {key: float(array.sum()) for key, array in values.items() if key != name},
    )


def require_explanation(given: Any) -> None:
    """Refuses what isn't an `Explanation`, such as its arrays.

    Raises:
        UserError: says so.
    """
    if not isinstance(given, Explanation):
        mend = "give what an Explainer returns, or Explanation.load(FILE)"
        raise UserError(f"{type(given).__name__} is no explanation", mend=mend)


def _place(explanation: Explanation, sample: int | str) -> int:
    if isinstance(sample, str):
        return labelled_place(sample, explanation.sample_names)
    count = len(explanation)
    if not is_whole(sample, -count) or sample >= count:
        mend = f"give a place from 0 to {count - 1}, or a label"
        raise UserError(f"there is no sample {sample} among {count}", mend=mend)
    return int(sample)


def stacked(explanation: Explanation, rank: int, name: str | None) -> tuple[Array, Array | None, list[str]]:
    """All samples' attributions [N, features], the samples likewise or None, and the features' names.

    Raises:
        UserError: no such class or tensor.
    """
    require_explanation(explanation)
    parts = [sample_of(explanation, i, rank, name) for i in range(len(explanation))]
    values = np.stack([p.values.reshape(-1) for p in parts])
    data = [p.data.reshape(-1) for p in parts if p.data is not None and p.data.size == values.shape[1]]
    return values, np.stack(data) if len(data) == len(parts) else None, parts[0].names


def _by_name(explanation: Explanation, name: str | None) -> tuple[dict[str, Array], str]:
    values = explanation.values
    arrays = values if isinstance(values, dict) else {explanation.inputs[0]: values}
    if name is None and len(arrays) == 1:
        return arrays, next(iter(arrays))
    if name not in arrays:
        what = f"no attributed tensor {name!r}" if name else "several tensors are attributed"
        raise UserError(what, mend=f"name one of {', '.join(arrays)}")
    return arrays, name
