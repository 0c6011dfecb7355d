"""References made of data: some of it, its centres, or what says nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from irshap.compiler.references import References
from irshap.contract import ONLY
from irshap.errors import ReferencesError, UserError, near
from irshap.extras import optional
from irshap.ir.types import Array
from irshap.runtime.arrays import Arrays, as_arrays
from irshap.runtime.frames import Frame, columns_by_input
from irshap.runtime.sizes import is_whole

__all__ = ["KINDS", "concerns", "make_references"]

Rng: TypeAlias = np.random.Generator


def make_references(
    data: Any,
    kind: str,
    count: int = 20,
    *,
    seed: int = 0,
    pad: int = 0,
    sigma: float | None = None,
    per_sample: bool = False,
) -> References:
    """References of a kind, from data [N, ...] by input (or a path of .npy or .npz).

    Those made of a DataFrame keep the names of its columns.

    Args:
        kind: one of `KINDS`: "sample" takes rows, "kmeans" the centres of clusters, weighted by their sizes;
            "mean" and "zeros" are one row; "blur" takes rows of pictures and blurs them; "shuffle" takes
            rows and permutes their positions, "dinucleotide-shuffle" so that pairs of neighbours stay as
            frequent; "padding" is a row of the token that fills sequences up.
        count: how many, for those that take rows or clusters.
        seed: of what is drawn.
        pad: the id of that token.
        sigma: of the blur, in pixels; None: an eighth of the larger side.
        per_sample: every row's own references [N, count, ...], from a kind that changes rows: what samples
            bring at run time (`References(per_sample=True)`).

    Raises:
        ReferencesError: no such kind, or none that `per_sample` takes, data that has no such form, fewer rows
            than `count`, a negative seed, NaN; or scikit-learn, which finds clusters, is missing.
    """
    if kind not in KINDS:
        raise ReferencesError(f"no kind of references is called {kind!r}", mend=near(str(kind), KINDS))
    if not is_whole(count, 1):
        raise ReferencesError(f"{count!r} references", mend="give a whole number, at least 1")
    if not is_whole(seed, 0):
        raise ReferencesError(f"the seed is {seed!r}", mend="give a whole number, 0 or more")
    arrays = as_arrays(data, [ONLY], ReferencesError, "data")
    _check(arrays)
    made = _made(arrays, kind, count, seed, pad, sigma, per_sample)
    # a DataFrame's columns keep their names: `compile` takes them in the order of the model's features
    called = columns_by_input(data)
    samples = {name: Frame(a, called[name]) if name in called else a for name, a in made.arrays.items()}
    return replace(made, samples=_as_given(samples))


def _made(
    arrays: Arrays, kind: str, count: int, seed: int, pad: int, sigma: float | None, per_sample: bool
) -> References:
    """References of arrays."""
    rng = np.random.default_rng(seed)
    if kind == "kmeans" and not per_sample:
        return _clusters(arrays, count, seed)
    if kind in ("mean", "zeros", "padding") and not per_sample:
        return References(_as_given({name: _single(kind, a, pad) for name, a in arrays.items()}))
    change = _CHANGES.get(kind)
    if per_sample and change is None:
        mend = f"give {', '.join(_CHANGES)}"
        raise ReferencesError(f"{kind} makes no references of a single sample", mend=mend)
    rows = _repeated(arrays, count) if per_sample else _drawn(arrays, count, rng)
    if change is not None:
        rows = {
            name: change(a, rng, sigma, f"data{f' {name!r}' if name else ''}") for name, a in rows.items()
        }
    if per_sample:
        rows = {name: a.reshape(-1, count, *a.shape[1:]) for name, a in rows.items()}
    return References(_as_given(rows), per_sample=per_sample)


def _check(arrays: Arrays) -> None:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        listed = ", ".join(f"{name or 'data'}: {n}" for name, n in counts.items())
        what = f"data needs rows, and equally many for all inputs ({listed})"
        raise ReferencesError(what, mend="give arrays [N, ...] of the same N")
    for name, array in arrays.items():
        where = f"data {name!r}" if name else "data"
        if array.dtype.kind not in "fiub":
            what = f"has dtype {array.dtype}, which holds no numbers"
            raise ReferencesError(what, where=where, mend="leave out texts and dates, or encode them")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            first = np.argwhere(~np.isfinite(array))[0].tolist()
            mend = f"drop row {first[0]} or mend its values"
            raise ReferencesError(f"has NaN or infinity, the first at {first}", where=where, mend=mend)


def _as_given(arrays: Mapping[str, Any]) -> Any:
    return arrays[ONLY] if set(arrays) == {ONLY} else arrays


def _single(kind: str, array: Array, pad: int) -> Array:
    """One row, of the data's type."""
    if kind == "zeros":
        return np.zeros_like(array[:1])
    if kind == "padding":
        if array.dtype.kind not in "iu":
            what = f"padding is for token ids, and data has dtype {array.dtype}"
            raise ReferencesError(what, mend="take zeros or mean, or give integers")
        return np.full_like(array[:1], pad)
    if array.dtype.kind != "f":
        what = f"data has dtype {array.dtype}, of which a mean has no meaning"
        raise ReferencesError(what, mend="take a sample, or give pixels as floats, scaled as in training")
    return np.asarray(array.mean(axis=0, keepdims=True, dtype=np.float64).astype(array.dtype))


