"""Mints tests/fixtures/: what SHAP, Captum and autograd say of small models (see README.md here)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from exporting import difference, export, runs
from models import DigitsNet, SmoothMlp, TwoInputs, load_initializers, seeded
from peers import explain
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "irshap" / "demo"
FIXTURES = ROOT / "tests" / "fixtures"
DIGITS_EXPLAINED = 20

Tensors = Mapping[str, torch.Tensor]


def mint(name: str, model: nn.Module, inputs: Tensors, references: Tensors, path: Path | None = None) -> None:
    """Write `name`.npz, and `name`.onnx unless `path` says where the model already is."""
    if path is None:
        path = FIXTURES / f"{name}.onnx"
        export(model, {key: value[:2] for key, value in inputs.items()}, path)
    fixture, summary = explain(model, inputs, references)
    arrays = {key: value.numpy() for key, value in inputs.items()}
    error = difference(path, arrays, fixture.arrays["outputs"])
    able = runs(path)
    fixture.arrays["onnxruntime_runs"] = np.array(able)
    fixture.arrays["model"] = np.array(path.relative_to(ROOT).as_posix())
    fixture.save(FIXTURES / f"{name}.npz")
    print(f"{name}: ONNX - torch {error:.1e}{'' if able else ' (ONNX Runtime lacks kernels)'}; {summary}")


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Standard normal numbers from `seed`."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))


def double(tensors: Tensors) -> dict[str, torch.Tensor]:
    """The same tensors in float64."""
    return {name: tensor.double() for name, tensor in tensors.items()}


def main() -> None:
    """Mint every fixture."""
    torch.set_num_threads(1)  # sums in one order; torch has no deterministic mode for SHAP's max_unpool
    digits = load_initializers(DigitsNet(), str(DEMO / "digits.onnx"))
    images = np.load(DEMO / "digits_test.npz")["images"][:DIGITS_EXPLAINED]
    inputs = {"image": torch.from_numpy(images)}
    references = {"image": torch.from_numpy(np.load(DEMO / "digits_references.npy"))}
    mint("digits", digits, inputs, references, DEMO / "digits.onnx")
    mint("digits_f64", digits.double(), double(inputs), double(references))

    smooth = seeded(SmoothMlp, seed=1, gain=3.0)
    inputs, references = {"x": 1.5 * normal(11, 10, 12)}, {"x": 1.5 * normal(12, 7, 12)}
    mint("smooth_mlp", smooth, inputs, references)
    mint("smooth_mlp_f64", smooth.double(), double(inputs), double(references))

    two = seeded(TwoInputs, seed=2, gain=3.0)
    inputs = {"image": normal(21, 10, 1, 8, 8), "features": normal(22, 10, 6)}
    references = {"image": normal(23, 7, 1, 8, 8), "features": normal(24, 7, 6)}
    mint("two_inputs", two, inputs, references)


if __name__ == "__main__":
    main()
