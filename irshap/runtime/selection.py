"""Which samples, features and classes of an explanation are asked for, as places along axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from irshap.errors import UserError, near
from irshap.runtime.arrays import Array

__all__ = ["class_places", "each", "feature_places", "labelled_place", "sample_rows"]


def each(told: Any, change: Callable[[Array], Array]) -> Any:
    """What is told by attributed tensor, each array changed; None stays None."""
    if told is None:
        return None
    if isinstance(told, dict):
        return {name: change(array) for name, array in told.items()}
    return np.asarray(change(told))


def sample_rows(which: Any, count: int, labels: Sequence[str] | None = None) -> Any:
    """What picks these samples from the first axis, and leaves it there.

    Args:
        which: a number, a range, a list of numbers, or an array of truth values; where samples have labels
            also one of them, or a list.  A number is a place, also where labels are numbers.
        labels: of the samples, as texts.

    Raises:
        IndexError: no such sample.
        UserError: it is none of these.
    """
    if labels is not None:
        listed = [which] if isinstance(which, str) else which
        if isinstance(listed, list | np.ndarray) and len(listed) and all(isinstance(w, str) for w in listed):
            return [labelled_place(label, labels) for label in listed]
    if isinstance(which, int | np.integer) and not isinstance(which, bool):
        if not -count <= which < count:
            raise IndexError(f"sample {which} of {count}")
        return [int(which)]
    if isinstance(which, slice):
        return _places(which, "samples")
    rows = np.asarray(which)
    if rows.ndim != 1 or rows.dtype.kind not in "iub":
        raise UserError(f"{which!r} are no samples", mend="Use a number, a range, or a list of numbers")
    return rows


def _places(which: slice, what: str) -> slice:
    """A range, if it goes from place to place."""
    ends = (which.start, which.stop, which.step)
    if not all(end is None or isinstance(end, int | np.integer) for end in ends) or which.step == 0:
        raise UserError(f"{which!r} is no range of {what}", mend="Use places, as in 2:5, or a list of names")
    return which


def labelled_place(label: str, labels: Sequence[str]) -> int:
    """The place of the sample that is called so.

    Raises:
        UserError: none is, or several are.
    """
    if label not in labels:
        mend = near(label, labels) if len(labels) <= _FEW else "labels has them all"
        raise UserError(f"no sample is called {label!r}", mend=mend)
    if labels.count(label) > 1:
        raise UserError(f"{labels.count(label)} samples are called {label!r}", mend="give their places")
    return labels.index(label)


_FEW = 30
"""How many labels fit into a message."""


def feature_places(which: Any, known: Sequence[str]) -> list[int]:
    """The places of features along their axis.

    Args:
        which: a name, a place, a range, or a list of names and places.
        known: the names along the axis.

    Raises:
        UserError: no such feature.
    """
    if isinstance(which, slice):
        return list(range(len(known)))[_places(which, "features")]
    listed = [which] if isinstance(which, str | int | np.integer) else which
    if not isinstance(listed, Iterable):
        raise UserError(f"{which!r} are no features", mend="Use a name, a number, a range, or a list of them")
    return [_place(entry, known) for entry in listed]


def _place(entry: Any, known: Sequence[str]) -> int:
    if isinstance(entry, str):
        if entry not in known:
            raise UserError(f"no feature is called {entry!r}", mend=near(entry, known))
        if known.count(entry) > 1:
            raise UserError(f"{known.count(entry)} features are called {entry!r}", mend="give their places")
        return known.index(entry)
    if (
        isinstance(entry, bool)
        or not isinstance(entry, int | np.integer)
        or not -len(known) <= entry < len(known)
    ):
        raise UserError(
            f"there is no feature {entry}", mend=f"give a name, or a place from 0 to {len(known) - 1}"
        )
    return int(entry)


def class_places(which: int | str, index: Array, texts: Array) -> Array:
    """Where each sample's classes have one of them, [N].

    Args:
        which: the class by its name or number.
        index: the explained classes' numbers [N, K].
        texts: their names, likewise.

    Raises:
        UserError: it isn't explained for each sample.
    """
    hits = texts == which if isinstance(which, str) else index == which
    if not hits.any(axis=1).all():
        known = near(str(which), sorted(set(map(str, texts.ravel()))))
        raise UserError(f"class {which!r} isn't explained for each sample", mend=known)
    if len(set(index[hits].tolist())) > 1 and (hits.sum(axis=1) > 1).any():
        raise UserError(f"several of the explained classes are called {which!r}", mend="give the number")
    return np.asarray(hits.argmax(axis=1))
