"""What is kept of each row's explanation, and which rows are no good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from irshap import contract
from irshap.errors import UserError
from irshap.runtime import Explanation
from irshap.runtime.arrays import Array, Arrays
from irshap.runtime.reading import relative_error

__all__ = ["Keep", "bad_rows", "columns", "lost_rows"]

DTYPES = ("float16", "float32", "float64")
TOLD = {
    "target": "target_index",
    "prediction": "target_values",
    "base_value": "base_values",
    "completeness_error": "completeness_error",
}
"""What is told of each row beside attributions, and how `Explanation` calls it."""


@dataclass(frozen=True)
class Keep:
    """What is kept of attributions, so that results are small; all of them by default.

    Attributes:
        top: only the largest |a|, so many of each row (and class): `x_top_values`, `x_top_indices`.
        sum_over: only sums over these axes of the input (1 is the first behind the batch): `x_sums`.
        dtype: of attributions; None: as the model gives them.

    Raises:
        UserError: no such type or number.
    """

    top: int = 0
    sum_over: tuple[int, ...] = ()
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in (None, *DTYPES):
            raise UserError(f"no attributions of type {self.dtype!r}", mend=f"known: {', '.join(DTYPES)}")
        if self.top < 0:
            raise UserError(f"no top {self.top} of attributions", mend="give 1 or more")

    def options(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "sum_over": list(self.sum_over)}

    def of(self, name: str, values: Array, classes: int) -> Arrays:
        """What is kept of the attributions of one tensor, by the name of its column.

        Args:
            values: [n, ...], or with `classes` = 1 [n, K, ...].

        Raises:
            UserError: no such axis, fewer than `top` attributions, or values beyond the range of `dtype`.
        """
        rows, found = 1 + classes, Arrays()
        if self.top:
            flat = values.reshape(*values.shape[:rows], -1)
            if self.top > flat.shape[-1]:
                what = f"no top {self.top} of {flat.shape[-1]} attributions of {name!r}"
                raise UserError(what, mend=f"take top {flat.shape[-1]} or fewer")
            places = np.argsort(-np.abs(flat), axis=-1, kind="stable")[..., : self.top]
            found[contract.summary(name, "top_values")] = np.take_along_axis(flat, places, -1)
            found[contract.summary(name, "top_indices")] = places.astype(np.int64)
        if self.sum_over:
            axes = tuple(a - 1 + rows if a > 0 else a + values.ndim for a in self.sum_over)
            if not all(rows <= axis < values.ndim for axis in axes):
                mend = f"it has the axes 1 to {values.ndim - rows}" if values.ndim > rows else "it has none"
                raise UserError(f"{name!r} can't be summed over {list(self.sum_over)}", mend=mend)
            found[contract.summary(name, "sums")] = values.sum(axis=axes)
        if not found:
            found[contract.attributions(name)] = values
        return {key: self._narrowed(key, array) for key, array in found.items()}

    def _narrowed(self, name: str, array: Array) -> Array:
        if self.dtype is None or array.dtype.kind != "f":
            return array
        with np.errstate(over="ignore"):
            narrow = array.astype(self.dtype)
        if np.any(np.isfinite(array) & ~np.isfinite(narrow)):
            mend = "keep float32"
            raise UserError(f"{name} has values beyond the range of {self.dtype}", mend=mend)
        return narrow


def columns(explanation: Explanation, keep: Keep, lost: Array, summaries: Sequence[str] = ()) -> Arrays:
    """The columns of explained rows: what is told of each, then attributions, then the file's own summaries.

    A row with an attribution or base value that isn't finite has NaN for all of its attributions: nobody
    takes the others for an explanation.

    Args:
        lost: which rows these are: what `lost_rows` says.
    """
    found = {key: getattr(explanation, name) for key, name in TOLD.items()}
    told: Arrays = {key: array for key, array in found.items() if array is not None}
    for name, array in explanation.by_input.items():
        if lost.any():
            array = array.copy()
            array[lost] = np.nan
        told |= keep.of(name, array, int(explanation.several))
    return told | {name: explanation.raw[name] for name in summaries}


def lost_rows(explanation: Explanation) -> Array:
    """Which rows have a number that isn't finite where their explanation should be: truth values [n]."""
    told = (*explanation.by_input.values(), explanation.base_values)
    arrays = [array for array in told if array is not None]
    lost = np.zeros(len(explanation), bool)
    for array in arrays:
        # one sum a row is quick; where it isn't finite, some number isn't, or the sum is too large
        flat = array.reshape(len(array), -1)
        strange = ~np.isfinite(flat.sum(axis=1, dtype=np.float64))
        lost[strange] |= ~np.isfinite(flat[strange]).all(axis=1)
    return lost


def bad_rows(
    explanation: Explanation, first: int, max_error: float | None, lost: Array
) -> list[dict[str, Any]]:
    """The rows that are no good: their number, why, and by how much.

    Args:
        lost: what `lost_rows` says.
        first: the number of the first row.
        max_error: what |completeness error| may be, times max(1, |f(x) - base|); None: anything finite.

    Raises:
        UserError: errors are limited, and none can be derived from the model's outputs.
    """
    found: list[dict[str, Any]] = [
        {"row": first + i, "why": "not finite", "error": None} for i in np.flatnonzero(lost).tolist()
    ]
    if max_error is None:
        return found
    error = explanation.completeness_error
    if error is None:
        what = "no completeness error can be derived from this model's outputs"
        raise UserError(what, mend="leave the largest error out")
    relative = relative_error(error, explanation.target_values, explanation.base_values)
    beyond = relative.reshape(len(relative), -1).max(axis=1)
    # `not <=`, so that NaN counts
    for i in np.flatnonzero(~(beyond <= max_error) & ~lost).tolist():
        size_of = float(beyond[i]) if np.isfinite(beyond[i]) else None  # JSON has no NaN
        found.append({"row": first + i, "why": "incomplete", "error": size_of})
    return sorted(found, key=lambda told: int(told["row"]))
