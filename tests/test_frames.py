"""Every entry that takes samples or references goes by what a DataFrame calls its columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.compiler.making import concerns
from irshap.metrics.axioms import try_file
from irshap.metrics.completeness import check_completeness
from irshap.metrics.evaluate import evaluate
from irshap.runtime.frames import Frame
from irshap.training import Settings, Trainer, train_step

pandas = pytest.importorskip("pandas")

MODEL = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1,-2,3,0.5,0,1}> { h = MatMul(x, w) y = Tanh(h) }""")
ROWS = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
COLUMNS = ["age", "height", "weight"]
FRAME = pandas.DataFrame(ROWS, columns=COLUMNS)
MIXED = FRAME[["weight", "age", "height"]]
NAMED = {"features": COLUMNS}


def values(references: Any, **more: Any) -> Any:
    return irshap.compile(MODEL, references, **more).explainer()(ROWS).values


COMPILED = irshap.compile(MODEL, FRAME[:3])
OPEN = "lift,target,autodiff,deeplift,eliminate-split-tile,dce,lower"  # references are given at run time
AT_RUN_TIME = irshap.compile(MODEL, passes=OPEN, names=NAMED)
NAMELESS = irshap.compile(MODEL, passes=OPEN)


def own(frame: Any) -> Frame:
    """The same references for each of eight samples, [8, R, 3]."""
    rows = np.repeat(frame.to_numpy()[None], 8, 0)
    return Frame(rows, tuple(frame.columns))


def dataset(model: Any, data: Any, folder: Path, **more: Any) -> Any:
    irshap.explain_dataset(bytes(model), data, folder, format="npy", **more)
    return np.load(folder / "x_attributions.npy")


def measured(explained: Any, inputs: Any, **more: Any) -> list[float]:
    found = evaluate(explained, inputs, measures="insertion{baseline=reference},sparseness", **more)
    return [found.value("explained", measure) for measure in found.measures]


def total(model: Any, references: Any, inputs: Any, **more: Any) -> Any:
    return check_completeness(model, references, inputs, **more).total


def trained(data: Any, validation: Any) -> list[float]:
    labels = np.arange(8) % 2
    trainer = Trainer(train_step(MODEL), MODEL, Settings(epochs=1, batch_size=8))
    history = trainer.fit(data, labels, validation=validation, validation_labels=labels)
    return [*history[0].values(), trainer.evaluate(validation, labels)["loss"]]


Entry: TypeAlias = Callable[[Any, Any, Path], Any]
"""What comes out for samples, and for references or other samples."""

NAMED_ENTRIES: dict[str, Entry] = {
    "compile": lambda x, more, at: values(x[:3], names=NAMED),
    "compile, by input": lambda x, more, at: values({"x": x[:3]}, names=NAMED),
    "References": lambda x, more, at: values(irshap.References({"x": x[:3]}, [1, 2, 3]), names=NAMED),
    "make_references": lambda x, more, at: values(irshap.make_references(x, "sample", 3), names=NAMED),
    "make_references, by input": lambda x, more, at: values(
        irshap.make_references({"x": x}, "mean"), names=NAMED
    ),
    "Explainer": lambda x, more, at: COMPILED.explainer()(x).values,
    "Explainer, references": lambda x, more, at: AT_RUN_TIME.explainer()(x, x_references=more).values,
    "check_completeness": lambda x, more, at: total(MODEL, FRAME[:3], x),
    "check_completeness, references": lambda x, more, at: total(MODEL, {"x": more[:3]}, x, names=NAMED),
    "check_completeness, their own": lambda x, more, at: total(
        MODEL, irshap.References(own(more), per_sample=True), x, names=NAMED
    ),
    "evaluate": lambda x, more, at: measured(COMPILED, x, references=more),
    "evaluate, attributions": lambda x, more, at: measured(more, x, model=COMPILED, references=more),
    "try_file": lambda x, more, at: str(try_file(COMPILED, x)),
    "explain_dataset": lambda x, more, at: dataset(COMPILED, x, at),
    "explain_dataset, references": lambda x, more, at: dataset(AT_RUN_TIME, x, at, references=more),
}
"""The order is known by names in the file, or those that are given."""

NAMELESS_ENTRIES: dict[str, Entry] = {
    "Explainer, references": lambda x, more, at: NAMELESS.explainer()(x, x_references=more).values,
    "evaluate, attributions": lambda x, more, at: measured(more, x, model=MODEL, references=more),
    "explain_dataset, an iterator": lambda x, more, at: dataset(
        NAMELESS, iter([x[:4], more[4:]]), at, references=ROWS
    ),
    "explain_dataset, references": lambda x, more, at: dataset(NAMELESS, x, at, references=more),
    "concerns": lambda x, more, at: concerns(irshap.References(x[:3]), more, more[2:]),
    "Trainer": lambda x, more, at: trained(x, more),
}
"""The order is that of the first DataFrame."""


@pytest.mark.parametrize("entry", NAMED_ENTRIES)
def test_columns_in_the_order_of_names(entry: str, tmp_path: Path) -> None:
    run = NAMED_ENTRIES[entry]
    expected = run(FRAME, FRAME, tmp_path / "a")
    for i, (x, more) in enumerate([(MIXED, MIXED), (MIXED, FRAME)]):
        assert_same(run(x, more, tmp_path / f"{i}"), expected)


@pytest.mark.parametrize("entry", NAMELESS_ENTRIES)
def test_columns_in_the_order_of_those_before(entry: str, tmp_path: Path) -> None:
    run = NAMELESS_ENTRIES[entry]
    assert_same(run(FRAME, MIXED, tmp_path / "a"), run(FRAME, FRAME, tmp_path / "b"))


def test_labels_in_a_column() -> None:
    """As in a Parquet file, a DataFrame's other columns are the features."""
    labels = np.arange(8) % 2
    runs = []
    for data, given in ((FRAME, labels), (FRAME.assign(y=labels), "y")):
        trainer = Trainer(train_step(MODEL), MODEL, Settings(epochs=1, batch_size=8))
        runs.append(trainer.fit(data, given))
    assert runs[0] == runs[1]


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(found, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected
