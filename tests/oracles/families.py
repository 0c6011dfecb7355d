"""Networks of the great families, made tiny: the shapes of their graphs with a few thousand weights each.

As in models.py each activation is a module of its own and none works in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

CLASSES = 5


def vgg(normed: bool = False) -> nn.Module:
    """Convolutions with ReLU in stages that end in max-pooling, then dense layers. [N, 3, 16, 16]."""
    layers: list[nn.Module] = []
    channels = 3
    for width, depth in ((8, 1), (12, 2), (16, 2)):
        for _ in range(depth):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if normed else []
            layers.append(nn.ReLU())
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(24, CLASSES))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x))."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.relu = branch, shortcut, nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.branch(x) + self.shortcut(x))


def resnet() -> nn.Module:
    """Stem with an overlapping max-pool, two basic blocks, a bottleneck. [N, 3, 24, 24]."""
    basic = nn.Sequential(conv_norm(8, 8, 3), nn.ReLU(), conv_norm(8, 8, 3))
    strided = nn.Sequential(conv_norm(8, 12, 3, stride=2), nn.ReLU(), conv_norm(12, 12, 3))
    bottleneck = nn.Sequential(
        conv_norm(12, 6, 1), nn.ReLU(), conv_norm(6, 6, 3), nn.ReLU(), conv_norm(6, 20, 1)
    )
    return nn.Sequential(
        conv_norm(3, 8, 7, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        Residual(basic, nn.Identity()),
        Residual(strided, conv_norm(8, 12, 1, stride=2)),
        Residual(bottleneck, conv_norm(12, 20, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(20, CLASSES),
    )


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 convolution, and again with 3x3; appended to the channels of the input."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth),
            nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


def densenet() -> nn.Module:
    """Two dense blocks with an average-pooling transition, behind ResNet's stem. [N, 3, 24, 24]."""
    growth = 4
    return nn.Sequential(
        conv_norm(3, 8, 7, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        DenseLayer(8, growth),
        DenseLayer(12, growth),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 1, bias=False),
        nn.AvgPool2d(2),
        DenseLayer(8, growth),
        DenseLayer(12, growth),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


class SqueezeExcite(nn.Module):
    """x times a sigmoid gate per channel, itself computed from x: a product of two varying tensors."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(x) * x


class MobileBlock(nn.Module):
    """Expand, depthwise convolution, squeeze-excite, project; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = 2 * inputs
        self.layers = nn.Sequential(
            conv_norm(inputs, wide, 1),
            nn.SiLU(),
            conv_norm(wide, wide, kernel, stride, groups=wide),
            nn.SiLU(),
            SqueezeExcite(wide, 4),
            conv_norm(wide, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


def efficientnet() -> nn.Module:
    """A stem, three mobile blocks, a head. [N, 3, 24, 24]."""
    return nn.Sequential(
        conv_norm(3, 8, 3, stride=2),
        nn.SiLU(),
        MobileBlock(8, 8, 3, 1),
        MobileBlock(8, 12, 5, 2),
        MobileBlock(12, 12, 3, 1),
        conv_norm(12, 24, 1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(24, CLASSES),
    )


class Attention(nn.Module):
    """Multi-head self-attention written out: both of its products are of two varying tensors."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)
        self.heads, self.size = heads, width // heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        split = self.query_key_value(x).reshape(batch, length, 3, self.heads, self.size)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.softmax(query @ key.transpose(-2, -1) / math.sqrt(self.size))
        return self.out((weights @ value).transpose(1, 2).reshape(batch, length, width))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block: attention and a GELU layer, each with layer norm and a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.dense = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        return x + self.dense(x)


class Encoder(nn.Module):
    """One block over a sequence of vectors, mean over the sequence. [N, 6, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.norm, self.head = EncoderBlock(16, 2), nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.block(x)).mean(dim=1))


class VisionTransformer(nn.Module):
    """Patches by a strided convolution, a class token in front, one block. [N, 3, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(0.2 * torch.randn(1, 17, 16))
        self.block, self.norm, self.head = EncoderBlock(16, 4), nn.LayerNorm(16), nn.Linear(16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sequence = self.patches(x).flatten(2).transpose(1, 2)
        sequence = torch.cat([self.token.expand(x.shape[0], -1, -1), sequence], dim=1)
        return self.head(self.norm(self.block(sequence + self.positions))[:, 0])


class TextTail(nn.Module):
    """What follows the embedding of TextClassifier: the part that an explainer can differentiate."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.2 * torch.randn(1, length, width))
        self.attention, self.dense = Attention(width, 2), nn.Linear(width, width)
        self.tanh, self.head = nn.Tanh(), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.positions
        x = x + self.attention(x)
        return self.head(self.tanh(self.dense(x.mean(dim=1))))


class TextClassifier(nn.Module):
    """int64 token ids, embedding, attention, mean over the text. [N, 10], ids below 40."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.tail = TextTail(16, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.tail(self.embedding(tokens))


FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vgg": (vgg, (3, 16, 16)),
    "vgg_bn": (lambda: vgg(normed=True), (3, 16, 16)),
    "resnet": (resnet, (3, 24, 24)),
    "densenet": (densenet, (3, 24, 24)),
    "efficientnet": (efficientnet, (3, 24, 24)),
    "encoder": (Encoder, (6, 16)),
    "vit": (VisionTransformer, (3, 16, 16)),
    "text": (TextClassifier, (10,)),
}


def calibrate(model: nn.Module, batches: list[torch.Tensor]) -> nn.Module:
    """Batch-norm statistics as the plain average over `batches`: else the outputs would hardly vary."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # cumulative average
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    return model.eval()


def build(name: str, seed: int) -> nn.Module:
    """A family with weights from `seed`, calibrated, its last layer set to outputs of mean 0 and spread 1."""
    torch.manual_seed(seed)
    model = FAMILIES[name][0]()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    batches = [sample(name, 32, seed + 1000 + i) for i in range(4)]
    model = calibrate(model, batches)
    with torch.no_grad():
        last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.div_(model(torch.cat(batches)).std(0).mean())
        last.bias.sub_(model(torch.cat(batches)).mean(0))
    return model


def sample(name: str, count: int, seed: int) -> torch.Tensor:
    """`count` random inputs of a family: normal numbers, or token ids."""
    shape = (count, *FAMILIES[name][1])
    generator = torch.Generator().manual_seed(seed)
    if name == "text":
        return torch.randint(40, shape, generator=generator)
    return torch.randn(shape, generator=generator)
