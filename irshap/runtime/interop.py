"""Explanations in the types of other packages, which are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irshap.contract import Names
from irshap.errors import UserError
from irshap.extras import optional
from irshap.runtime.arrays import Array, Arrays
from irshap.runtime.labels import class_names, feature_names, flat_names, label_texts

__all__ = ["as_frame", "as_xarray", "shap_explanation"]

CHANNELS = (1, 3, 4)
"""How many channels a picture has: gray, RGB, RGB with opacity."""


def needed(package: str) -> Any:
    """A package that a conversion needs.

    Raises:
        UserError: it is missing.
    """
    return optional(package, package, "interop", "this conversion")


def shap_explanation(
    name: str,
    values: Array,
    data: Array | None,
    base: Array | None,
    index: Array | None,
    names: Names,
    labels: Array | None,
    layout: str,
) -> Any:
    """A `shap.Explanation` of one attributed tensor: [N, ...], with K classes [N, ..., K]."""
    shap = needed("shap")
    several = index is not None and index.ndim == 2
    axes = values.ndim - 2 if several else values.ndim - 1
    if _channels_first(values.shape[-axes:] if axes else (), layout):
        values = np.moveaxis(values, -3, -1)
        data = None if data is None else np.moveaxis(data, -3, -1)
    if several:
        values = np.moveaxis(values, 1, -1)
    given: dict[str, Any] = {}
    if name in names.features or axes == 1:
        size = values.shape[axes]
        given["feature_names"] = feature_names(name, size, names)
    if labels is not None:
        given["instance_names"] = label_texts(labels)
    if several:
        assert index is not None
        texts = class_names(index, names)
        # ranks hold another class for each sample
        given["output_names"] = list(texts[0]) if (index == index[:1]).all() else texts
    return shap.Explanation(values=values, base_values=base, data=data, **given)


def _channels_first(shape: Sequence[int], layout: str) -> bool:
    """Whether these are pictures [C, H, W], which SHAP's plots take as [H, W, C]."""
    if layout not in ("auto", "channels-first", "channels-last"):
        mend = "use auto, channels-first or channels-last"
        raise UserError(f"no layout is called {layout!r}", mend=mend)
    if len(shape) != 3:
        if layout == "channels-first":
            raise UserError(f"layout {layout!r} for samples of shape {list(shape)}", mend="leave it out")
        return False
    if layout == "auto":
        return shape[0] in CHANNELS and (shape[2] not in CHANNELS or shape[0] < shape[2])
    return layout == "channels-first"


def as_frame(
    values: Mapping[str, Array], index: Array | None, several: bool, names: Names, labels: Array | None
) -> Any:
    """Attributions as a `pandas.DataFrame`: a row for each sample (and class), a column a feature.

    Rows are called by the sample's label, or number, with several classes by (sample, class); columns by the
    feature's name, with several tensors by (tensor, feature).
    """
    pandas = needed("pandas")
    rows = 2 if several else 1
    columns, parts = [], []
    for name, array in values.items():
        flat = flat_names(name, array.shape[rows:], names)
        columns += [(name, text) if len(values) > 1 else text for text in flat]
        parts.append(array.reshape(-1, len(flat)))
    first = next(iter(values.values()))
    samples: Any = pandas.RangeIndex(len(first)) if labels is None else pandas.Index(labels)
    samples = samples.rename("sample")
    if several:
        count = first.shape[1]
        ranks = np.broadcast_to(np.arange(count).astype(str), first.shape[:2])
        classes = ranks if index is None else class_names(index, names)
        pairs = [samples.repeat(count), classes.ravel()]
        samples = pandas.MultiIndex.from_arrays(pairs, names=["sample", "class"])
    heads: Any = columns
    if len(values) > 1:
        heads = pandas.MultiIndex.from_tuples(columns, names=["input", "feature"])
    return pandas.DataFrame(np.concatenate(parts, axis=1), index=samples, columns=heads)


def as_xarray(
    values: Mapping[str, Array],
    data: Mapping[str, Array],
    told: Arrays,
    several: bool,
    names: Names,
    labels: Array | None,
) -> Any:
    """An `xarray.Dataset`: attributions by tensor, samples as `<tensor>_data`, and what is told of each.

    Axes are called `sample`, `class`, and `<tensor>_<axis>`; the last one of a tensor with names of features
    has them as coordinates, and so have samples their labels.
    """
    xarray = needed("xarray")
    head = ("sample", "class") if several else ("sample",)
    found: dict[str, Any] = {name: (head[: array.ndim], array) for name, array in told.items()}
    coordinates: dict[str, Any] = {} if labels is None else {"sample": labels}
    for name, array in values.items():
        axes = [f"{name}_{i}" for i in range(array.ndim - len(head))]
        found[name] = ((*head, *axes), array)
        if name in names.features:
            coordinates[axes[-1]] = feature_names(name, array.shape[-1], names)
        if name in data and data[name].ndim == 1 + len(axes):
            found[f"{name}_data"] = (("sample", *axes), data[name])
    index = told.get("target_index")
    if index is not None:
        found["target_name"] = (head[: index.ndim], class_names(index, names).astype(str))
    return xarray.Dataset(found, coords=coordinates)
