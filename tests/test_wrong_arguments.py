"""Arguments of another kind than an entry takes: one message with how to mend it, no error of Python's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import irshap
from irshap import report
from irshap.errors import IrshapError
from irshap.metrics.evaluate import evaluate
from irshap.training import Trainer, train_step

MODEL = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1,-2,3,0.5,0,1}> { h = MatMul(x, w) y = Tanh(h) }""")
ROWS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
COMPILED = irshap.compile(MODEL, ROWS)
FOUND = COMPILED.explainer()(ROWS).with_labels(list("abcd"))


def compiled(**given: Any) -> Any:
    return irshap.compile(MODEL, ROWS, **given)


def dataset(**given: Any) -> Any:
    return irshap.explain_dataset(bytes(COMPILED), ROWS, Path("nowhere"), **given)


CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: irshap.compile(ROWS, MODEL), "references come behind the model: irshap.compile(model, refer"),
    (lambda: compiled(target={1: 2}), "target {1: 2} is no class. Use a class index"),
    (lambda: compiled(instruments=True), "instruments=True is no list. give a list of those in"),
    (lambda: compiled(summary=5), "summary: 5 is no summary. give its options as text, such as 'top=5"),
    (lambda: compiled(summary="top"), "summary: 'top': expected '='"),
    (lambda: irshap.compile(irshap.Model(MODEL, set=5), ROWS), "set=5 is no mapping. give {NAME: VALUE}"),  # type: ignore[arg-type]
    (lambda: irshap.Explainer(COMPILED, "CPUExecutionProvider"), "is no list. give some of"),
    (lambda: irshap.Explainer(COMPILED, ["NoProvider"]), "has no provider 'NoProvider'. there are "),
    (lambda: irshap.Explainer(COMPILED, [("NoProvider", {})]), "has no provider 'NoProvider'"),
    (lambda: irshap.Explainer(COMPILED, threads=0), "threads=0. give 1 or more, or None"),
    (
        lambda: Trainer(train_step(MODEL), MODEL, providers=["NoProvider"]),
        "has no provider 'NoProvider'",
    ),
    (lambda: irshap.make_references(ROWS, "sample", "3"), "'3' references. give a whole number"),  # type: ignore[arg-type]
    (lambda: irshap.make_references(ROWS, "sample", seed=0.5), "the seed is 0.5. give a whole"),  # type: ignore[arg-type]
    (lambda: irshap.make_references(ROWS, None), "no kind of references is called None"),  # type: ignore[arg-type]
    (lambda: evaluate(COMPILED, ROWS, measures=5), "measures are a text"),  # type: ignore[arg-type]
    (lambda: dataset(batch=0), "batch=0. give a whole number, at least 1"),
    (lambda: dataset(top="a"), "top='a'. give a whole number, at least 0"),
    (lambda: dataset(sum_over=1), "sum_over=1 is no list of axes. give such as (1, 2)"),
    (lambda: dataset(max_error="x"), "max_error='x'. give a number"),
    (lambda: report.waterfall(FOUND.values, 0), "ndarray is no explanation. give what an Explainer"),  # type: ignore[arg-type]
    (lambda: report.beeswarm(None), "NoneType is no explanation"),  # type: ignore[arg-type]
    (lambda: report.page(5), "int is no explanation"),  # type: ignore[arg-type]
    (lambda: report.bar(FOUND, 4), "there is no sample 4 among 4. give a place from 0 to 3, or a label"),
    (lambda: report.bar(FOUND, 1.5), "there is no sample 1.5 among 4"),  # type: ignore[arg-type]
    (lambda: report.bar(FOUND, "e"), "no sample is called 'e'. known: a, b, c, d"),
]


@pytest.mark.parametrize(("call", "message"), CASES, ids=[message[:20] for _, message in CASES])
def test_one_message(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(IrshapError) as told:
        call()
    assert message in str(told.value) and told.value.exit_code == 2
    assert told.value.mend


def test_samples_are_drawn_by_their_labels() -> None:
    pytest.importorskip("matplotlib")
    widths = [[p.get_width() for p in report.bar(FOUND, s).axes[0].patches] for s in ("c", 2, -2)]
    assert widths[0] == widths[1] == widths[2]


def test_a_list_of_rows_is_data(tmp_path: Path) -> None:
    rows = irshap.explain_dataset(bytes(COMPILED), ROWS.tolist(), tmp_path / "out", format="npy").rows
    assert rows == 4
