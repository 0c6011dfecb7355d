"""DataFrames (of pandas, and those like them): what their columns and rows are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from irshap.errors import UserError

__all__ = ["column_names", "in_order", "is_frame", "row_names"]


def is_frame(value: Any) -> bool:
    """Whether it is a DataFrame, which has an array for each column."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def column_names(frame: Any) -> tuple[str, ...]:
    """Its columns' names as texts, in order."""
    return tuple(map(str, frame.columns))


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
