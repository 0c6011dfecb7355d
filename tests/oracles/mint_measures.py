"""Mints tests/fixtures/measures.npz: what Captum and Quantus say of gradients on the digits CNN (README.md).

Both get the draws of irshap's seeds: standard normal and uniform ones of numpy's default_rng(seed), the same
for all samples.
"""

from __future__ import annotations

import json
import platform
import warnings
from pathlib import Path

import captum
import numpy as np
import quantus
import torch
from captum.attr import Saliency
from captum.metrics import infidelity, sensitivity_max
from models import DigitsNet, load_initializers

ROOT = Path(__file__).resolve().parents[2]
SAMPLES, SEED, NOISE, RADIUS = 12, 5, 0.2, 0.05


def main() -> None:
    """Mints the fixture."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    demo = ROOT / "irshap" / "demo"
    model = load_initializers(DigitsNet(), str(demo / "digits.onnx")).eval()
    x = torch.from_numpy(np.load(demo / "digits_test.npz")["images"][:6])
    target = model(x).argmax(1)

    def explain(inputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return Saliency(model).attribute(inputs, target, abs=False)

    a = explain(x, target)
    shape = (SAMPLES, *x.shape[1:])
    # Captum repeats each sample SAMPLES times in place
    noise = torch.from_numpy(NOISE * np.random.default_rng(SEED).standard_normal(shape)).float()
    noise = noise.repeat(len(x), 1, 1, 1)
    near = torch.from_numpy(np.random.default_rng(SEED).uniform(-RADIUS, RADIUS, shape)).float()
    near = near.repeat(len(x), 1, 1, 1)
    arrays = {
        "infidelity": infidelity(
            model,
            lambda inputs, *_: (noise, inputs - noise),
            x,
            a,
            target=target,
            n_perturb_samples=SAMPLES,
            max_examples_per_batch=SAMPLES * len(x),
        ),
        "sensitivity-max": sensitivity_max(
            explain,
            x,
            lambda inputs, *_: inputs + near,
            n_perturb_samples=SAMPLES,
            target=target,
            max_examples_per_batch=SAMPLES * len(x),
        ),
    }
    arrays = {name: values.detach().numpy() for name, values in arrays.items()}
    given = {
        "model": model,
        "x_batch": x.numpy(),
        "y_batch": target.numpy(),
        "a_batch": a.detach().numpy(),
        "device": "cpu",
    }
    plain = {"normalise": False, "disable_warnings": True, "display_progressbar": False}
    arrays["sparseness"] = np.array(quantus.Sparseness(**plain)(**given))
    flipping = quantus.PixelFlipping(features_in_step=1, perturb_baseline=0.0, abs=False, **plain)
    arrays["deletion"] = np.array(flipping(**given, softmax=True))
    versions = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__.split("+")[0],
        "captum": captum.__version__,
        "quantus": quantus.__version__,
    }
    path = ROOT / "tests" / "fixtures" / "measures.npz"
    arrays |= {"inputs": x.numpy(), "attributions": a.detach().numpy(), "target_index": target.numpy()}
    np.savez_compressed(path, **arrays, versions=np.array(json.dumps(versions)))
    print(path.name, path.stat().st_size, {name: values.shape for name, values in arrays.items()})


if __name__ == "__main__":
    main()
