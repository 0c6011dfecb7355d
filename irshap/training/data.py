"""What a network is trained on: read, checked before anything runs, and handed out in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from irshap import contract
from irshap.contract import Training
from irshap.errors import UserError, near
from irshap.runtime.arrays import Array, Arrays, as_arrays, conform

__all__ = ["Data", "read_table"]


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and labels, as a training step takes them.

    Attributes:
        rows: arrays with a row for each sample, by the name of the step's input.
        pools: references by the name of the step's input: those of all samples, or where each sample has its
            own, what these are drawn from.
        count: the number of samples.
    """

    rows: Arrays
    pools: Arrays
    count: int

    @classmethod
    def of(
        cls,
        source: Any,
        labels: Any,
        training: Training,
        shapes: Mapping[str, list[Any]],
        dtypes: Mapping[str, np.dtype[Any]],
        classes: int | None,
        *,
        probabilities: bool = False,
    ) -> Data:
        """Data from arrays by name, a path, or an array for a model with one input.

        Args:
            source: the model's inputs by name; besides `labels`, and where the step has them `events`,
                `sample_weights` (1 where left out), `<input>_mask`, `<input>_references`.
            labels: an array, or the name of one in `source`; None: it is called "labels" there.
            shapes: of the step's inputs.
            dtypes: theirs.
            classes: where labels are classes, how many there are.
            probabilities: whether labels are such.

        Raises:
            UserError: one is missing, of another shape or type, or has NaN; labels, events or weights out of
                range; a name that is nearly one that is left out.
        """
        limits = {contract.SAMPLE_WEIGHTS: (0.0, np.inf), contract.EVENTS: (0.0, 1.0)}
        if probabilities:
            limits[contract.LABELS] = (0.0, 1.0)
        found = _named(source, training, labels if isinstance(labels, str) else contract.LABELS)
        given = training.given
        if isinstance(labels, str):
            if labels not in found:
                raise UserError(f"there is no {labels!r} for labels", where="data", mend=near(labels, found))
            found[contract.LABELS] = found.pop(labels)
        elif labels is not None:
            found[contract.LABELS] = as_arrays(labels, ["labels"], UserError, "labels")["labels"]
        inputs = {name: name for name in training.inputs}
        listed = (contract.LABELS, contract.EVENTS, contract.SAMPLE_WEIGHTS)
        roles = {of: given[of] for of in listed if of in given}
        masks = {contract.mask(name): of for name, of in training.masks.items()}
        wanted = {**inputs, **roles, **masks}
        references = {contract.references(name): of for name, of in training.references.items()}
        first = next(iter(inputs))
        if first not in found:
            raise UserError(f"there is no {first!r}", where="data", mend=f"given: {', '.join(found)}")
        _require_no_slip(found, {**wanted, **references})
        rows, pools = dict[str, Array](), dict[str, Array]()
        for name, array in found.items():
            of = wanted.get(name) or references.get(name)
            if of is None:
                continue
            shape, dtype = shapes[of], dtypes[of]
            if name not in references and shape[:1] != ["N"]:
                raise UserError(
                    f"its first axis doesn't count samples: the step takes {shape}",
                    where=f"data, {name!r}",
                    mend="export the model with the batch first",
                )
            per_sample = name in references and "N" in shape
            shape = ["R", *shape[2:]] if per_sample else ["N" if d == "N" else d for d in shape]
            where = f"data, {name!r}"
            if name == contract.LABELS and dtype == np.int64:
                array = _whole(array, where)
            elif name in {**roles, **masks} and dtype.kind == "f" and array.dtype.kind in "iub":
                array = array.astype(dtype)  # counts, 0 and 1, masks: no pixels that miss their scale
            array = conform(_fitting(array, shape), dtype, shape, UserError, where)
            (pools if name in references else rows)[of] = array
        count = len(rows[first])
        weights = given[contract.SAMPLE_WEIGHTS]
        rows.setdefault(weights, np.ones(count, dtypes[weights]))
        for name, of in {**wanted, **references}.items():
            if of in rows or of in pools:
                continue
            if name in references and "N" in shapes[of]:
                pools[of] = rows[inputs[next(n for n, o in training.references.items() if o == of)]]
                continue
            raise UserError(f"there is no {name!r}", where="data", mend=f"given: {', '.join(found)}")
        for of, array in rows.items():
            if len(array) != count:
                raise UserError(f"{of!r} has {len(array)} rows, and {first!r} {count}", where="data")
        for of, array in {**rows, **pools}.items():
            _require_finite(of, array)
        if classes is not None:
            _require_classes(rows[given[contract.LABELS]], classes)
        if count == 0:
            raise UserError("there is no sample", where="data")
        for of, array in pools.items():
            if len(array) == 0:
                raise UserError("there is no reference", where=f"data, {of!r}")
        for role, (least, most) in limits.items():
            if role in given:
                _require_between(role, rows[given[role]], least, most)
        if not rows[weights].any():
            raise UserError("all sample weights are 0", where="data", mend="give some sample a weight")
        return cls(rows, pools, count)

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


