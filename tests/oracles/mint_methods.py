"""Mints tests/fixtures/methods.npz: what Captum and zennit say of the digits CNN by method (see README.md).

Where a method draws, Captum gets the draws of irshap's seeds: of numpy's default_rng(seed), standard normal
noise [samples, ...], and one permutation after the other.  Captum adds features to the reference, irshap
replaces them by it: the same walk backward, so that Captum's permutations are these reversed.
"""

from __future__ import annotations

import json
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import captum
import numpy as np
import torch
from captum import attr
from models import DigitsNet, load_initializers
from zennit import rules, types
from zennit.attribution import Gradient
from zennit.composites import GuidedBackprop, LayerMapComposite

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "irshap" / "demo"
SAMPLES, SEED, NOISE, PERMUTATIONS = 8, 3, 0.25, 5
EPSILON = 0.1
"""Large enough to be seen beside activations."""
GROUPS = np.kron(np.arange(16).reshape(4, 4), np.ones((2, 2), np.int64))[None]
"""Patches of 2 x 2 pixels."""


def smooth(model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """NoiseTunnel over the signed gradient, every sample with the same noise."""
    draws = np.random.default_rng(SEED).standard_normal((SAMPLES, *x.shape[1:])) * NOISE
    noise = torch.from_numpy(draws).float().repeat(len(x), 1, 1, 1)
    with patch("torch.normal", lambda *_, **__: noise):
        tunnel = attr.NoiseTunnel(attr.Saliency(model))
        return tunnel.attribute(x, nt_samples=SAMPLES, stdevs=NOISE, target=target, abs=False)


def sampled(model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor, **options: object) -> torch.Tensor:
    """ShapleyValueSampling with the permutations of the seed, backward."""
    rng = np.random.default_rng(SEED)
    orders = [rng.permutation(16)[::-1].tolist() for _ in range(PERMUTATIONS)]
    method = attr.ShapleyValueSampling(model)
    method.permutation_generator = lambda *_: iter(orders)
    return method.attribute(x, target=target, n_samples=PERMUTATIONS, **options)


def propagated(model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """zennit's epsilon rule at every layer with weights.

    The output's relevance is its score stabilized as the last layer will divide it: nothing follows that
    layer, so that the rule of Ancona et al. (2018) has no slope there.
    """
    rule = rules.Epsilon(epsilon=EPSILON)
    layers = [(types.Activation, rules.Pass()), (types.Convolution, rule), (types.Linear, rule)]
    chosen = torch.nn.functional.one_hot(target, 10)
    with Gradient(model=model, composite=LayerMapComposite(layers)) as attributor:
        score = model(x).detach()
        return attributor(x, chosen * (score + EPSILON * torch.where(score < 0, -1, 1)))[1]


def guided(model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """zennit's guided backpropagation."""
    with Gradient(model=model, composite=GuidedBackprop()) as attributor:
        return attributor(x, torch.nn.functional.one_hot(target, 10).float())[1]


def main() -> None:
    """Mints the fixture."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model = load_initializers(DigitsNet(), str(DEMO / "digits.onnx"))
    x = torch.from_numpy(np.load(DEMO / "digits_test.npz")["images"][:4])
    base = torch.from_numpy(np.load(DEMO / "digits_references.npy")[:1])
    target = model(x).argmax(1)
    masked = {"baselines": base, "feature_mask": torch.from_numpy(GROUPS[None])}
    found = {
        "saliency": attr.Saliency(model).attribute(x, target),
        "gradient": attr.Saliency(model).attribute(x, target, abs=False),
        "input-x-gradient": attr.InputXGradient(model).attribute(x, target),
        "guided-backprop": attr.GuidedBackprop(model).attribute(x, target),
        "smooth-grad": smooth(model, x, target),
        "integrated-gradients": attr.IntegratedGradients(model).attribute(x, base, target, n_steps=50),
        "occlusion": attr.Occlusion(model).attribute(x, (1, 3, 3), (1, 1, 1), target=target),
        "grad-cam": attr.LayerAttribution.interpolate(
            attr.LayerGradCam(model, model.relu3).attribute(x, target, relu_attributions=True),
            (8, 8),
            "bilinear",
        ),
        "feature-ablation": attr.FeatureAblation(model).attribute(x, target=target, **masked),
        "shapley-sampling": sampled(model, x, target, **masked),
        "zennit.epsilon-lrp": propagated(model, x, target),
        "zennit.guided-backprop": guided(model, x, target),
    }
    arrays = {name: values.detach().numpy().astype(np.float32) for name, values in found.items()}
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__.split("+")[0],
        "captum": captum.__version__,
        "zennit": version("zennit"),
    }
    arrays |= {"inputs": x.numpy(), "references": base.numpy(), "groups": GROUPS}
    path = ROOT / "tests" / "fixtures" / "methods.npz"
    np.savez_compressed(path, **arrays, target_index=target.numpy(), versions=np.array(json.dumps(versions)))
    print(path.name, path.stat().st_size, {name: float(np.abs(a).max()) for name, a in arrays.items()})


if __name__ == "__main__":
    main()
