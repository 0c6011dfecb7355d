"""SHAP's DeepExplainer or Captum's DeepLiftShap on a model of torch as it is, in a process of its own.

    python -m zoo_models.peers SUITE MODEL shap|captum

Prints one JSON object: the completeness error of the largest output of each sample, relative to the largest
|f(x) - base| as the zoo has it, or what the package says.  Its warnings, of modules that it doesn't know,
aren't counted: the error says what they do.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import shap
import torch
from captum.attr import DeepLiftShap
from torch import Tensor, nn

from zoo_models.case import Inputs
from zoo_models.measure import EXACT
from zoo_models.runs import PEERS
from zoo_models.suites import SUITES

__all__ = ["compared"]

Arrays = list[Any]


def shap_values(model: nn.Module, x: list[Tensor], references: list[Tensor], targets: Tensor) -> Arrays:
    """Of the largest output of each sample."""
    explainer = shap.DeepExplainer(model, references if len(x) > 1 else references[0])
    given = x if len(x) > 1 else x[0]
    values, ranks = explainer.shap_values(given, ranked_outputs=1, check_additivity=False)
    if not np.array_equal(np.asarray(ranks)[:, 0], targets.numpy()):
        raise ValueError("it explains another output")
    return [np.asarray(v)[..., 0] for v in (values if isinstance(values, list) else [values])]


def captum_values(model: nn.Module, x: list[Tensor], references: list[Tensor], targets: Tensor) -> Arrays:
    found = DeepLiftShap(model).attribute(tuple(x), tuple(references), target=targets)
    return [v.detach().numpy() for v in found]


VALUES: dict[str, Callable[..., Arrays]] = dict(zip(PEERS, (shap_values, captum_values), strict=True))


class Flat(nn.Module):
    """A model whose explained output is [N, K], of tensors in order."""

    def __init__(self, model: nn.Module, output: str | None) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, *tensors: Tensor) -> Tensor:
        found = self.model(*tensors)
        if self.output is not None:
            found = found[self.model.gives.index(self.output)]  # type: ignore[operator, union-attr]
        return found.flatten(1)


def compared(peer: str, model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """`result` is complete, inexact or failed, with the error or what was said."""
    if inputs.told.get("batch") == "none" or set(inputs.references) != set(inputs.samples):
        return {"result": "failed", "message": "it takes no input that is held"}
    x, references = (
        [torch.from_numpy(a) for a in part.values()] for part in (inputs.samples, inputs.references)
    )
    if any(not t.is_floating_point() for t in x):
        return {"result": "failed", "message": "it takes no integers"}
    flat = Flat(model.eval(), inputs.told.get("output")).requires_grad_(False)
    with torch.no_grad():
        y = flat(*x)
        targets = y.argmax(1)
        fx = y.gather(1, targets[:, None])[:, 0].double()
        base = flat(*references)[:, targets].double().mean(0)
    try:
        values = VALUES[peer](flat, [t.requires_grad_() for t in x], references, targets)
    except Exception as error:  # whatever a package raises is its answer
        said = str(error).strip().splitlines() or [""]
        return {"result": "failed", "message": f"{type(error).__name__}: {said[0]}"[:300]}
    total = sum(np.asarray(v, np.float64).reshape(len(v), -1).sum(1) for v in values)
    difference = (fx - base).numpy()
    error = float(np.abs(difference - total).max() / np.abs(difference).max())
    return {"result": "complete" if error <= EXACT else "inexact", "error": error}


def main() -> None:
    suite, name, peer = sys.argv[1:]
    warnings.simplefilter("ignore")
    model, inputs = SUITES[suite].build(name)
    print(json.dumps(compared(peer, model, inputs)))


if __name__ == "__main__":
    main()