def _named(source: Any, training: Training, labels: str) -> Arrays:
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix == ".parquet":
        return read_table(source, training, labels)
    names = list(training.inputs)
    return dict(as_arrays(source, names, UserError, "data"))


def read_table(path: str | os.PathLike[str], training: Training, labels: str = contract.LABELS) -> Arrays:
    """The columns of a Parquet file: those of no name that the step knows are the features of its only input.

    `labels` is the column of labels.  Columns are read in their order; lists of equal length are rows of
    arrays.

    Raises:
        UserError: it can't be read, or the package pyarrow is missing.
    """
    where = os.fspath(path)
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        mend = "pip install irshap[parquet]"
        raise UserError("reading Parquet needs pyarrow", where=where, mend=mend) from None
    if not Path(path).exists():
        raise UserError("no such file", where=where)
    try:
        table = parquet.read_table(path)
    except Exception as error:  # pyarrow has its own errors beside Python's
        raise UserError(f"can't be read: {str(error).splitlines()[0]}", where=where) from error
    columns = {}
    for name in table.column_names:
        try:
            columns[name] = np.array(table.column(name).to_pylist())
        except ValueError:
            raise UserError("its lists differ in length", where=f"{where}, column {name!r}") from None
    known = {*training.inputs, labels, contract.EVENTS, contract.SAMPLE_WEIGHTS}
    known |= {contract.mask(n) for n in training.inputs} | {contract.references(n) for n in training.inputs}
    features = [name for name in columns if name not in known]
    found = {name: array for name, array in columns.items() if name in known}
    if features and len(training.inputs) == 1 and training.inputs[0] not in found:
        found[training.inputs[0]] = np.stack(
            [_numbers(columns[n], f"{where}, column {n!r}") for n in features], 1
        )
    return found


def _numbers(column: Array, where: str) -> Array:
    """A column of a table as float64; what is missing is NaN."""
    try:
        if column.dtype.kind in "Oiubf" and column.ndim == 1:
            return column.astype(np.float64)
    except (ValueError, TypeError):
        pass
    what = f"is no column of numbers: {column.dtype}{list(column.shape)}"
    raise UserError(what, where=where, mend="drop it, or encode it as numbers")


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
        raise UserError(f"labels are {array.dtype}, and must be whole numbers: classes", where=where)
    return array.astype(np.int64)


def _require_no_slip(found: Mapping[str, Array], wanted: Mapping[str, str]) -> None:
    """Refuses a name that is nearly one that is left out, and would be passed over."""
    missing = [name for name in wanted if name not in found]
    for name in found:
        if name not in wanted and get_close_matches(name, missing, cutoff=0.85):
            raise UserError(f"{name!r} is nothing that is read", where="data", mend=near(name, missing))


def _require_between(role: str, array: Array, least: float, most: float) -> None:
    bad = np.argwhere((array < least) | (array > most))
    if len(bad):
        first = tuple(map(int, bad[0]))
        allowed = f"{least:g} to {most:g}" if np.isfinite(most) else f"{least:g} or more"
        raise UserError(
            f"{float(array[first]):g} in row {first[0]} is out of range",
            where=f"data, {role!r}",
            mend=f"these are {allowed}",
        )


def _require_finite(name: str, array: Array) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = np.argwhere(~np.isfinite(array))
    raise UserError(
        f"{len(bad)} of {array.size} values are NaN or infinite, the first in row {int(bad[0][0])}",
        where=f"data, {name!r}",
        mend="mend or drop these rows",
    )


def _require_classes(labels: Array, classes: int) -> None:
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        first = int(bad[0])
        raise UserError(
            f"label {int(labels[first])} in row {first} is no class: the output has {classes}",
            where="data, 'labels'",
            mend=f"labels are 0 to {classes - 1}",
        )
