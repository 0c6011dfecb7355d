"""DataFrames (of pandas, and those like them): what their columns and rows are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irshap.contract import ONLY
from irshap.errors import UserError

__all__ = ["Frame", "column_names", "columns_by_input", "in_order", "is_frame", "row_names"]


@dataclass(frozen=True, eq=False)
class Frame:
    """An array [..., F] whose last axis has names: as much of a DataFrame as is read here.

    What is made of a user's DataFrame is one, whichever package that came from.
    """

    array: np.ndarray[Any, Any]
    columns: tuple[str, ...]

    def to_numpy(self) -> np.ndarray[Any, Any]:
        """The array."""
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.array, dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, names: Sequence[str]) -> Frame:
        places = [self.columns.index(name) for name in names]
        return Frame(self.array[..., places], tuple(names))


def is_frame(value: Any) -> bool:
    """Whether it is a DataFrame, which has an array for each column."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def column_names(frame: Any) -> tuple[str, ...]:
    """Its columns' names as texts, in order."""
    return tuple(map(str, frame.columns))


def columns_by_input(source: Any, only: str = ONLY) -> dict[str, tuple[str, ...]]:
    """What the columns of DataFrames are called, by input; other arrays are left out.

    Args:
        source: samples or references, as users give them.
        only: the input that a DataFrame without a name is for.
    """
    parts = source if isinstance(source, Mapping) else {only: source}
    return {str(name): column_names(part) for name, part in parts.items() if is_frame(part)}


def row_names(sources: Iterable[Any]) -> Any:
    """What the first DataFrame among these, or in a mapping among them, calls its rows; None without one.

    That is the index of pandas; others have none.
    """
    parts = [p for s in sources for p in (s.values() if isinstance(s, Mapping) else [s])]
    return next((part.index for part in parts if is_frame(part) and hasattr(part, "index")), None)


def in_order(
    frame: Any, known: Sequence[str], error: type[UserError] = UserError, where: str = "input"
) -> Any:
    """A DataFrame with the columns called so, in that order; further ones are left out.

    Where none of its columns is known it stays: its names are others, or numbers.

    Raises:
        UserError: as `error`: some of the columns are there, and others aren't, or are there twice.
    """
    given = column_names(frame)
    if given == tuple(known) or set(given).isdisjoint(known) or len(set(known)) < len(known):
        return frame
    if missing := [name for name in known if name not in given]:
        mend = f"give all of {', '.join(known)}, or an array without names"
        raise error(f"the DataFrame has no column {missing[0]!r}", where=where, mend=mend)
    if twice := [name for name in known if given.count(name) > 1]:
        raise error(f"the DataFrame has several columns {twice[0]!r}", where=where, mend="give one of them")
    names = dict(zip(given, frame.columns, strict=True))
    return frame[[names[name] for name in known]]
