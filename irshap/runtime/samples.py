"""What samples may hold: numbers that something can be attributed to, and classes that exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from irshap.errors import TargetError, UserError
from irshap.runtime.arrays import Array

__all__ = ["class_indices", "not_finite", "require_finite_results", "require_own", "require_references"]


def require_finite_results(
    feed: Mapping[str, Array], axes: Mapping[str, int], results: Iterable[Array]
) -> None:
    """Refuses NaN and infinity in samples, where they reach what is explained.

    Those that don't are the model's business: numbers that an imputer replaces, the -inf of a mask.

    Args:
        feed: what the model was given.
        axes: its inputs whose samples are on another axis than the first, and on which.
        results: attributions and base values, samples first.

    Raises:
        UserError: says which input, sample and element.
    """
    strange = {name: places for name, array in feed.items() if len(places := not_finite(array))}
    if not strange:
        return
    lost = {int(row[0]) for array in results if array.ndim for row in not_finite(array)}
    for name, places in strange.items():
        axis = axes.get(name, 0)
        for place in places:
            sample = int(place[axis])
            if sample in lost:
                value = feed[name][tuple(place)]
                element = [int(i) for i in np.delete(place, axis)]
                raise UserError(
                    f"sample {sample} holds {value} at {element}, which has no distance to a reference",
                    where=f"input {name!r}",
                    mend=f"leave out sample {sample} or mend its values ({len(places)} in all)",
                )


def require_references(given: Mapping[str, Array], axes: Mapping[str, int]) -> None:
    """Refuses references at run time that are none, not equally many for all inputs, NaN or infinite.

    Args:
        given: by their inputs of the explained model.
        axes: the axis of each that counts references: 1 where every sample brings its own.

    Raises:
        UserError: says which.
    """
    counts = {name: array.shape[axes[name]] for name, array in given.items()}
    if empty := [name for name, count in counts.items() if not count]:
        raise UserError("there is no reference", where=f"input {empty[0]!r}", mend="give at least one")
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        what = f"the inputs have different numbers of references ({listed})"
        raise UserError(what, mend="give as many for each input")
    for name, array in given.items():
        if len(places := not_finite(array)):
            first = [int(i) for i in places[0]]
            what = f"{len(places)} of {array.size} values are NaN or infinite, the first at {first}"
            raise UserError(what, where=f"input {name!r}", mend="drop such references or mend their values")


def require_own(array: Array, rank: int, where: str) -> None:
    """Refuses references that all samples share, where each sample brings its own.

    Args:
        rank: how many axes [N, R, ...] they should have.

    Raises:
        UserError: the axis of samples is missing.
    """
    if array.ndim == rank - 1:
        what = f"has shape {list(array.shape)}, and every sample brings its own references: [N, R, ...]"
        mend = "for the same for all samples compile with them, or give numpy.repeat(array[None], N, axis=0)"
        raise UserError(what, where=where, mend=mend)


def not_finite(array: Array) -> Array:
    """The places of NaN and infinity, [places, axes]."""
    if array.dtype.kind != "f":
        return np.empty((0, array.ndim), np.int64)
    return np.argwhere(~np.isfinite(array))


def class_indices(given: Array, count: int, classes: int | None, where: str) -> Array:
    """Classes to explain, one for each of `count` samples, not negative.

    Args:
        given: integers [N], or one for all samples [].
        classes: how many the explained output has, None where it isn't known.

    Raises:
        TargetError: another number of them, or a class that doesn't exist.
    """
    if given.ndim == 0:
        given = np.broadcast_to(given, (count,))
    if given.shape != (count,):
        raise TargetError(
            f"has shape {list(given.shape)} for {count} samples",
            where=where,
            mend="give one class for each sample, or a single number for all",
        )
    if classes is None or given.dtype.kind not in "iu":
        return given
    if wrong := [i for i, index in enumerate(given) if not -classes <= index < classes]:
        mend = "Use 0" if classes == 1 else f"Use 0 to {classes - 1}"
        raise TargetError(
            f"class {given[wrong[0]]} for sample {wrong[0]}: the output has {classes} classes",
            where=where,
            mend=mend,
        )
    return np.asarray(np.where(given < 0, given + classes, given))
