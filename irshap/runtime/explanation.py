"""What an explained model says about N samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irshap import contract
from irshap.errors import UserError
from irshap.runtime.arrays import Array, Arrays

__all__ = ["Explanation"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attributions of N samples; shapes and names as in SHAP, so that its plots take `to_shap()`.

    Attributes:
        values: attributions, an array [N, ...] of the attributed input's shape, or for several attributed
            inputs a dict of them; with K classes at once [N, K, ...].  In the unit of the explained output.
        base_values: mean output of the target over the references, [N] or [N, K]; None for the gradient.
        data: the samples, as `values` (an attributed tensor that is no input is left out).
        outputs: the model's own outputs by name.
        target_index: the explained class (int64), [N] or [N, K]; None where a sum is explained.
        target_values: the explained numbers f(x), [N] or [N, K]; None when the file doesn't say what it is.
        completeness_error: f(x) - base_values - sum of attributions, [N] or [N, K]: 0 up to rounding; None
            where that sum has no meaning (the gradient).
        raw: everything that the explained model returned, by output name.
    """

    values: Array | Arrays
    base_values: Array | None
    data: Array | Arrays
    outputs: Arrays
    target_index: Array | None
    target_values: Array | None
    completeness_error: Array | None
    raw: Arrays = field(repr=False)

    @classmethod
    def of(
        cls,
        raw: Arrays,
        feed: Mapping[str, Array],
        explained: str | None,
        tensors: contract.Tensors | None = None,
        axes: Mapping[str, int] | None = None,
    ) -> Explanation:
        """Reads a model's outputs.

        Args:
            raw: all outputs by name.
            feed: what the model was given.
            explained: the name of the explained output, where it is known.
            tensors: which output is what; None: as their names say.
            axes: inputs and outputs that count samples on another axis than the first, and on which.
        """
        roles = contract.Tensors.by_name(feed, raw) if tensors is None else tensors
        places = axes or {}
        values = {of: raw[name] for of, name in roles.attributions.items()}
        outputs = {name: array for name, array in raw.items() if name not in roles.outputs}
        data = {name: np.moveaxis(feed[name], places.get(name, 0), 0) for name in values if name in feed}
        told = (roles.target_index, roles.target_values, roles.base_values, roles.completeness_error)
        index, target, base, error = (None if name is None else raw[name] for name in told)
        if target is None and explained is not None and index is not None:
            target = _picked(outputs.get(explained), index, places.get(explained, 0))
        if error is None and base is not None and target is not None:
            error = target.astype(np.float64) - base - _total(values, _class_axes(index, target))
        single = len(values) == 1
        return cls(
            values=next(iter(values.values())) if single else values,
            base_values=base,
            data=next(iter(data.values())) if single and data else data,
            outputs=outputs,
            target_index=index,
            target_values=target,
            completeness_error=error,
            raw=raw,
        )

    def __len__(self) -> int:
        first = next(iter(self.raw.values()))
        return len(first if self.target_index is None else self.target_index)

    def total(self) -> Array:
        """The sum of each sample's attributions over all attributed inputs, in float64: [N] or [N, K]."""
        values = self.values if isinstance(self.values, dict) else {"": self.values}
        return _total(values, _class_axes(self.target_index, self.target_values))

    def to_shap(self) -> Any:
        """A `shap.Explanation` (one attributed input; the package shap must be installed)."""
        if isinstance(self.values, dict):
            raise UserError("shap's Explanation holds one input", mend="take one of .values apart")
        import shap  # type: ignore[import-not-found, unused-ignore]

        several = _class_axes(self.target_index, self.target_values)
        values = np.moveaxis(self.values, 1, -1) if several else self.values
        return shap.Explanation(values=values, base_values=self.base_values, data=self.data)


def _class_axes(index: Array | None, target: Array | None) -> int:
    """How many axes for classes stand behind the batch."""
    told = target if index is None else index
    return 0 if told is None or told.ndim < 2 else 1


def _total(values: Mapping[str, Array], classes: int) -> Array:
    total: Any = 0.0
    for array in values.values():
        total = total + array.sum(axis=tuple(range(1 + classes, array.ndim)), dtype=np.float64)
    return np.asarray(total)


def _picked(output: Array | None, index: Array, axis: int) -> Array | None:
    """The explained numbers of an output, which counts as flattened to [N, ...]; shaped as `index`."""
    if output is None:
        return None
    rows = np.moveaxis(output, axis, 0).reshape(len(index), -1)
    picked = np.take_along_axis(rows, index if index.ndim == 2 else index[:, None], axis=1)
    return picked if index.ndim == 2 else picked[:, 0]
