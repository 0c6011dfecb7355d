"""What a network is trained on: read, checked before anything runs, and handed out in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from irshap import contract
from irshap.contract import Training
from irshap.datasets.tables import as_numbers, read_columns
from irshap.errors import UserError, near
from irshap.runtime.arrays import Array, Arrays, as_arrays, conform
from irshap.runtime.frames import Frame, columns_by_input, is_frame
from irshap.runtime.samples import not_finite

__all__ = ["Data", "Features", "read_table"]

Features: TypeAlias = Mapping[str, Sequence[str]]
"""Names of a table's columns, by the input that it is for."""


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and labels, as a training step takes them.

    Attributes:
        rows: arrays with a row for each sample, by the name of the step's input.
        pools: references by the name of the step's input: those of all samples, or where each sample has its
            own, what these are drawn from.
        count: the number of samples.
        features: what the columns of tables are called, by the model's input.
    """

    rows: Arrays
    pools: Arrays
    count: int
    features: Features = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: Any,
        labels: Any,
        training: Training,
        shapes: Mapping[str, Sequence[Any]],
        dtypes: Mapping[str, np.dtype[Any]],
        classes: int | None,
        *,
        probabilities: bool = False,
        features: Features | None = None,
    ) -> Data:
        """Data from arrays by name, a path, a DataFrame, or an array for a model with one input.

        Args:
            source: the model's inputs by name; besides `labels`, and where the step has them `events`,
                `sample_weights` (1 where left out), `<input>_mask`, `<input>_references`.
            labels: an array, or the name of one in `source`; None: it is called "labels" there.
            shapes: of the step's inputs.
            dtypes: theirs.
            classes: where labels are classes, how many there are.
            probabilities: whether labels are such.
            features: the order of tables' columns, where other data told it.

        Raises:
            UserError: one is missing, of another shape or type, or has NaN; labels, events or weights out of
                range; a name that is nearly one that is left out.
        """
        found, called = _read(source, labels, training, features or {})
        places = _places(training, shapes, dtypes, (0.0, 1.0) if probabilities else None)
        first = training.inputs[0]
        if first not in found:
            raise UserError(f"there is no {first!r}", where="data", mend=f"given: {', '.join(found)}")
        _require_no_slip(found, [place.name for place in places])
        arrays = {p.of: p.taken(found[p.name]) for p in places if p.name in found}
        count, weights = len(arrays[first]), training.given[contract.SAMPLE_WEIGHTS]
        if not count:
            raise UserError("there is no sample", where="data", mend="give at least one")
        arrays.setdefault(weights, np.ones(count, dtypes[weights]))
        for place in places:
            if place.of not in arrays:
                if place.default is None:
                    mend = f"given: {', '.join(found)}"
                    raise UserError(f"there is no {place.name!r}", where="data", mend=mend)
                arrays[place.of] = arrays[place.default]
            place.check(arrays[place.of], first, count)
        if classes is not None:
            _require_classes(arrays[training.given[contract.LABELS]], classes)
        if not arrays[weights].any():
            raise UserError("all sample weights are 0", where="data", mend="give some sample a weight")
        pools = {place.of: arrays[place.of] for place in places if place.pool}
        return cls({of: a for of, a in arrays.items() if of not in pools}, pools, count, called)

    def digest(self) -> str:
        """A text that other data doesn't have."""
        found = sha256()
        for name, array in sorted({**self.rows, **self.pools}.items()):
            found.update(f"{name}\0{array.dtype}{list(array.shape)}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def batches(self, size: int, order: Array) -> Iterator[Arrays]:
        """Rows in this order, `size` at a time; the last ones may be fewer."""
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield {name: array[chosen] for name, array in self.rows.items()}


@dataclass(frozen=True)
class _Place:
    """What the step takes, and how it is called in the data.

    Attributes:
        of: the step's input.
        pool: whether it is references, with no row for each sample.
        counts: whether integers and truth values are taken for floats.  Of a model's inputs they are mostly
            pixels that miss their scale.
        limits: the least and the largest number that it may hold.
        default: the input whose array stands for it where it is left out.
    """

    name: str
    of: str
    shape: Sequence[Any]
    dtype: np.dtype[Any]
    pool: bool = False
    counts: bool = False
    limits: tuple[float, float] | None = None
    default: str | None = None

    @property
    def where(self) -> str:
        return f"data, {self.name!r}"

    def taken(self, array: Array) -> Array:
        """An array as the step takes it."""
        if not self.pool and self.shape[:1] != ["N"]:
            what = f"its first axis doesn't count samples: the step takes {self.shape}"
            raise UserError(what, where=self.where, mend="export the model with the batch first")
        shape = ["R", *self.shape[2:]] if self.pool and "N" in self.shape else list(self.shape)
        if self.name == contract.LABELS and self.dtype == np.int64:
            array = _whole(array, self.where)
        elif self.counts and self.dtype.kind == "f" and array.dtype.kind in "iub":
            array = array.astype(self.dtype)
        return conform(_fitting(array, shape), self.dtype, shape, UserError, self.where)

    def check(self, array: Array, first: str, count: int) -> None:
        """Refuses another number of rows than the `count` of the input `first`, and what isn't finite."""
        if self.pool and not len(array):
            raise UserError("there is no reference", where=self.where, mend="give at least one")
        if not self.pool and len(array) != count:
            what = f"{self.of!r} has {len(array)} rows, and {first!r} {count}"
            raise UserError(what, where="data", mend="give one row for each sample")
        _require_finite(self.where, array)
        if self.limits is not None:
            _require_between(self.where, array, *self.limits)


def _places(
    training: Training,
    shapes: Mapping[str, Sequence[Any]],
    dtypes: Mapping[str, np.dtype[Any]],
    labels: tuple[float, float] | None,
) -> list[_Place]:
    """Everything that data may hold, the model's inputs first; `labels`: what limits these."""

    def place(name: str, of: str, **more: Any) -> _Place:
        return _Place(name, of, shapes[of], dtypes[of], **more)

    limits = {
        contract.LABELS: labels,
        contract.EVENTS: (0.0, 1.0),
        contract.SAMPLE_WEIGHTS: (0.0, np.inf),
    }
    found = [place(name, name) for name in training.inputs]
    found += [
        place(of, training.given[of], counts=True, limits=limit)
        for of, limit in limits.items()
        if of in training.given
    ]
    found += [place(contract.mask(name), of, counts=True) for name, of in training.masks.items()]
    for name, of in training.references.items():
        # where each sample has its own, they are drawn, and may be samples
        drawn = name if "N" in shapes[of] else None
        found.append(place(contract.references(name), of, pool=True, default=drawn))
    return found


def _read(
    source: Any, labels: Any, training: Training, features: Features
) -> tuple[Arrays, dict[str, Sequence[str]]]:
    """The arrays by name, labels among them by theirs; and what tables' columns are called, by input."""
    name = labels if isinstance(labels, str) else contract.LABELS
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix == ".parquet":
        source = read_table(source, training, name)
    elif is_frame(source):
        columns = {str(column): np.asarray(source[column]) for column in source.columns}
        source = _split(columns, training, name, "data")
    called = {**columns_by_input(source, training.inputs[0]), **features}
    # references of a table are one, too
    called |= {contract.references(n): called[n] for n in training.references if n in called}
    found = dict(as_arrays(source, list(training.inputs), UserError, "data", called))
    if isinstance(labels, str):
        if labels not in found:
            raise UserError(f"there is no {labels!r} for labels", where="data", mend=near(labels, found))
        found[contract.LABELS] = found.pop(labels)
    elif labels is not None:
        found[contract.LABELS] = as_arrays(labels, ["labels"], UserError, "labels")["labels"]
    return found, {n: called[n] for n in training.inputs if n in called}


def read_table(
    path: str | os.PathLike[str], training: Training, labels: str = contract.LABELS
) -> dict[str, Any]:
    """The columns of a Parquet file: those of no name that the step knows are the features of its only input.

    `labels` is the column of labels.  Columns are read in their order; lists of equal length are rows of
    arrays.

    Raises:
        UserError: it can't be read, or the package pyarrow is missing.
    """
    return _split(read_columns(Path(path)), training, labels, os.fspath(path))


def _split(columns: Arrays, training: Training, labels: str, where: str) -> dict[str, Any]:
    """Columns by name, and those of no name that the step knows as a table for its only input."""
    known = {*training.inputs, labels, contract.EVENTS, contract.SAMPLE_WEIGHTS}
    known |= {contract.mask(n) for n in training.inputs} | {contract.references(n) for n in training.inputs}
    features = [name for name in columns if name not in known]
    found: dict[str, Any] = {name: array for name, array in columns.items() if name in known}
    if features and len(training.inputs) == 1 and training.inputs[0] not in found:
        parts = [as_numbers(columns[n], f"{where}, column {n!r}") for n in features]
        found[training.inputs[0]] = Frame(np.stack(parts, axis=1), tuple(features))
    return found


def _fitting(array: Array, shape: list[Any]) -> Array:
    """[N] as [N, 1], and the other way round."""
    if array.ndim + 1 == len(shape) and shape[-1] == 1:
        return array[..., None]
    return array[..., 0] if array.ndim == len(shape) + 1 and array.shape[-1] == 1 else array


def _whole(array: Array, where: str) -> Array:
    """Labels of classes as int64."""
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all():
        return array.astype(np.int64)
    if array.dtype.kind not in "iub":
        mend = "encode them: numpy.unique(labels, return_inverse=True)[1]"
        raise UserError(
            f"labels are {array.dtype}, and must be whole numbers: classes", where=where, mend=mend
        )
    return array.astype(np.int64)


def _require_no_slip(found: Mapping[str, Array], wanted: Sequence[str]) -> None:
    """Refuses a name that is nearly one that is left out, and would be passed over."""
    missing = [name for name in wanted if name not in found]
    for name in found:
        if name not in wanted and get_close_matches(name, missing, cutoff=0.85):
            raise UserError(f"{name!r} is nothing that is read", where="data", mend=near(name, missing))


def _require_between(where: str, array: Array, least: float, most: float) -> None:
    bad = np.argwhere((array < least) | (array > most))
    if len(bad):
        first = tuple(map(int, bad[0]))
        allowed = f"{least:g} to {most:g}" if np.isfinite(most) else f"{least:g} or more"
        what = f"{float(array[first]):g} in row {first[0]} is out of range"
        raise UserError(what, where=where, mend=f"these are {allowed}")


def _require_finite(where: str, array: Array) -> None:
    if len(bad := not_finite(array)):
        what = f"{len(bad)} of {array.size} values are NaN or infinite, the first in row {int(bad[0][0])}"
        raise UserError(what, where=where, mend="mend or drop these rows")


def _require_classes(labels: Array, classes: int) -> None:
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        first = int(bad[0])
        raise UserError(
            f"label {int(labels[first])} in row {first} is no class: the output has {classes}",
            where="data, 'labels'",
            mend=f"labels are 0 to {classes - 1}",
        )
