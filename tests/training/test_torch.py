"""Against torch's double backward: gradients of loss + prior by every parameter, and runs of 100 steps."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from places import FIXTURES
from stepping import Arrays, evaluated, initial, run

from irshap.ir.dims import N
from irshap.ir.evaluator import evaluate
from irshap.ir.rewrite import map_nodes
from irshap.training import TrainingStep, train_step

FOLDER = FIXTURES / "training"
WEIGHT, BATCH = 0.3, 4
ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "sparse": {"prior": "sparse", "method": "input-x-gradient"},
    "total-variation": {"prior": "total-variation", "method": "gradient"},
    "right-reasons": {"prior": "right-reasons"},
    "expected": {"prior": "sparse", "method": "expected-gradients"},
}
CASES = [(name, "", case) for name in ("mlp", "cnn", "block") for case in ASKED]
CASES += [("cnn", "batch", case) for case in ASKED if case != "expected"]


@cache
def fixture(name: str) -> Arrays:
    with np.load(FOLDER / f"{name}.npz") as data:
        return dict(data)


def model(name: str, suffix: str = "") -> onnx.ModelProto:
    return onnx.load(FOLDER / f"{name}{suffix}.onnx")


def given(step: TrainingStep, source: onnx.ModelProto, data: Arrays, rows: Any = slice(None)) -> Arrays:
    """What torch was given: inputs of the step by what they are for."""
    training, dtype = step.training, next(iter(initial(source).values())).dtype
    floats = {"sample_weights": data["weights"][rows], "prior_weight": np.array(WEIGHT)}
    found = {training.given[of]: array for of, array in floats.items() if of in training.given}
    found["x"] = data["x"][rows]
    found |= dict.fromkeys(training.masks.values(), data["mask"][rows])
    found |= dict.fromkeys(training.references.values(), data["references"][rows])
    found |= dict.fromkeys(training.places.values(), data["places"][rows])
    found = {name: array.astype(dtype) for name, array in found.items()}
    return found | {"labels": data["labels"][rows]}


def check(step: TrainingStep, found: Arrays, data: Arrays, prefix: str, tolerance: float) -> None:
    """Every gradient within `tolerance` of the largest of all."""
    names = step.training.parameters
    wanted = {name: data[f"{prefix}gradient.{name}"] for name in names}
    largest = max(float(np.abs(a).max()) for a in wanted.values())
    for name, output in names.items():
        np.testing.assert_allclose(
            found[output], wanted[name], rtol=0, atol=tolerance * largest, err_msg=name
        )
    for what in ("loss", "prior"):
        if what in found:
            np.testing.assert_allclose(found[what], data[f"{prefix}{what}"], rtol=tolerance)


def prefixes(form: str, what: str) -> str:
    return f"{form}.{what}." if form else f"{what}."


@pytest.mark.parametrize(("name", "form", "case"), CASES)
def test_gradients(name: str, form: str, case: str) -> None:
    data, options = fixture(name), {"optimizer": "gradients", "batch_norm": form or "frozen"} | ASKED[case]
    for suffix, runner, tolerance in (("", evaluated, 1e-9), ("_f32", run, 1e-4)):
        source = model(name, suffix)
        step = train_step(source, **options)
        assert {f"{prefixes(form, case)}gradient.{p}" for p in step.training.parameters} == {
            key for key in data if key.startswith(f"{prefixes(form, case)}gradient.")
        }
        inputs = initial(source) | given(step, source, data)
        known = {v.name for v in step.model.graph.input}
        check(
            step,
            runner(step, {k: v for k, v in inputs.items() if k in known}),
            data,
            prefixes(form, case),
            tolerance,
        )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), [("mlp", ""), ("cnn", ""), ("cnn", "batch"), ("block", "")])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_runs_of_100_steps(name: str, form: str, optimizer: str) -> None:
    """From the same start, float64: losses and parameters follow torch's."""
    data, source = fixture(name), model(name)
    how = {
        "sgd": "sgd{momentum=0.9,nesterov=true,weight_decay=0.001}",
        "adamw": "adamw{weight_decay=0.02}",
    }[optimizer]
    step = train_step(source, optimizer=how, batch_norm=form or "frozen", **ASKED["sparse"])
    rate = np.array({"sgd": 0.05, "adamw": 0.01}[optimizer])
    training, start = step.training, initial(source)
    types = {str(v.name): v.tensor for v in step.graph.inputs}
    handed = {**training.parameters, **training.states}
    values = {n: start[n] if n in start else np.zeros(types[n].dims) for n in handed}
    losses, program = [], map_nodes(step.graph, binding={N: BATCH})
    for count in range(100):
        rows = np.arange(count * BATCH, (count + 1) * BATCH) % len(data["x"])
        found = evaluate(program, values | given(step, source, data, rows) | {"learning_rate": rate})
        values = {name: found[output] for name, output in handed.items()}
        losses.append(float(found["loss"]))
    prefix = prefixes(form, optimizer)
    np.testing.assert_allclose(losses, data[f"{prefix}losses"], rtol=0, atol=1e-7)
    for name in [*training.parameters, *(n for n in training.states if n in start)]:
        np.testing.assert_allclose(
            values[name], data[f"{prefix}final.{name}"], rtol=0, atol=1e-7, err_msg=name
        )
