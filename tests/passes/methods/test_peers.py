"""Attributions of the digits CNN against Captum's and zennit's (tests/oracles/mint_methods.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from places import FIXTURES

import irshap
from irshap import demo
from irshap.cli import main
from irshap.errors import PipelineError, TargetError
from irshap.ir.types import Array

GIVEN = np.load(FIXTURES / "methods.npz")


def close(found: Array, name: str) -> None:
    wanted = GIVEN[name]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize("name", ["gradient", "saliency", "guided-backprop", "input-x-gradient"])
def test_of_the_sample_alone(name: str) -> None:
    close(irshap.compile(demo.model_path(), method=name).explainer()(GIVEN["inputs"]).values, name)


@pytest.mark.parametrize("name", ["epsilon-lrp", "guided-backprop"])
def test_zennit(name: str) -> None:
    method = f"{name}{{epsilon=0.1}}" if name == "epsilon-lrp" else name
    found = irshap.compile(demo.model_path(), method=method).explainer()(GIVEN["inputs"]).values
    close(found, f"zennit.{name}")
    other = "input-x-gradient" if name == "epsilon-lrp" else "gradient"
    assert not np.allclose(found, GIVEN[other], atol=0.1)


def test_integrated_gradients() -> None:
    compiled = irshap.compile(demo.model_path(), GIVEN["references"], method="integrated-gradients")
    close(compiled.explainer()(GIVEN["inputs"]).values, "integrated-gradients")


def test_occlusion() -> None:
    """Captum doesn't divide by the number of cells of a patch."""
    compiled = irshap.compile(demo.model_path(), method="occlusion{window=(3,3),step=(1,1)}")
    close(9 * compiled.explainer()(GIVEN["inputs"]).values, "occlusion")


def test_smooth_grad() -> None:
    method = "smooth-grad{samples=8,noise=0.25,seed=3,chunk=3}"
    close(irshap.compile(demo.model_path(), method=method).explainer()(GIVEN["inputs"]).values, "smooth-grad")


@pytest.mark.parametrize("name", ["feature-ablation", "shapley-sampling"])
def test_groups(name: str) -> None:
    """Captum gives the whole of a group to each of its 4 cells."""
    method = f"{name}{{samples=5,seed=3}}" if "sampling" in name else name
    compiled = irshap.compile(demo.model_path(), GIVEN["references"], method=method, groups=GIVEN["groups"])
    close(4 * compiled.explainer()(GIVEN["inputs"]).values, name)


def test_grad_cam() -> None:
    layer = "/relu3/Relu_output_0"
    compiled = irshap.compile(demo.model_path(), method=grad_cam("linear", layer))
    close(compiled.explainer()(GIVEN["inputs"]).values, "grad-cam")
    small = irshap.compile(demo.model_path(), method=grad_cam("none", layer)).explainer()(GIVEN["inputs"])
    wanted = small.values.repeat(2, 2).repeat(2, 3)
    near = irshap.compile(demo.model_path(), method=grad_cam("nearest", layer)).explainer()
    np.testing.assert_allclose(near(GIVEN["inputs"]).values, wanted, rtol=1e-5)


def grad_cam(resize: str, layer: str) -> str:
    return f'grad-cam{{layer="{layer}",resize={resize}}}'


def test_grad_cam_on_the_command_line(tmp_path: Path) -> None:
    args = ["compile", str(demo.model_path()), "-o", str(tmp_path / "e.onnx")]
    assert main([*args, "--method", grad_cam("linear", "/relu3/Relu_output_0")]) == 0
    close(irshap.Explainer(tmp_path / "e.onnx")(GIVEN["inputs"]).values, "grad-cam")


def test_grad_cam_refuses() -> None:
    with pytest.raises(PipelineError, match=r"wrt=image contradicts grad-cam, which attributes image2"):
        irshap.compile(
            demo.model_path(), method="grad-cam{layer=image2}", target=irshap.Target("0", wrt="image")
        )
    with pytest.raises(TargetError, match=r"one layer .samples, channels, positions"):
        irshap.compile(demo.model_path(), method='grad-cam{layer="/relu4/Relu_output_0"}')
    with pytest.raises(PipelineError, match="layer"):
        irshap.compile(demo.model_path(), method="grad-cam")
