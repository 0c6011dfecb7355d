"""What an explained model's outputs say, and whether they can be its outputs at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irshap.contract import Tensors
from irshap.errors import ModelError
from irshap.runtime.arrays import Array, Arrays

__all__ = ["TOLD", "TOLERANCES", "class_axes", "completeness_error", "explained_numbers", "fit_together"]
__all__ += ["relative_error", "total", "yardstick"]


TOLD = ("target_index", "target_values", "base_values", "completeness_error")
"""What may be told of each sample, or of each of its classes."""


def explained_numbers(
    raw: Arrays, roles: Tensors, explained: str | None, axis: int
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """The explained class, f(x), base values and completeness error: each [N] or [N, K], None if not told.

    Args:
        raw: all outputs by name.
        roles: which output is what.
        explained: the name of the explained output, where it is known.
        axis: on which axis it counts samples.

    Raises:
        ModelError: outputs that are no such things, whatever the file says of them.
    """
    names = {role: name for role in TOLD if (name := getattr(roles, role)) is not None}
    told = {role: raw[name] for role, name in names.items()}
    values = {name: raw[name] for name in roles.attributions.values()}
    if not fit_together(told, values):
        arrays = [*((name, raw[name]) for name in names.values()), *values.items()]
        listed = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in arrays)
        mend = "compile the model again"
        raise ModelError(f"its outputs don't fit together: {listed}", where="explained model", mend=mend)
    index, target, base, error = map(told.get, TOLD)
    own = raw.keys() - roles.outputs
    if target is None and index is not None and explained is not None and explained in own:
        target = _picked(raw[explained], index, axis)
    return index, target, base, error


def completeness_error(
    target: Array | None, base: Array | None, values: Mapping[str, Array], classes: int
) -> Array | None:
    """f(x) - base - sum of attributions, in float64; None where one of them isn't told."""
    if base is None or target is None:
        return None
    return np.asarray(target.astype(np.float64) - base - total(values, classes))


TOLERANCES = {2: 2e-2, 4: 1e-4, 8: 1e-9}
"""By the bytes of a float: up to which share of `yardstick` attributions count as summing up."""


def yardstick(prediction: Any, base: Any) -> Any:
    """What a completeness error is measured by: |f(x) - base|, or |f(x)| / 1000 where that is more."""
    return np.maximum(np.abs(prediction - base), np.abs(prediction) / 1000)


def relative_error(error: Any, prediction: Any, base: Any) -> Any:
    """What `--max-error` limits: |error| / max(1, |f(x) - base|); |error| where one of these isn't told."""
    if prediction is None or base is None:
        return np.abs(error)
    return np.abs(error) / np.maximum(1.0, np.abs(np.subtract(prediction, base, dtype=np.float64)))


def class_axes(index: Array | None, target: Array | None) -> int:
    """How many axes for classes stand behind the batch."""
    told = target if index is None else index
    return 0 if told is None or told.ndim < 2 else 1


def total(values: Mapping[str, Array], classes: int) -> Array:
    """The sum of each sample's attributions over all tensors, in float64."""
    found: Any = 0.0
    for array in values.values():
        found = found + array.sum(axis=tuple(range(1 + classes, array.ndim)), dtype=np.float64)
    return np.asarray(found)


def fit_together(told: Arrays, values: Arrays) -> bool:
    """Whether what is told of samples and their classes, and attributions, are of the same ones.

    Where there are classes, something tells of each which it is.
    """
    heads = {array.shape for array in told.values()}
    head = next(iter(heads), ())
    kinds = {"target_index": "iu"}
    return (
        len(heads) <= 1
        and len(head) <= 2
        and (len(head) < 2 or not told.keys().isdisjoint(("target_index", "target_values")))
        and all(array.dtype.kind in kinds.get(name, "f") for name, array in told.items())
        and all(a.ndim and a.dtype.kind == "f" and a.shape[: len(head)] == head for a in values.values())
    )


def _picked(output: Array, index: Array, axis: int) -> Array:
    """The explained numbers of an output, which counts as flattened to [N, ...]; shaped as `index`."""
    rows = np.moveaxis(output, axis, 0).reshape(len(index), -1)
    if index.size and not -rows.shape[1] <= index.min() <= index.max() < rows.shape[1]:
        what = f"it tells of a class {index.max()}, and its output has {rows.shape[1]}"
        raise ModelError(what, where="explained model", mend="compile the model again")
    picked = np.take_along_axis(rows, index if index.ndim == 2 else index[:, None], axis=1)
    return picked if index.ndim == 2 else picked[:, 0]
