"""Graphs as ONNX Runtime's optimizer saves them: explained as the plain model is, by standard ops alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from places import FAMILIES

import irshap
from irshap.errors import UserError
from irshap.ir.types import Array

FILES = [
    pytest.param(f"{family}_{exporter}", own, marks=pytest.mark.slow if slow else ())
    for family, own, slow in (
        ("resnet", "FusedConv", False),
        ("efficientnet", "QuickGelu", True),
        ("densenet", "FusedConv", True),
        ("vgg", "FusedConv", True),
        ("encoder", "FusedMatMul", False),
        ("vit", "FusedMatMul", True),
        ("text", "FusedMatMul", False),
    )
    for exporter in ("torchscript", "dynamo", "batch1")
]


def saved(file: Path, folder: Path, level: str) -> Path:
    """What a session saves."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path := folder / f"{file.stem}.{level}.onnx")
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return path


def inputs(family: str) -> tuple[Array, Array]:
    with np.load(FAMILIES / f"{family}.npz") as data:
        names = [k.removeprefix("inputs.") for k in data.files if k.startswith("inputs.")]
        name = "tokens" if "tokens" in names else names[0]
        return data[f"inputs.{name}"], data[f"references.{name}"]


@pytest.mark.parametrize(("name", "own"), FILES)
def test_explained_as_the_plain_model(name: str, own: str, tmp_path: Path) -> None:
    plain = FAMILIES / f"{name}.onnx"
    optimized = saved(plain, tmp_path, "ORT_ENABLE_EXTENDED")
    assert own in {n.op_type for n in onnx.load(optimized).graph.node if n.domain}
    x, references = inputs(name.split("_")[0])
    made = [irshap.compile(file, references, target=1) for file in (plain, optimized)]
    assert {o.domain for o in made[1].model.opset_import} == {""}
    expected, found = (np.asarray(compiled.explainer()(x).values) for compiled in made)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_blocked_layout_is_refused_with_a_hint(tmp_path: Path) -> None:
    blocked = saved(FAMILIES / "resnet_torchscript.onnx", tmp_path, "ORT_ENABLE_ALL")
    if not any(n.domain == "com.microsoft.nchwc" for n in onnx.load(blocked).graph.node):
        pytest.skip("ONNX Runtime has no blocked layout for this CPU")
    _, references = inputs("resnet")
    with pytest.raises(UserError, match="save the optimized model with ORT_ENABLE_EXTENDED"):
        irshap.compile(blocked, references)
