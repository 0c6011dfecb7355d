"""The small torch models behind tests/fixtures: a digits CNN, an MLP of smooth activations, a two-input net.

Every activation is a module of its own and none works in place: the hooks of SHAP and Captum need that.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn


class DigitsNet(nn.Sequential):
    """8x8 grey digits [N, 1, 8, 8] -> 10 logits."""

    def __init__(self) -> None:
        layers = {
            "conv1": nn.Conv2d(1, 16, 3, padding=1),
            "relu1": nn.ReLU(),
            "conv2": nn.Conv2d(16, 16, 3, padding=1),
            "relu2": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv3": nn.Conv2d(16, 32, 3, padding=1),
            "relu3": nn.ReLU(),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(128, 64),
            "relu4": nn.ReLU(),
            "fc2": nn.Linear(64, 10),
        }
        super().__init__(OrderedDict(layers))


class SmoothMlp(nn.Sequential):
    """[N, 12] -> 3 outputs through sigmoid, tanh, ELU and softplus layers."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        width = 12
        for activation in (nn.Sigmoid(), nn.Tanh(), nn.ELU(alpha=0.75), nn.Softplus()):
            layers += [nn.Linear(width, 16), activation]
            width = 16
        super().__init__(*layers, nn.Linear(width, 3))


class TwoInputs(nn.Module):
    """An image [N, 1, 8, 8] and a row of features [N, 6], a branch each, concatenated -> 4 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image_branch = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
            nn.ReLU(),
        )
        self.feature_branch = nn.Sequential(nn.Linear(6, 10), nn.Tanh())
        self.head = nn.Sequential(nn.Linear(20, 12), nn.Sigmoid(), nn.Linear(12, 4))

    def forward(self, image: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.image_branch(image), self.feature_branch(features)], dim=1)
        return self.head(joined)


def seeded(cls: type[nn.Module], seed: int, gain: float = 1.0) -> nn.Module:
    """Weights from `seed`; `gain` stretches the dense ones so that activations leave their linear part."""
    torch.manual_seed(seed)
    model = cls().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(gain)
    return model


def load_initializers(model: nn.Module, path: str) -> nn.Module:
    """Give `model` the weights of its ONNX file, so that the oracles explain what is committed."""
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    model.load_state_dict({name: torch.from_numpy(np.array(stored[name])) for name in model.state_dict()})
    return model.eval()
