"""What to call the numbers of an explanation: samples, features, classes, tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np

from irshap.contract import ONLY, Names
from irshap.errors import UserError, is_text
from irshap.runtime.arrays import Array

__all__ = ["LABEL_KINDS", "class_names", "feature_names", "fitting", "flat_names", "label_texts"]
__all__ += ["sample_labels", "token_names"]


def fitting(names: Names, sizes: Mapping[str, int | None], classes: int | None) -> Names:
    """The names, each by the tensor that it is for.

    Args:
        sizes: the attributed tensors, and the sizes of their last axes where these are known.
        classes: how many the explained output has, if that is known.

    Raises:
        UserError: names of a tensor that isn't attributed, or more or fewer than there are numbers.
    """
    found = {}
    for kind in ("features", "tokens"):
        given = dict(getattr(names, kind))
        if ONLY in given:
            if len(sizes) != 1:
                mend = f"give a mapping with some of {', '.join(sizes)}"
                raise UserError(
                    f"one list of {kind}, but {len(sizes)} attributed tensors", where="names", mend=mend
                )
            given = {next(iter(sizes)): given[ONLY]}
        if strange := [name for name in given if name not in sizes]:
            mend = f"attributed: {', '.join(sizes)}"
            raise UserError(f"{kind} of {strange[0]!r}, which isn't attributed", where="names", mend=mend)
        found[kind] = given
    for name, texts in found["features"].items():
        if sizes[name] not in (None, len(texts)):
            what = f"{len(texts)} features of {name!r}, whose last axis has {sizes[name]}"
            raise UserError(what, where="names", mend="give one for each")
    if names.classes and classes not in (None, len(names.classes)):
        what = f"{len(names.classes)} classes, but the explained output has {classes}"
        raise UserError(what, where="names", mend="give one for each")
    return Names(names.classes, found["features"], found["tokens"])


def sample_labels(given: Any, count: int) -> Array:
    """What people call samples: [N] of texts, numbers or dates; other things as text.

    Args:
        given: one for each of `count` samples, in a list, an array, or an index of pandas.

    Raises:
        UserError: no list, another number of them, or what is no text.
    """
    unordered = isinstance(given, str | Mapping | Set) or not isinstance(given, Iterable)
    if unordered or getattr(given, "ndim", 1) != 1:
        raise UserError("labels of samples are no list", mend="give one for each sample")
    listed = list(given)
    if len(listed) != count:
        raise UserError(f"{len(listed)} labels for {count} samples", mend="give one for each sample")
    # of tuples, such as pandas' MultiIndex has, numpy makes rows
    array = np.asarray(given) if hasattr(given, "dtype") else None
    if array is None and len({type(label) for label in listed}) == 1 and np.isscalar(listed[0]):
        array = np.asarray(listed)
    if array is None or array.ndim != 1 or array.dtype.kind not in LABEL_KINDS:
        array = np.array([str(label) for label in listed], dtype=np.str_)
    if strange := [label for label in array.tolist() if isinstance(label, str) and not is_text(label)]:
        raise UserError(
            f"a label of a sample is {strange[0][:40]!r}, which is no text", mend="write it in UTF-8"
        )
    return array


LABEL_KINDS = "biufmMU"
"""What samples may be called by, as numpy's kinds of elements: numbers, dates and texts."""


def label_texts(labels: Array) -> list[str]:
    """Labels of samples as texts, dates as short as they are."""
    texts = np.datetime_as_string(labels, unit="auto") if labels.dtype.kind == "M" else labels.astype(np.str_)
    return [str(text) for text in texts]


def class_names(index: Array, names: Names) -> Array:
    """The name of each explained class, or its number as text: strings of the shape of `index`."""
    texts = [names.classes[i] if i < len(names.classes) else str(i) for i in map(int, index.ravel())]
    return np.array(texts, dtype=object).reshape(index.shape)


def feature_names(name: str, size: int, names: Names) -> list[str]:
    """Names along the last axis of a tensor."""
    given = names.features.get(name)
    return list(given) if given else [f"{name}[{i}]" for i in range(size)]


def flat_names(name: str, shape: tuple[int, ...], names: Names) -> list[str]:
    """Names of all elements of one sample, in order: `age`, or with more axes `age[3]`, or `x[3, 1]`."""
    if not shape:
        return [name]
    given = names.features.get(name)
    if given and len(shape) == 1:
        return list(given)
    places = (list(place) for place in np.ndindex(shape))
    if not given:
        return [f"{name}{place}" for place in places]
    return [f"{given[place[-1]]}{place[:-1]}" for place in places]


def token_names(name: str, ids: Array, names: Names) -> Array:
    """The text of each token id, or the id as text: strings of the shape of `ids`."""
    known: Any = names.tokens.get(name, ())
    texts = [known[i] if 0 <= i < len(known) else str(i) for i in map(int, ids.ravel())]
    return np.array(texts, dtype=object).reshape(ids.shape)
