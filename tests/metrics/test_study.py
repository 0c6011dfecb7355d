"""What docs/study.md tells of the digits CNN and of the X-DNN of it, on a few digits."""

from __future__ import annotations

import numpy as np
import pytest
from places import FIXTURES

import irshap
from irshap import demo
from irshap.errors import NotDifferentiable
from irshap.ir.types import Array
from irshap.metrics.evaluate import evaluate
from irshap.metrics.forward import Forward

X_DNN = FIXTURES / "digits_x.onnx"
IMAGES, LABELS = demo.digits()
ZERO = np.zeros_like(IMAGES[:1])


def test_the_x_dnn_is_as_right() -> None:
    right = [
        (Forward(m)({"image": IMAGES}).argmax(axis=1) == LABELS).mean() for m in (X_DNN, demo.model_path())
    ]
    assert right[0] > 0.985
    assert abs(right[0] - right[1]) < 0.01


def test_x_gradient_is_integrated_gradients_on_the_x_dnn() -> None:
    of_x = {
        "x-gradient": irshap.compile(X_DNN, method="x-gradient"),
        "input-x-gradient": irshap.compile(X_DNN, method="input-x-gradient"),
        "deeplift": irshap.compile(X_DNN, ZERO),
    }
    found = evaluate(of_x, IMAGES[:30], measures="ig-difference,completeness")
    for name in of_x:
        assert found.value(name, "ig-difference") < 1e-4
        assert found.value(name, "completeness") < 1e-5
    plain = irshap.compile(demo.model_path(), method="input-x-gradient")
    there = evaluate({"plain": plain}, IMAGES[:30], measures="ig-difference,completeness")
    assert there.value("plain", "ig-difference") > 0.5
    assert there.value("plain", "completeness") > 0.5
    with pytest.raises(NotDifferentiable, match="/conv1/Conv"):
        irshap.compile(demo.model_path(), method="x-gradient")


def test_scaling_the_image_scales_the_attribution() -> None:
    def off(model: object, method: str, references: Array | None) -> float:
        explainer = irshap.compile(model, references, method=method, target=3).explainer()
        plain, scaled = (explainer(x).values for x in (IMAGES[:20], np.float32(3) * IMAGES[:20]))
        return float(np.abs(scaled - 3 * plain).max() / np.abs(3 * plain).max())

    assert off(X_DNN, "x-gradient", None) < 1e-5
    assert off(demo.model_path(), "integrated-gradients", ZERO) > 0.05
    assert off(demo.model_path(), "input-x-gradient", None) > 0.05
