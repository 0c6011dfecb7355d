"""The fixture models with what the peers found, and the explanations that tests share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import flat
import numpy as np
from places import FIXTURES

from irshap import demo
from irshap.pipeline.named import PIPELINES

FAMILIES = ("densenet", "efficientnet", "encoder", "resnet", "text", "vgg", "vgg_bn", "vit")
EXPORTS = ("torchscript", "dynamo", "batch1")
SINGLE = ("digits", "smooth_mlp", "two_inputs")
DOUBLE = ("digits_f64", "smooth_mlp_f64")
MODELS = (*SINGLE, *(f"{family}_{export}" for family in FAMILIES for export in EXPORTS))
NAIVE, DEFAULT = (
    PIPELINES[name].replace("lift,", "lift,{widen}", 1).removesuffix(",lower")
    for name in ("naive", "default")
)


@dataclass(frozen=True)
class Case:
    """A fixture: the model, samples and references by input, and what the peers found."""

    path: Path
    inputs: dict[str, Any]
    references: dict[str, Any]
    data: Any
    wrt: str | None = None

    def cut(self, samples: int, references: int) -> tuple[dict[str, Any], dict[str, Any]]:
        return (
            {n: a[:samples] for n, a in self.inputs.items()},
            {n: a[:references] for n, a in self.references.items()},
        )


@cache
def case(name: str) -> Case:
    if name in (*SINGLE, *DOUBLE):
        data = dict(np.load(FIXTURES / f"{name}.npz"))
        path = demo.model_path() if name == "digits" else FIXTURES / f"{name}.onnx"
        names, wrt = [str(n) for n in data["input_names"]], None
    else:
        family, _, export = name.rpartition("_")
        data = dict(np.load(FIXTURES / "families" / f"{family}.npz"))
        path = FIXTURES / "families" / f"{name}.onnx"
        names, wrt = [str(n) for n in data["input_names"]], None
        if family == "text":
            names, wrt = ["tokens"], str(data[f"embedded_name.{export}"])
    sets = ({n: data[f"{kind}.{n}"] for n in names} for kind in ("inputs", "references"))
    return Case(path, *sets, data, wrt)


def attributions(raw: dict[str, Any]) -> dict[str, Any]:
    return {n.removesuffix("_attributions"): a for n, a in raw.items() if n.endswith("_attributions")}


def largest(values: dict[str, Any]) -> float:
    return max(float(np.abs(a).max()) for a in values.values())


def assert_close(found: dict[str, Any], wanted: dict[str, Any], tolerance: float) -> None:
    """Within `tolerance` of the largest attribution."""
    assert found.keys() == wanted.keys()
    scale = largest(wanted)
    for name, array in wanted.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance * scale, err_msg=name)


@cache
def explained(name: str, passes: str) -> Any:
    """The explanation of all samples in the model's own precision, by ONNX Runtime."""
    given = case(name)
    compiled = flat.compile(given.path, given.references, passes=passes, wrt=given.wrt)
    return compiled.explainer()(given.inputs)
