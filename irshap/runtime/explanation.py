"""What an explained model says about N samples."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from irshap import contract
from irshap.errors import UserError
from irshap.runtime import archive, interop, reading, summary
from irshap.runtime.arrays import Array, Arrays
from irshap.runtime.labels import (
    LABEL_KINDS,
    class_names,
    feature_names,
    flat_names,
    label_texts,
    sample_labels,
    token_names,
)
from irshap.runtime.selection import class_places, each, feature_places, sample_rows

__all__ = ["Explanation"]


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Attributions of N samples; shapes and names as in SHAP, so that its plots take `to_shap()`.

    `e[3]` and `e[2:5]` are explanations of these samples, `e[:, "age"]` of some features along the last axis,
    `e.of_class("cat")` of one class where several are explained.

    Attributes:
        values: attributions, an array [N, ...] of the attributed input's shape, or for several attributed
            inputs a dict of them; with K classes at once [N, K, ...].  In the unit of the explained output.
        base_values: mean output of the target over the references, [N] or [N, K]; None for the gradient.
        data: the samples, as `values` (an attributed tensor that is no input is left out).
        outputs: the model's own outputs by name.
        target_index: the explained class (int64), [N] or [N, K]; None where a sum is explained.
        target_values: the explained numbers f(x), [N] or [N, K]; None when the file doesn't say what it is.
        completeness_error: f(x) - base_values - sum of attributions, [N] or [N, K]: 0 up to rounding; None
            where that sum has no meaning (the gradient, or some features alone).
        raw: everything that the explained model returned, by output name; empty for a part of it.
        names: what people call features, classes and tokens.
        multipliers: what each element's difference is multiplied with, mean over the references, as `values`;
            None where the file wasn't compiled with them (deeplift{emit=multipliers}).
        hypothetical: what each letter would get at each position of one-hot inputs, as `values`; of several
            inputs those that were said to have letters; None likewise (emit=hypothetical).
        inputs: the names of the attributed tensors.
        axes: the axis on which an output counts samples, where that isn't the first; None: on none.
        labels: what people call the samples, [N] of texts, numbers or dates: the index of an explained
            DataFrame, or what `with_labels` was given; None: they have numbers.
    """

    values: Array | Arrays
    base_values: Array | None
    data: Array | Arrays
    outputs: Arrays
    target_index: Array | None
    target_values: Array | None
    completeness_error: Array | None
    raw: Arrays
    multipliers: Array | Arrays | None = None
    hypothetical: Array | Arrays | None = None
    names: contract.Names = field(default_factory=contract.Names)
    inputs: tuple[str, ...] = ("x",)
    axes: Mapping[str, int | None] = field(default_factory=dict)
    labels: Array | None = None

    @classmethod
    def of(
        cls,
        raw: Arrays,
        feed: Mapping[str, Array],
        explained: str | None,
        tensors: contract.Tensors | None = None,
        axes: Mapping[str, int | None] | None = None,
        names: contract.Names | None = None,
    ) -> Explanation:
        """Reads a model's outputs.

        Args:
            raw: all outputs by name.
            feed: what the model was given.
            explained: the name of the explained output, where it is known.
            tensors: which output is what; None: as their names say.
            axes: on which axis inputs and outputs count samples, where not on the first; None: on none.
            names: what people call features, classes and tokens.

        Raises:
            ModelError: outputs that are no such things, whatever the file says of them.
        """
        roles = contract.Tensors.by_name(feed, raw) if tensors is None else tensors
        places = axes or {}
        values = {of: raw[name] for of, name in roles.attributions.items()}
        outputs = {name: array for name, array in raw.items() if name not in roles.outputs}
        data = {name: np.moveaxis(feed[name], places.get(name) or 0, 0) for name in values if name in feed}
        axis = places.get(explained or "") or 0
        index, target, base, error = reading.explained_numbers(raw, roles, explained, axis)
        if error is None:
            classes = reading.class_axes(index, target)
            error = reading.completeness_error(target, base, values, classes)
        single = len(values) == 1
        more = {kind: {of: raw[name] for of, name in getattr(roles, kind).items()} for kind in _ON_REQUEST}
        return cls(
            values=_alone(values, single),
            base_values=base,
            data=_alone(data, single),
            **{kind: _alone(arrays, single) for kind, arrays in more.items() if arrays},
            outputs=outputs,
            target_index=index,
            target_values=target,
            completeness_error=error,
            raw=raw,
            names=contract.Names() if names is None else names,
            inputs=tuple(values),
            axes={name: places[name] for name in outputs if places.get(name, 0) != 0},
            labels=None,
        )

    def __len__(self) -> int:
        told = self.target_values if self.target_index is None else self.target_index
        return len(next(iter(self._values.values())) if told is None else told)

    def total(self) -> Array:
        """The sum of each sample's attributions over all attributed inputs, in float64: [N] or [N, K]."""
        return reading.total(self._values, self._classes)

    @property
    def several(self) -> bool:
        """Whether several classes are explained at once: arrays are then [N, K, ...]."""
        return bool(self._classes)

    @property
    def target_names(self) -> Array | None:
        """The names of the explained classes, texts [N] or [N, K]; their numbers where they have none."""
        return None if self.target_index is None else class_names(self.target_index, self.names)

    def with_labels(self, labels: Any) -> Explanation:
        """The same, with other names of its samples.

        Args:
            labels: a text, number or date for each sample (a list, an array, an index); None: numbers.

        Raises:
            UserError: not one for each sample.
        """
        return replace(self, labels=None if labels is None else sample_labels(labels, len(self)))

    @property
    def sample_names(self) -> list[str]:
        """The labels of the samples as texts; their numbers where they have none."""
        return list(map(str, range(len(self)))) if self.labels is None else label_texts(self.labels)

    def feature_names(self, name: str | None = None) -> list[str]:
        """The names along the last axis of an attributed tensor (of the only one).

        Raises:
            UserError: no such tensor, or several and none is named.
        """
        name = self._named(name)
        return feature_names(name, self._values[name].shape[-1], self.names)

    def tokens(self, name: str | None = None) -> Array:
        """The texts of an input of token ids, of its shape.

        Raises:
            UserError: no such input, or one that isn't of integers.
        """
        name = self._named(name)
        ids = self._data.get(name)
        if ids is None or ids.dtype.kind not in "iu":
            found = [n for n, a in self._data.items() if a.dtype.kind in "iu"]
            mend = f"these are: {', '.join(found)}" if found else "none is: take feature_names()"
            raise UserError(f"{name!r} is no input of token ids", mend=mend)
        return token_names(name, ids, self.names)

    def __getitem__(self, which: Any) -> Explanation:
        """Some samples, and after a comma some features along the last axis, by name or place.

        One sample is an explanation, too: its arrays are [1, ...].  Where samples have labels that are texts,
        `e["cat.png"]` and lists of such pick them.

        Raises:
            IndexError: no such sample.
            UserError: no such feature.
        """
        rows, *features = which if isinstance(which, tuple) else (which,)
        if len(features) > 1:
            raise UserError(
                f"{len(which)} indices of an explanation", mend="Use e[samples] or e[samples, features]"
            )
        part = self._of_rows(rows)
        return part._of_features(features[0]) if features else part

    def of_class(self, which: int | str) -> Explanation:
        """The explanation of one class, where several are explained: [N, ...].

        Args:
            which: the class by its name or number.

        Raises:
            UserError: it isn't explained for each sample.
        """
        index, texts = self.target_index, self.target_names
        if not self._classes or index is None or texts is None:
            raise UserError("a single class is explained", mend="compile with target=[...], all or top-K")
        place = class_places(which, index, texts)
        rows = np.arange(len(index))

        def picked(array: Array | None) -> Array | None:
            return None if array is None else array[rows, place]

        return replace(
            self,
            **{
                kind: each(getattr(self, kind), lambda a: a[rows, place]) for kind in ("values", *_ON_REQUEST)
            },
            base_values=picked(self.base_values),
            target_index=picked(index),
            target_values=picked(self.target_values),
            completeness_error=picked(self.completeness_error),
            raw={},
        )

    def to_shap(self, layout: str = "auto") -> Any:
        """A `shap.Explanation`, with names; for several attributed inputs a dict of them.

        With K classes their axis comes last, and `output_names` are their names.  The package shap must be
        installed.

        Args:
            layout: "channels-first" turns pictures [N, C, H, W] into [N, H, W, C], which SHAP's image_plot
                wants; "channels-last" leaves them; "auto" looks for an axis of 1, 3 or 4 channels.

        Raises:
            UserError: shap is missing, or no such layout.
        """
        found = {
            name: interop.shap_explanation(
                name,
                array,
                self._data.get(name),
                self.base_values,
                self.target_index,
                self.names,
                self.labels,
                layout,
            )
            for name, array in self._values.items()
        }
        return found if isinstance(self.values, dict) else next(iter(found.values()))

    def to_pandas(self) -> Any:
        """The attributions as a `pandas.DataFrame`: a row for each sample, a column for each feature.

        With several classes a row for each sample and class, with several inputs columns (input, feature).
        Rows are called by the labels of the samples.

        Raises:
            UserError: pandas is missing.
        """
        return interop.as_frame(self._values, self.target_index, bool(self._classes), self.names, self.labels)

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with attributions, samples, base values, targets and predictions.

        Raises:
            UserError: xarray is missing.
        """
        return interop.as_xarray(
            self._values, self._data, self._told(), bool(self._classes), self.names, self.labels
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all of it to an .npz file, which `load` and numpy read; `raw` isn't kept.

        Outputs that are no arrays (a sequence of maps) are left out.

        Raises:
            UserError: the folder doesn't exist or can't be written, or the disk is full.
        """
        kinds = {kind: self._named_arrays(kind) for kind in _BY_TENSOR}
        kinds["outputs"] = {n: a for n, a in self.outputs.items() if a.dtype != object or _are_texts(a)}
        header = {
            "names": self.names.to_text(),
            "inputs": self.inputs,
            "axes": dict(self.axes),
            "single": not isinstance(self.values, dict),
        }
        labels = {} if self.labels is None else {"labels": self.labels}
        archive.write(path, kinds, self._told() | labels, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """What `save` wrote.

        Raises:
            UserError: no such file, or another one.
        """
        where, mend = os.fspath(path), "give a file that Explanation.save wrote"
        parts, told, header = archive.read(path, (*_BY_TENSOR, "outputs"), "explanation", mend)
        labels = told.get("labels")
        told = {name: told[name] for name in reading.TOLD if name in told}
        try:
            listed, single = tuple(map(str, header["inputs"])), bool(header["single"])
            names, axes = contract.Names.from_text(header["names"]), dict(header["axes"])
        except (KeyError, TypeError, ValueError) as error:
            what = f"is no explanation: its header is damaged ({error})"
            raise UserError(what, where=where, mend=mend) from error
        if set(parts["values"]) != set(listed):
            what = (
                f"has attributions of {sorted(parts['values'])}, and says that there are of {sorted(listed)}"
            )
            raise UserError(what, where=where, mend=mend)
        if not reading.fit_together(told, parts["values"]) or not _are_labels(labels, parts["values"]):
            raise UserError("its arrays don't fit together", where=where, mend=mend)
        return cls(
            values=_alone(parts["values"], single),
            data=_alone(parts["data"], single),
            multipliers=_alone(parts["multipliers"], single) if parts["multipliers"] else None,
            hypothetical=_alone(parts["hypothetical"], single) if parts["hypothetical"] else None,
            outputs=parts["outputs"],
            raw={},
            names=names,
            inputs=listed,
            axes=axes,
            labels=labels,
            **{name: told.get(name) for name in reading.TOLD},
        )

    def records(self) -> list[dict[str, Any]]:
        """What is told of each sample, or of each sample and class: its number and label, and numbers."""
        total, target, labels = self.total(), self.target_names, self.sample_names
        columns = {
            "target": target,
            "prediction": self.target_values,
            "base_value": self.base_values,
            "sum": total,
            "error": self.completeness_error,
        }
        return [
            {
                "sample": place[0],
                "label": labels[place[0]],
                **{key: None if a is None else a[place] for key, a in columns.items()},
            }
            for place in np.ndindex(total.shape)
        ]

    def largest(self, count: int = 5) -> list[list[tuple[str, float]]]:
        """The features with the largest attributions and what they got, for each of `records()`.

        Args:
            count: how many, largest magnitudes first; features of all attributed inputs together.
        """
        rows = 1 + self._classes
        parts = [
            array.reshape(prod(array.shape[:rows]), prod(array.shape[rows:]))
            for array in self._values.values()
        ]
        texts = [t for n, a in self._values.items() for t in flat_names(n, a.shape[rows:], self.names)]
        return [summary.largest_of(texts, row, count) for row in np.concatenate(parts, axis=1)]

    def __repr__(self) -> str:
        return summary.as_text(self._shapes(), len(self), self.records())

    def _repr_html_(self) -> str:
        return summary.as_html(self._shapes(), len(self), self.records(), self[: summary.ROWS].largest())

    @property
    def by_input(self) -> Arrays:
        """`values` by the name of the attributed tensor, also where there is only one."""
        return self._values

    @property
    def _values(self) -> Arrays:
        return self._named_arrays("values")

    @property
    def _data(self) -> Arrays:
        return self._named_arrays("data")

    @property
    def _classes(self) -> int:
        return reading.class_axes(self.target_index, self.target_values)

    def _named_arrays(self, kind: str) -> Arrays:
        """What is told by attributed tensor, by its name also where there is one."""
        told = getattr(self, kind)
        if told is None or isinstance(told, dict):
            return told or {}
        return {self.inputs[0]: told}

    def _shapes(self) -> dict[str, list[int]]:
        return {name: list(array.shape[1 + self._classes :]) for name, array in self._values.items()}

    def _told(self) -> Arrays:
        told = {name: getattr(self, name) for name in reading.TOLD}
        return {name: array for name, array in told.items() if array is not None}

    def _named(self, name: str | None) -> str:
        if name is None and len(self.inputs) == 1:
            return self.inputs[0]
        if name not in self.inputs:
            what = f"no attributed tensor {name!r}" if name else "several tensors are attributed"
            raise UserError(what, mend=f"name one of {', '.join(self.inputs)}")
        return name

    def _of_rows(self, rows: Any) -> Explanation:
        rows = sample_rows(rows, len(self), None if self.labels is None else self.sample_names)
        parts = {kind: each(getattr(self, kind), lambda a: a[rows]) for kind in _BY_TENSOR}
        told = {name: array[rows] for name, array in self._told().items()}
        outputs = dict(self.outputs)
        for name, array in self.outputs.items():
            if (axis := self.axes.get(name, 0)) is not None:
                outputs[name] = np.moveaxis(np.moveaxis(array, axis, 0)[rows], 0, axis)
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, outputs=outputs, raw={}, labels=labels, **parts, **told)

    def _of_features(self, which: Any) -> Explanation:
        name = self._named(None)
        known = self.feature_names()
        places = feature_places(which, known)
        axis = self._values[name].ndim - 1
        if axis <= self._classes:
            raise UserError(f"{name!r} has no axis of features", mend="choose samples alone: e[i]")
        data = self._data.get(name)
        same = data is not None and data.ndim and data.shape[-1] == len(known)
        features = {**self.names.features, name: tuple(known[i] for i in places)}
        return replace(
            self,
            **{
                kind: each(getattr(self, kind), lambda a: a[..., places]) for kind in ("values", *_ON_REQUEST)
            },
            data=data[..., places] if data is not None and same else self.data,
            completeness_error=None,
            raw={},
            names=replace(self.names, features=features),
        )


_ON_REQUEST = ("multipliers", "hypothetical")
_BY_TENSOR = ("values", "data", *_ON_REQUEST)


def _alone(arrays: Arrays, single: bool) -> Array | Arrays:
    """The array of the only attributed tensor, where there is one."""
    return next(iter(arrays.values())) if single and arrays else arrays


def _are_labels(labels: Array | None, values: Arrays) -> bool:
    """Whether there is one for each sample, or none at all."""
    if labels is None:
        return True
    return labels.dtype.kind in LABEL_KINDS and all(labels.shape == a.shape[:1] for a in values.values())


def _are_texts(array: Array) -> bool:
    return all(isinstance(value, str) for value in array.ravel())
