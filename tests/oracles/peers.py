"""What the peers say: SHAP's DeepExplainer, Captum's DeepLiftShap and autograd, on one torch model.

The target of each sample is its largest output. Neither peer is trusted: how far its attributions miss
f(x) - base is stored beside them, per sample, and `*_complete` says whether the worst miss is below 1e-3.

Captum 0.9 goes wrong wherever two nonlinear modules touch (ReLU, then max-pool): the hook that hands the
first its output gradient sits on the very tensor whose gradient the second is about to replace, and runs
before it. So it is asked twice: as it is (`captum`) and with a copy before every such module
(`captum_separated`).
"""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path

import captum
import numpy as np
import shap
import torch
from captum.attr import DeepLiftShap
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import nn

COMPLETE = 1e-3


class Fixture:
    """The arrays of one .npz, with the per-input ones named `<what>.<input>`."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}

    def put(self, what: str, tensors: Mapping[str, torch.Tensor | np.ndarray]) -> None:
        for name, tensor in tensors.items():
            self.arrays[f"{what}.{name}"] = np.ascontiguousarray(np.asarray(tensor))

    def save(self, path: Path, limit: int = 300 * 1024) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **self.arrays)
        if path.stat().st_size >= limit:
            raise SystemExit(f"{path.name} has {path.stat().st_size} bytes, the limit is {limit}")


def versions() -> str:
    """The versions that the numbers depend on, as JSON."""
    found = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__.split("+")[0],
        "shap": shap.__version__,
        "captum": captum.__version__,
    }
    return json.dumps(found)


def shap_values(
    model: nn.Module, inputs: list[torch.Tensor], references: list[torch.Tensor]
) -> tuple[list[np.ndarray], np.ndarray]:
    """SHAP's attributions per input for the largest output, and that output's index per sample."""
    single = len(inputs) == 1
    explainer = shap.DeepExplainer(model, references[0] if single else references)
    values, ranks = explainer.shap_values(
        inputs[0] if single else inputs, ranked_outputs=1, check_additivity=False
    )
    parts = [values] if single else list(values)
    return [np.asarray(part)[..., 0] for part in parts], ranks[:, 0].numpy()


def captum_values(
    model: nn.Module,
    inputs: list[torch.Tensor],
    references: list[torch.Tensor],
    target: torch.Tensor,
    *,
    separated: bool = False,
) -> list[np.ndarray]:
    """Captum's attributions per input for the outputs `target`."""
    copied = [module for module in model.modules() if separated and type(module) in SUPPORTED_NON_LINEAR]
    handles = [module.register_forward_pre_hook(lambda _, args: args[0].clone()) for module in copied]
    try:
        values = DeepLiftShap(model).attribute(tuple(inputs), tuple(references), target=target)
    finally:
        for handle in handles:
            handle.remove()
    return [part.detach().numpy() for part in values]


def gradients(model: nn.Module, inputs: list[torch.Tensor], target: torch.Tensor) -> list[np.ndarray]:
    """The derivative of the target output at each input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    chosen = model(*leaves).gather(1, target[:, None]).sum()
    return [part.numpy() for part in torch.autograd.grad(chosen, leaves)]


def misses(values: list[np.ndarray], gap: np.ndarray) -> np.ndarray:
    """f(x) - base - sum of attributions, per sample, summed in float64."""
    total = sum(part.reshape(len(part), -1).sum(1, dtype=np.float64) for part in values)
    return gap - total


def explain(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], references: Mapping[str, torch.Tensor]
) -> tuple[Fixture, str]:
    """Every oracle's answer for `model`, and a line that sums up how they fared."""
    model = model.eval()
    names = list(inputs)
    x = [inputs[name] for name in names]
    r = [references[name] for name in names]
    with torch.no_grad():
        outputs, reference_outputs = model(*x), model(*r)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both warn of modules they don't know; the completeness says it
        by_shap, chosen = shap_values(model, x, r)
        target = torch.from_numpy(chosen.astype(np.int64))
        answers = {
            "shap": by_shap,
            "captum": captum_values(model, x, r, target),
            "captum_separated": captum_values(model, x, r, target, separated=True),
        }
    dtype = x[0].numpy().dtype
    at = outputs.gather(1, target[:, None])[:, 0].double().numpy()
    base = reference_outputs.double().mean(0)[target].numpy()
    fixture = Fixture()
    fixture.put("inputs", inputs)
    fixture.put("references", references)
    fixture.put("gradients", dict(zip(names, gradients(model, x, target), strict=True)))
    fixture.arrays |= {
        "input_names": np.array(names),
        "outputs": outputs.numpy(),
        "base_values": base.astype(dtype),
        "target_index": target.numpy(),
        "versions": np.array(versions()),
    }
    summary = f"f(x)-base {np.abs(at - base).min():.2g}..{np.abs(at - base).max():.2g}; misses"
    for peer, values in answers.items():
        parts = [part.astype(dtype) for part in values]
        missed = misses(parts, at - base)
        fixture.put(f"{peer}_values", dict(zip(names, parts, strict=True)))
        fixture.arrays[f"{peer}_error"] = missed
        fixture.arrays[f"{peer}_complete"] = np.array(np.abs(missed).max() <= COMPLETE)
        apart = max(float(np.abs(a - b).max()) for a, b in zip(parts, by_shap, strict=True))
        summary += f" {peer} {np.abs(missed).max():.1e} (from shap's {apart:.1e})"
    return fixture, summary