def _drawn(arrays: Arrays, count: int, rng: Rng) -> Arrays:
    rows = len(next(iter(arrays.values())))
    if count > rows:
        raise ReferencesError(f"{count} references of {rows} rows of data", mend=f"give -n {rows} or fewer")
    chosen = np.sort(rng.choice(rows, count, replace=False))
    return {name: array[chosen] for name, array in arrays.items()}


def _repeated(arrays: Arrays, count: int) -> Arrays:
    return {name: np.repeat(array, count, axis=0) for name, array in arrays.items()}


def _clusters(arrays: Arrays, count: int, seed: int) -> References:
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            where = f"data {name!r}" if name else "data"
            mend = "take a sample, or give pixels as floats, scaled as in training"
            raise ReferencesError(f"has dtype {array.dtype}, which has no centres", where=where, mend=mend)
    rows = len(next(iter(arrays.values())))
    flat = np.concatenate([a.reshape(rows, -1).astype(np.float64) for a in arrays.values()], axis=1)
    distinct = len(np.unique(flat, axis=0))
    if count > distinct:
        what = f"{count} clusters of {distinct} different rows of data"
        raise ReferencesError(what, mend=f"give -n {distinct} or fewer")
    cluster = optional("sklearn.cluster", "scikit-learn", "sklearn", "kmeans")
    found = cluster.KMeans(count, n_init=4, random_state=seed).fit(flat)
    sizes = np.bincount(found.labels_, minlength=count)
    widths = np.cumsum([a[0].size for a in arrays.values()])[:-1]
    parts = np.split(found.cluster_centers_, widths, axis=1)
    centres = {
        name: part.reshape(count, *array.shape[1:]).astype(array.dtype)
        for (name, array), part in zip(arrays.items(), parts, strict=True)
    }
    return References(_as_given(centres), sizes / sizes.sum())


def _shape(rows: Array) -> str:
    """As messages tell it: how many rows there are is none of their form."""
    return f"[{', '.join(map(str, ('N', *rows.shape[1:])))}]"


def _blurred(rows: Array, rng: Rng, sigma: float | None, where: str) -> Array:
    """A Gaussian blur over height and width; at the border the picture goes on as its edge."""
    if rows.dtype.kind != "f" or rows.ndim not in (3, 4):
        what = f"of dtype {rows.dtype} and shape {_shape(rows)} are no pictures"
        raise ReferencesError(what, where=where, mend="give floats [N, C, H, W], [N, H, W, C] or [N, H, W]")
    last = rows.ndim == 4 and rows.shape[3] in (1, 3, 4) and rows.shape[1] not in (1, 3, 4)
    axes = (1, 2) if last or rows.ndim == 3 else (2, 3)
    wide = max(rows.shape[a] for a in axes) / 8 if sigma is None else sigma
    if not wide > 0:
        raise ReferencesError(f"sigma={wide} blurs nothing", mend="give a positive number of pixels")
    reach = int(np.ceil(3 * wide))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / wide) ** 2)
    kernel /= kernel.sum()
    found = rows.astype(np.float64)
    for axis in axes:
        padded = np.pad(
            found, [(reach, reach) if a == axis else (0, 0) for a in range(rows.ndim)], mode="edge"
        )
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis=axis)
        found = windows @ kernel
    return np.asarray(found.astype(rows.dtype))


def _letters(rows: Array, where: str) -> tuple[Array, int | None, int]:
    """Sequences as integers [N, L]; where they were one-hot the axis of letters, and how many there are."""
    if rows.dtype.kind in "iu" and rows.ndim == 2 and rows.size:
        return rows, None, 0
    for axis in (2, 1) if rows.ndim == 3 and rows.size else ():
        if ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=axis) == 1).all():
            return rows.argmax(axis=axis), axis, rows.shape[axis]
    what = f"of shape {_shape(rows)} are no sequences of letters"
    raise ReferencesError(what, where=where, mend="give one-hot [N, L, 4] or [N, 4, L], or ids [N, L]")


