"""The reference set: what a sample is compared with.  Read once, checked before any work is done with it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import sympy

from irshap.contract import ONLY
from irshap.errors import ReferencesError, UserError
from irshap.ir.types import Array, TensorType
from irshap.runtime.arrays import Arrays, Source, as_arrays, conform, unknown_names
from irshap.runtime.frames import columns_by_input, in_order

__all__ = ["References", "check_references", "check_weights", "read_groups"]


@dataclass(frozen=True, eq=False)
class References:
    """Samples to compare with, and a weight for each; or word that every sample brings its own.

    Attributes:
        samples: an array [R, ...] where only one input needs references; otherwise a mapping from input names
            to arrays, all with the same count R.  Or the path of a .npy or .npz file with them; pickled
            objects are never loaded.  None: no references.
        weights: a weight for each reference [R], not negative, or the path of a .npy file; scaled to sum
            to 1.  None: equal weights.
        per_sample: whether every sample brings R references of its own, such as shuffles of its sequence.
            The compiled model takes them at run time, as inputs `<input>_references` [N, R, ...]; none are
            given to `compile`.
    """

    samples: Source = None
    weights: Any = None
    per_sample: bool = False
    arrays: Arrays = field(init=False, repr=False)
    """What was read, by input; nothing else is known of the model yet."""

    def __post_init__(self) -> None:
        arrays: Arrays = {}
        if self.samples is not None:
            arrays = as_arrays(self.samples, [ONLY], ReferencesError, "references")
        object.__setattr__(self, "arrays", arrays)

    @staticmethod
    def of(given: Source | References) -> References:
        """`given` as References, read if it is a path.

        Raises:
            ReferencesError: a file that can't be read, or no array.
        """
        return given if isinstance(given, References) else References(given)

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """What the columns of DataFrames are called, by input; of other samples none is."""
        return columns_by_input(self.samples)

    def in_order(self, features: Mapping[str, Sequence[str]]) -> References:
        """With the columns of DataFrames in the order of their inputs' features, where they are called so.

        Args:
            features: by input; one list without a name is for the only input.

        Raises:
            ReferencesError: some of them are missing.
        """
        if not features or not self.columns:
            return self
        if not isinstance(self.samples, Mapping):
            known = next(iter(features.values()))
            return replace(self, samples=in_order(self.samples, known, ReferencesError, "references"))
        found = dict(self.samples)
        for name in self.columns:
            known = features.get(name, features.get(ONLY, ()) if len(found) == 1 else ())
            if known:
                found[name] = in_order(found[name], known, ReferencesError, f"references {name!r}")
        return replace(self, samples=found)

    @property
    def count(self) -> int:
        """How many references are given: R."""
        axis = int(self.per_sample)
        return max((a.shape[axis] for a in self.arrays.values() if a.ndim > axis), default=0)

    def named(self, names: Collection[str]) -> Arrays:
        """The arrays by input; one without a name is for the only one of `names`."""
        if set(self.arrays) != {ONLY}:
            return self.arrays
        given = self.arrays[ONLY] if isinstance(self.samples, str | os.PathLike) else self.samples
        return as_arrays(given, list(names), ReferencesError, "references")


def read_groups(source: Source) -> Arrays:
    """Groups of cells by input, "" for an array without a name; what they fit is checked by the method.

    Raises:
        UserError: a file that can't be read, or no array.
    """
    return {} if source is None else as_arrays(source, [ONLY], UserError, "groups")


def check_references(
    references: Source | References,
    inputs: Mapping[str, TensorType],
    required: Collection[str],
    held: Collection[str] = (),
    unused: Collection[str] = (),
) -> Arrays:
    """The references by input, checked against the model.

    Args:
        references: as `References` takes them.  The axes after the first are those of the input.  Floats of
            another width than the input's are converted; integers are refused where the input is float,
            because they are mostly pixels that someone forgot to scale.
        inputs: the model's inputs that may have references, with their types; the first axis is the batch.
        required: the names of those that must have them.
        held: the names of the model's other inputs, which take none.
        unused: those among the others that nothing explained depends on: theirs are left aside.

    Returns:
        Arrays of the inputs' dtypes, R rows each.

    Raises:
        ReferencesError: a missing or unknown input, a wrong shape, dtype or count, no row, NaN or infinity.
    """
    named = References.of(references).named(sorted(required) or sorted(inputs))
    given = {name: array for name, array in named.items() if name not in unused}
    for name in held:
        if name in given:
            raise ReferencesError(
                f"input {name!r} takes no references: it is not attributed, so it keeps the sample's value",
                mend="Leave them out",
            )
    unknown_names(given, list(inputs), ReferencesError, "references")
    if missing := [name for name in inputs if name in required and name not in given]:
        raise ReferencesError(
            f"no references for input {', '.join(map(repr, missing))}",
            mend="give an array [R, ...] of typical samples for each (for attributions against zero, "
            "one row of zeros), or hold it at the sample's value: target=Target(context=...), --context",
        )
    checked: Arrays = {}
    symbols: dict[sympy.Expr, tuple[int, str]] = {}
    for name, array in given.items():
        where = f"references for input {name!r}"
        checked[name] = _check(array, inputs[name], symbols, where)
    counts = {name: len(array) for name, array in checked.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        mend = "reference i of one input goes with reference i of the others: give as many for each"
        raise ReferencesError(f"the inputs have different numbers of references ({listed})", mend=mend)
    return checked


def _check(array: Array, type: TensorType, symbols: dict[sympy.Expr, tuple[int, str]], where: str) -> Array:
    if type.shape is not None and not type.shape:
        raise ReferencesError(
            "the input has no axis for the batch",
            where=where,
            mend="hold it: target=Target(context=...), --context",
        )
    inner = None if type.shape is None else [d if isinstance(d, int) else str(d) for d in type.shape[1:]]
    array = conform(array, type.dtype.numpy, None if inner is None else ["R", *inner], ReferencesError, where)
    if array.ndim == 0 or len(array) == 0:
        raise ReferencesError(
            "there is no reference: the first axis is empty", where=where, mend="give at least one"
        )
    for axis, dim in enumerate(type.shape or ()):
        if axis > 0 and isinstance(dim, sympy.Symbol):
            size, other = symbols.setdefault(dim, (array.shape[axis], where))
            if size != array.shape[axis]:
                what = f"axis {axis} has size {array.shape[axis]}, but {dim} is {size} in the {other}"
                raise ReferencesError(what, where=where)
    if type.dtype.is_float:
        _require_finite(array, where)
    return array


def _require_finite(array: Array, where: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        first = [int(i) for i in np.argwhere(bad)[0]]
        count = int(np.count_nonzero(bad))
        raise ReferencesError(
            f"{count} of {array.size} values are NaN or infinite, the first at {first}",
            where=where,
            mend=f"drop reference {first[0]} or mend its values",
        )


def check_weights(weights: Any, count: int) -> Array | None:
    """Weights of `count` references as float64 [R], scaled to sum to 1; None stays None (equal weights).

    Raises:
        ReferencesError: wrong count, negative or not finite, or all zero.
    """
    if weights is None:
        return None
    where = "reference weights"
    array = next(iter(as_arrays(weights, ["weights"], ReferencesError, where).values()))
    if array.dtype.kind not in "fiu" or array.shape != (count,):
        what = f"have dtype {array.dtype} and shape {list(array.shape)}, wanted are {count} numbers"
        raise ReferencesError(what, where=where, mend="one weight for each reference")
    array = array.astype(np.float64)
    _require_finite(array, where)
    if (array < 0).any() or not array.sum() > 0:
        raise ReferencesError(
            "must not be negative, nor all zero", where=where, mend="leave such references out"
        )
    return np.asarray(array / array.sum())
