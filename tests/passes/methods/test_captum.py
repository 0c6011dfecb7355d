"""Attributions of the digits CNN against Captum's, by method (tests/oracles/mint_methods.py)."""

from __future__ import annotations

import numpy as np
import pytest
from places import FIXTURES

import irshap
from irshap import demo
from irshap.ir.types import Array

GIVEN = np.load(FIXTURES / "methods.npz")


def close(found: Array, name: str) -> None:
    wanted = GIVEN[name]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 1


@pytest.mark.parametrize("name", ["gradient", "saliency", "guided-backprop", "input-x-gradient"])
def test_of_the_sample_alone(name: str) -> None:
    close(irshap.compile(demo.model_path(), method=name).explainer()(GIVEN["inputs"]).values, name)


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
