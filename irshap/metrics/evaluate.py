"""Measures of several methods' attributions on the same samples, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from irshap.contract import ONLY
from irshap.errors import IrshapError, TargetError, UserError
from irshap.metrics.baselines import read_baseline
from irshap.metrics.forward import Forward
from irshap.metrics.measure import Measure, Measured, read_measures
from irshap.metrics.measures import MEASURES
from irshap.metrics.subject import Explained, Subject
from irshap.report.bars import curves
from irshap.report.drawing import new_figure
from irshap.report.pictures import require_layout
from irshap.runtime import Explainer
from irshap.runtime.arrays import Array, Arrays, Source, as_arrays, conform, unknown_names
from irshap.runtime.frames import columns_by_input
from irshap.runtime.samples import class_indices

__all__ = ["Evaluation", "evaluate", "subject_of"]

Features: TypeAlias = Mapping[str, Sequence[str]]
"""Names along an input's last axis, by input: DataFrames' columns are put in that order."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        measures: by name, or by text where one is taken with several options.
        results: for each thing explained, by name, what each measure found, or why it can't be taken.
        samples: how many.
    """

    measures: Mapping[str, Measure]
    results: Mapping[str, Mapping[str, Measured | str]]
    samples: int

    def value(self, name: str, measure: str) -> float:
        """One number; NaN where the measure can't be taken."""
        found = self.results[name][measure]
        return found.value if isinstance(found, Measured) else float("nan")

    @property
    def reasons(self) -> dict[str, str]:
        """Why measures couldn't be taken, by what is explained and the measure."""
        return {
            f"{name}, {measure}": found
            for name, row in self.results.items()
            for measure, found in row.items()
            if isinstance(found, str)
        }

    def record(self) -> dict[str, Any]:
        """All of it as what JSON can hold."""
        return {
            "samples": self.samples,
            "measures": [
                {"measure": name, "text": m.text, "better": m.better} for name, m in self.measures.items()
            ],
            "results": {
                name: {measure: _record(found) for measure, found in row.items()}
                for name, row in self.results.items()
            },
        }

    def plot(self) -> Any:
        """The curves of the measures that have one, a panel each, as a matplotlib figure (the extra `plot`).

        Raises:
            UserError: matplotlib is missing, or no measure has a curve.
        """
        drawn: dict[str, dict[str, Any]] = {}
        for name, row in self.results.items():
            for measure, found in row.items():
                if isinstance(found, Measured) and found.curve is not None:
                    drawn.setdefault(measure, {})[name] = found.curve
        if not drawn:
            raise UserError("none of these measures has a curve", mend="take keep-positive or insertion")
        across = min(3, len(drawn))
        down = -(-len(drawn) // across)
        figure = new_figure(4.4 * across, 3.4 * down)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for ax, (measure, lines) in zip(panels, drawn.items(), strict=False):
            first = next(iter(lines.values()))
            curves({n: (c.share, c.score) for n, c in lines.items()}, x=first.x, y=first.y, ax=ax)
            better = self.measures[measure].better
            ax.set_title(measure + (f" ({better} is better)" if better else ""), fontsize=9)
        for ax in panels[len(drawn) :]:
            ax.remove()
        return figure


def _record(found: Measured | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"value": None, "why": found}
    told: dict[str, Any] = {"value": found.value, "values": found.values.tolist()}
    if found.curve is not None:
        told["curve"] = {"share": found.curve.share.tolist(), "score": found.curve.score.tolist()}
    return told


def evaluate(
    explained: Any,
    inputs: Source,
    labels: Any = None,
    *,
    measures: str | Sequence[Measure] | None = None,
    model: Any = None,
    target: str = "argmax",
    baseline: str | None = None,
    references: Source = None,
    layout: str = "auto",
    batch: int = 64,
) -> Evaluation:
    """Measures attributions.

    Args:
        explained: what is measured, one thing or several by name: an explained model (path, bytes,
            `CompiledModel`), or an array of attributions [N, ...] from anywhere (also the path of a .npy or
            .npz file; by input where there are several), which needs `model`.
        inputs: samples, as for an `Explainer`.
        labels: the true class of each sample, [N], or the path of a .npy file.
        measures: a text such as "insertion{steps=20},sparseness", or measures; None: all there
            are, where one that can't be taken says why instead of failing.
        model: the model, or an explained file of it, that attributions given as arrays are of.
        target: the class that arrays explain, and files that take it at run time: "argmax" (the predicted
            one) or "label".
        baseline: what hidden cells hold, for all measures that hide some: "mean", "reference",
            "constant{value=0.5}", "blur{size=51,sigma=41}"; None: each measure's own.
        references: for the baselines mean and reference, [R, ...], by input where there are several.
        layout: where pictures have their channels (`Cells`).
        batch: the most samples in one run.

    Raises:
        UserError: what doesn't fit together, or a measure that was named and can't be taken.
    """
    every = tuple(cls() for cls in MEASURES.values())
    given = every if measures is None else measures
    chosen = read_measures(given) if isinstance(given, str) else _listed(given)
    if not chosen or not all(isinstance(m, Measure) for m in chosen):
        raise UserError("measures are a text, or one or more Measure", mend="use 'keep-positive,insertion'")
    if batch < 1:
        raise UserError(f"batch is {batch}", mend="give at least 1")
    require_layout(layout)
    if baseline is not None:
        read_baseline(baseline)  # a wrong text is an error even where no measure must be taken
        chosen = tuple(replace(m, baseline=baseline) if hasattr(m, "baseline") else m for m in chosen)  # type: ignore[type-var]
    if target not in ("argmax", "label"):
        raise UserError(f"no target is called {target!r}", mend="use argmax or label")
    common = _Given(inputs, labels, model, target, references, layout, batch)
    names = [m.name for m in chosen]
    columns = {m.text if names.count(m.name) > 1 else m.name: m for m in chosen}
    every_one = explained if isinstance(explained, Mapping) else {"explained": explained}
    if not every_one:
        raise UserError("nothing is explained", mend="give an explained model, or attributions")
    results: dict[str, dict[str, Measured | str]] = {}
    count = 0
    for name, what in every_one.items():
        subject = common.subject(what, name)
        count = len(subject)
        results[name] = {key: _taken(m, subject, name, measures is not None) for key, m in columns.items()}
    return Evaluation(columns, results, count)


def _listed(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, Iterable) else ()


def subject_of(explained: Any, inputs: Source, batch: int = 64) -> Subject:
    """An explained model at samples, as measures see it.

    Raises:
        UserError: as `evaluate`.
    """
    return _Given(inputs, None, None, "argmax", None, "auto", batch).subject(explained, "the explained model")


def _taken(measure: Measure, subject: Subject, name: str, named: bool) -> Measured | str:
    try:
        found = measure.measure(subject)
        if not np.isfinite(found.value):
            strange = int(np.argmin(np.isfinite(found.values)))
            mend = "leave out such samples, or use another baseline"
            raise UserError(f"comes out as {found.values[strange]} for sample {strange}", mend=mend)
        return found
    except IrshapError as error:
        if named:
            where = ", ".join(filter(None, (f"{measure.name} of {name}", error.where)))
            raise UserError(error.what, where=where, mend=error.mend) from error
        return str(error)


@dataclass(frozen=True)
class _Given:
    """What all that is explained has in common."""

    inputs: Source
    labels: Any
    model: Any
    target: str
    references: Source
    layout: str
    batch: int
    memo: dict[Any, Any] = field(default_factory=dict)

    def subject(self, what: Any, name: str) -> Subject:
        """One thing that is measured."""
        if _is_array(what):
            return self._of_arrays(what, name)
        forward = Forward(what, self.batch)
        if forward.tensors is None:
            raise UserError("returns no attributions", where=name, mend="compile it first: irshap compile")
        explainer = Explainer(what)
        names = [n for n in explainer.input_names if n in forward.axes]
        features = explainer.features((self.inputs, names))
        given = as_arrays(self.inputs, names, UserError, "input", features)
        unknown_names(given, explainer.input_names, UserError, "input")
        explainer.spread_weights(given)
        inputs = forward.read(given)
        labels = self._labels(inputs, forward)
        extra = {n: array for n, array in given.items() if n not in inputs}
        if (place := explainer.tensors.target) is not None and place not in extra:
            extra[place] = self._target(forward, inputs, labels)
        explain = partial(_explained, explainer, forward, extra, name)
        found = explain(inputs)
        return Subject(
            forward,
            inputs,
            found.attributions,
            found.classes,
            labels,
            found.base,
            explain,
            self._references(inputs, found.attributions, features),
            self.layout,
            self.memo,
        )

    def _of_arrays(self, what: Any, name: str) -> Subject:
        if self.model is None:
            mend = "give the model, or an explained file of it (--model)"
            raise UserError(
                "attributions alone say nothing of the model that they explain", where=name, mend=mend
            )
        forward = self._forward
        features = self._features
        inputs = forward.read(self.inputs, features)
        labels = self._labels(inputs, forward)
        counted = [n for n in inputs if forward.axes[n] is not None]
        floats = [n for n in counted if inputs[n].dtype.kind == "f"]
        values = as_arrays(
            what, floats or counted, UserError, f"attributions {name}", features
        )  # or of tokens
        for key, array in values.items():
            if key not in inputs or array.shape != inputs[key].shape or array.dtype.kind != "f":
                wanted = list(inputs[key].shape) if key in inputs else sorted(inputs)
                what_is = f"{array.dtype} {list(array.shape)} for {key!r}, and should be floats {wanted}"
                mend = "give one number for each number of the input"
                raise UserError(f"attributions are {what_is}", where=name, mend=mend)
            if not np.isfinite(array).all():
                raise UserError(
                    "attributions hold NaN or infinity", where=name, mend="leave out such samples"
                )
        classes = self._target(forward, inputs, labels) if forward.picks else None
        return Subject(
            forward,
            inputs,
            values,
            classes,
            labels,
            references=self._references(inputs, values, features),
            layout=self.layout,
            memo=self.memo,
        )

    @cached_property
    def _forward(self) -> Forward:
        return Forward(self.model, self.batch)

    @cached_property
    def _features(self) -> Features:
        """What the features of the model's inputs are called."""
        names = list(self._forward.axes)
        if self._forward.tensors is not None:
            return Explainer(self.model).features((self.inputs, names))
        return columns_by_input(self.inputs, names[0] if len(names) == 1 else ONLY)

    def _target(self, forward: Forward, inputs: Arrays, labels: Array | None) -> Array:
        if self.target == "argmax":
            return np.asarray(forward(inputs).argmax(axis=1))
        if labels is None:
            raise UserError("the target is the label, and there are no labels", mend="give labels")
        return class_indices(labels, len(labels), forward(inputs).shape[1], "labels")

    def _labels(self, inputs: Arrays, forward: Forward) -> Array | None:
        if self.labels is None:
            return None
        given = as_arrays(self.labels, ["labels"], UserError, "labels")
        if "labels" not in given or given["labels"].dtype.kind not in "iu":
            raise UserError(
                "labels are no array of integers", where="labels", mend="give [N], or labels in .npz"
            )
        count = next(len(x) for n, x in inputs.items() if forward.axes[n] is not None)
        sample = {n: x[:1] if forward.axes[n] is not None else x for n, x in inputs.items()}
        classes = forward(sample).shape[1] if forward.picks else 1
        # of a single number they are none of its classes: a probability's, say
        known = None if classes == 1 else classes
        labels = conform(given["labels"], np.dtype(np.int64), None, UserError, "labels")
        return class_indices(labels, count, known, "labels")

    def _references(self, inputs: Arrays, attributed: Arrays, features: Features) -> Arrays:
        if self.references is None:
            return {}
        names = [name for name in attributed if name in inputs]
        given = as_arrays(self.references, names, UserError, "references", features)
        unknown_names(given, names, UserError, "references")
        shapes = {name: ["R", *inputs[name].shape[1:]] for name in given}
        where = "references for input"
        return {
            n: conform(a, inputs[n].dtype, shapes[n], UserError, f"{where} {n!r}") for n, a in given.items()
        }


def _is_array(what: Any) -> bool:
    if isinstance(what, (str, os.PathLike)):
        return Path(what).suffix in (".npy", ".npz")
    return (
        isinstance(what, (np.ndarray, Mapping, list)) or hasattr(what, "detach") or hasattr(what, "columns")
    )


def _explained(explainer: Explainer, forward: Forward, extra: Arrays, name: str, inputs: Arrays) -> Explained:
    """What a file says of samples, some of them at a time."""
    # the model's inputs that its output doesn't read, and the class; references are the same for all
    counted = {**explainer.sample_axes, str(explainer.tensors.target): 0}
    parts = []
    for rows in forward.slices(inputs):
        some = {n: _part(a, counted[n], rows) if n in counted else a for n, a in extra.items()}
        found = explainer({**forward.laid_out(forward.rows(inputs, rows)), **some})
        if found.several:
            raise TargetError("explains several classes at once", where=name, mend="compile for one of them")
        parts.append(found)
    joined = [{n: p.values[n] if isinstance(p.values, dict) else p.values for n in p.inputs} for p in parts]
    return Explained(
        {n: np.concatenate([part[n] for part in joined]) for n in joined[0]},
        _joined([p.target_index for p in parts]),
        _joined([p.base_values for p in parts]),
    )


def _part(array: Array, axis: int, rows: slice) -> Array:
    return array[(slice(None),) * axis + (rows,)] if array.ndim > axis else array


def _joined(parts: list[Array | None]) -> Array | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None
