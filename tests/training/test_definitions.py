"""What losses and priors are, sample by sample and pair by pair: a gradient may be right of a wrong one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from stepping import evaluated, feeds, mlp

import irshap
from irshap.ir.types import Array
from irshap.training import train_step

GROUPS = np.array([4, 1, 4, 1, 1])


def logits(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def binary_cross_entropy(f: Array, label: Array) -> float:
    p = 1 / (1 + np.exp(-f))
    return float(np.mean(-label * np.log(p) - (1 - label) * np.log(1 - p)))


def mse(f: Array, label: Array) -> float:
    return float(np.mean((f - label) ** 2))


def hinge(f: Array, label: int) -> float:
    if len(f) == 1:
        return max(0.0, 1 - (2 * label - 1) * f[0])
    return sum(max(0.0, 1 - f[label] + f[k]) for k in range(len(f)) if k != label) / len(f)


LOSSES: dict[str, Any] = {"binary-cross-entropy": binary_cross_entropy, "mse": mse, "hinge": hinge}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_loss_is_the_weighted_mean_of_the_samples(loss: str, outputs: int) -> None:
    model = mlp(last=outputs)
    step = train_step(model, loss=loss, optimizer="gradients")
    inputs = feeds(step, model, rows=9)
    rows = zip(logits(model, inputs["x"]), inputs["labels"], strict=True)
    wanted = np.average([LOSSES[loss](f, label) for f, label in rows], weights=inputs["sample_weights"])
    np.testing.assert_allclose(evaluated(step, inputs)["loss"], wanted, rtol=1e-12)


def test_cox_is_the_partial_likelihood() -> None:
    """Ties as in Breslow 1974: all that end at a time are at risk then."""
    model = mlp(last=1)
    step = train_step(model, loss="cox", optimizer="gradients")
    drawn = feeds(step, model, rows=12)
    inputs = feeds(step, model, rows=12, labels=np.round(drawn["labels"] * 5))
    times, events, weights = (inputs[n] for n in ("labels", "events", "sample_weights"))
    assert len({*times}) < 12 and {*events} == {0, 1}
    f = logits(model, inputs["x"])[:, 0]
    wanted = 0.0
    for i in np.flatnonzero(events):
        at_risk = sum(weights[j] * np.exp(f[j]) for j in range(12) if times[j] >= times[i])
        wanted += weights[i] * (np.log(at_risk) - f[i])
    wanted /= (weights * events).sum()
    np.testing.assert_allclose(evaluated(step, inputs)["loss"], wanted, rtol=1e-12)


def sparse(a: Array) -> float:
    size = np.abs(a).mean(0)
    return float(-sum(abs(p - q) for p in size for q in size) / (len(size) * size.sum()))


def total_variation(a: Array) -> float:
    return float(np.mean([sum(abs(q - p) for p, q in pairwise(row)) for row in a]))


def group_lasso(a: Array) -> float:
    groups = [g == GROUPS for g in set(GROUPS)]
    return float(np.mean([sum(g.sum() ** 0.5 * np.linalg.norm(row[g]) for g in groups) for row in a]))


PRIORS: dict[str, Any] = {
    "sparse": sparse,
    "total-variation": total_variation,
    "group-lasso": group_lasso,
}
METHODS = ("gradient", "input-x-gradient", "x-gradient", "integrated-gradients{steps=3}", "deeplift")


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("method", METHODS)
def test_a_prior_is_on_what_the_method_attributes(method: str, prior: str) -> None:
    """The attributions are those of the file that `compile` makes."""
    model = mlp("Relu", bias=method != "x-gradient")
    step = train_step(model, prior=prior, method=method, optimizer="gradients", groups=GROUPS)
    inputs = feeds(step, model, rows=9)
    compiled = irshap.compile(model, inputs.get("x_references"), method=method, target="input")
    attributions = compiled.explainer()(inputs["x"], target=inputs["labels"]).values
    np.testing.assert_allclose(evaluated(step, inputs)["prior"], PRIORS[prior](attributions), rtol=1e-10)
