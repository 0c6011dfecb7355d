"""Mints tests/fixtures/training/: gradients and training runs of torch with priors on attributions.

Loss + weight x prior by every parameter is torch's double backward, in float64.  The priors are written here
as their authors have them, pair by pair.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from exporting import export
from torch import nn
from torch.nn import functional

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "training"
ROWS, REFERENCES, STEPS, BATCH = 12, 3, 100, 4
WEIGHT = 0.3

Attribute = Callable[[nn.Module, torch.Tensor, dict[str, torch.Tensor]], torch.Tensor]


class Mlp(nn.Module):
    shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 7), nn.Softplus(), nn.Linear(7, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Cnn(nn.Module):
    """Batch norm, overlapping max pooling, a strided and a grouped convolution.

    No bias stands before the batch norm: its gradient would be rounding alone, which AdamW makes steps of.
    """

    shape = (2, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(24, 3),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Block(nn.Module):
    """A transformer block over 5 tokens of 8 numbers, two heads; weights keep their names in ONNX."""

    shape = (5, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(8), nn.LayerNorm(8)
        for name, size in {"query": 8, "key": 8, "value": 8, "merge": 8, "up": 16}.items():
            self.register_parameter(name, nn.Parameter(torch.randn(8, size) / 8**0.5))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.randn(size) * 0.1))
        self.down = nn.Parameter(torch.randn(16, 8) / 4)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        q, k, v = (
            (h @ getattr(self, n) + getattr(self, f"{n}_bias")).reshape(-1, 5, 2, 4).transpose(1, 2)
            for n in ("query", "key", "value")
        )
        mixed = torch.softmax(q @ k.transpose(2, 3) / 2, -1) @ v
        x = x + mixed.transpose(1, 2).reshape(-1, 5, 8) @ self.merge + self.merge_bias
        x = x + functional.gelu(self.second(x) @ self.up + self.up_bias) @ self.down
        return self.head(x.mean(1))


def class_gradient(model: nn.Module, x: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    target = model(x).gather(1, data["labels"][:, None]).sum()
    return torch.autograd.grad(target, x, create_graph=True)[0]


def input_x_gradient(model: nn.Module, x: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    return x * class_gradient(model, x, data)


def log_gradient(model: nn.Module, x: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.autograd.grad(torch.log_softmax(model(x), 1).sum(), x, create_graph=True)[0]


def expected_gradients(model: nn.Module, x: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    total = torch.zeros_like(x)
    for r in range(REFERENCES):
        start = data["references"][:, r]
        place = data["places"][:, r].reshape(-1, *[1] * (x.dim() - 1))
        total = total + (x - start) * class_gradient(model, start + place * (x - start), data)
    return total / REFERENCES


def sparse(a: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    size = a.abs().mean(0).reshape(-1)
    return -(size[:, None] - size[None]).abs().sum() / (len(size) * size.sum())


def total_variation(a: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    axes = range(2, a.dim()) if a.dim() > 2 else [1]
    return torch.stack([a.diff(dim=axis).abs().sum() for axis in axes]).sum() / len(a)


def right_reasons(a: torch.Tensor, data: dict[str, torch.Tensor]) -> torch.Tensor:
    return (data["mask"] * a).square().sum() / len(a)


CASES: dict[str, tuple[Attribute, Callable[..., torch.Tensor]]] = {
    "sparse": (input_x_gradient, sparse),
    "total-variation": (class_gradient, total_variation),
    "right-reasons": (log_gradient, right_reasons),
    "expected": (expected_gradients, sparse),
}
"""By the name of what the tests ask irshap for: attributions, and the prior on them."""


def parts(model: nn.Module, case: str, data: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and prior."""
    x = data["x"].requires_grad_()
    each = functional.cross_entropy(model(x), data["labels"], reduction="none")
    loss = (each * data["weights"]).sum() / data["weights"].sum()
    if case == "plain":
        return loss, torch.zeros(())
    attribute, prior = CASES[case]
    # running statistics move once in a step
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.0
    found = prior(attribute(model, x, data), data)
    for norm in norms:
        norm.momentum = 0.1
    return loss, found


def drawn(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {
        "x": rng.normal(size=(ROWS, *shape)),
        "labels": rng.integers(0, 3, ROWS),
        "weights": rng.random(ROWS) + 0.5,
        "mask": (rng.random((ROWS, *shape)) < 0.3).astype(np.float64),
        "references": rng.normal(size=(ROWS, REFERENCES, *shape)),
        "places": rng.random((ROWS, REFERENCES)),
    }


RUNS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.02),
}


def mint(name: str, make: Callable[[], nn.Module]) -> None:
    def fresh() -> nn.Module:
        torch.manual_seed(3)
        model = make().double().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                # also because the exporter makes one initializer of two that are equal
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
        return model

    given = drawn(make.shape)
    data = {k: torch.from_numpy(v) for k, v in given.items()}
    model = fresh()
    for kind, suffix in ((torch.float64, ""), (torch.float32, "_f32")):
        export(model.to(kind), {"x": data["x"].to(kind)}, FOLDER / f"{name}{suffix}.onnx", folded=False)
    found: dict[str, np.ndarray] = dict(given)
    forms = {"": False, "batch.": True} if name == "cnn" else {"": False}
    for form, training in forms.items():
        for case in ("plain", *CASES):
            if training and case == "expected":
                continue
            model = fresh().train(training)
            loss, prior = parts(model, case, data)
            (loss + WEIGHT * prior).backward()
            found[f"{form}{case}.loss"] = loss.detach().numpy()
            found[f"{form}{case}.prior"] = prior.detach().numpy()
            for parameter, value in model.named_parameters():
                found[f"{form}{case}.gradient.{parameter}"] = value.grad.numpy()
        for optimizer, build in RUNS.items():
            model = fresh().train(training)
            steps, losses = build(model.parameters()), []
            for step in range(STEPS):
                rows = np.arange(step * BATCH, (step + 1) * BATCH) % ROWS
                batch = {k: torch.from_numpy(v[rows]) for k, v in given.items()}
                loss, prior = parts(model, "sparse", batch)
                steps.zero_grad()
                (loss + WEIGHT * prior).backward()
                steps.step()
                losses.append(loss.item())
            found[f"{form}{optimizer}.losses"] = np.array(losses)
            for parameter, value in model.state_dict().items():
                if "num_batches" not in parameter:
                    found[f"{form}{optimizer}.final.{parameter}"] = value.numpy()
    found["versions"] = np.array(
        json.dumps({"python": platform.python_version()} | {n: version(n) for n in ("numpy", "torch")})
    )
    np.savez_compressed(FOLDER / f"{name}.npz", **found)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for network in (Mlp, Cnn, Block):
        mint(network.__name__.lower(), network)