def _shuffled_pairs(rows: Array, rng: Rng, sigma: float | None, where: str) -> Array:
    """Each sequence as another with the same first letter and the same pairs of neighbours.

    Every letter's successors are permuted but for its last one: the walk over them then ends where the
    sequence did, with no pair left (as dinuc_shuffle of Kundaje's group, after Altschul and Erickson 1985).
    """
    letters, axis, count = _letters(rows, where)
    found = np.stack([_walk(sequence, rng) for sequence in letters])
    if axis is None:
        return found
    hot = np.eye(count, dtype=rows.dtype)[found]
    return hot if axis == 2 else np.ascontiguousarray(hot.transpose(0, 2, 1))


def _walk(sequence: Array, rng: Rng) -> Array:
    after: dict[int, list[int]] = {}
    for position, letter in enumerate(sequence[:-1].tolist()):
        after.setdefault(letter, []).append(position + 1)
    for letter, places in after.items():
        after[letter] = [*rng.permutation(places[:-1]).tolist(), places[-1]]
    steps = {letter: iter(places) for letter, places in after.items()}
    at, walk = 0, [0]
    for _ in range(len(sequence) - 1):
        at = next(steps[int(sequence[at])])
        walk.append(at)
    return np.asarray(sequence[walk])


def _shuffled(rows: Array, rng: Rng, sigma: float | None, where: str) -> Array:
    """Each row with its positions permuted: a table's features, a picture's pixels with their channels."""
    if rows.ndim == 4 and rows.shape[1] in (1, 3, 4):
        flat = rows.reshape(*rows.shape[:2], -1)
        return np.stack([r[:, rng.permutation(flat.shape[2])] for r in flat]).reshape(rows.shape)
    if rows.ndim < 2:
        raise ReferencesError("has no positions to shuffle", where=where, mend="give rows of several: [N, F]")
    hot = rows.ndim == 3 and ((rows == 0) | (rows == 1)).all() and (rows.sum(axis=1) == 1).all()
    axis = 2 if hot else 1
    return np.stack([np.take(r, rng.permutation(rows.shape[axis]), axis=axis - 1) for r in rows])


_CHANGES: dict[str, Callable[[Array, Rng, float | None, str], Array]] = {
    "blur": _blurred,
    "shuffle": _shuffled,
    "dinucleotide-shuffle": _shuffled_pairs,
}

KINDS = ("kmeans", "sample", "mean", "zeros", *_CHANGES, "padding")


def concerns(references: References, data: Any = None, samples: Any = None) -> list[str]:
    """What may be wrong with references: equal ones, values that data never has, samples among them.

    Args:
        data: [N, ...] by input, such as the training set.
        samples: those that will be explained.

    Raises:
        UserError: arrays whose rows have another shape.
    """
    found = []
    known = {**columns_by_input(data), **references.columns}
    for name, array in references.arrays.items():
        what = f"references for {name!r}" if name else "references"
        rows = array.reshape(len(array), -1)
        if (same := len(rows) - len(np.unique(rows, axis=0))) and len(references.arrays) == 1:
            found.append(f"{same} of {len(rows)} {what} equal another: weights say the same at less cost")
        for given, where in ((data, "data"), (samples, "samples")):
            if given is None:
                continue
            others = _rows_of(given, name, rows.shape[1], where, known)
            if where == "data":
                low, high = others.min(axis=0), others.max(axis=0)
                slack = 1e-6 * np.abs(np.maximum(np.abs(low), np.abs(high)))
                outside = ((rows < low - slack) | (rows > high + slack)).any(axis=0)
                if outside.any():
                    first = list(map(int, np.unravel_index(int(outside.argmax()), array.shape[1:])))
                    found.append(
                        f"{what} have values that the data never has, in {int(outside.sum())} of "
                        f"{rows.shape[1]} features, the first at {first}"
                    )
            else:
                there = {row.tobytes() for row in np.ascontiguousarray(rows)}
                equal = [i for i, row in enumerate(np.ascontiguousarray(others)) if row.tobytes() in there]
                if equal:
                    found.append(f"sample {equal[0]} is among the {what}, and {len(equal) - 1} more")
    return found


def _rows_of(
    given: Mapping[str, Any] | Any, name: str, width: int, where: str, features: Mapping[str, Sequence[str]]
) -> Array:
    arrays = as_arrays(given, [name], UserError, where, features)
    if name not in arrays:
        raise UserError(f"no {where} for input {name!r}", mend=f"there: {', '.join(arrays)}")
    array = arrays[name]
    rows = array.reshape(len(array), -1) if array.ndim else array.reshape(0, 0)
    if not len(rows) or rows.shape[1] != width:
        what = f"{where} of shape {list(array.shape)} have other features than references"
        raise UserError(what, mend=f"give rows of {width} numbers, as references have")
    return rows
