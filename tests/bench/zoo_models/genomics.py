"""Networks of regulatory genomics, small: one-hot sequences [N, 4, L] as these have them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from zoo_models.case import REFERENCES, SAMPLES, Inputs
from zoo_models.vision import settle

__all__ = ["make", "models"]

LENGTH, TRACKS = 128, 5


class BPNet(nn.Module):
    """Dilated residual convolutions, a head for the profile and one for the counts (Avsec et al. 2021)."""

    gives = ("profile", "counts")

    def __init__(self, width: int = 16, layers: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, width, 21, padding=10)
        self.dilated = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=2**i, dilation=2**i) for i in range(1, layers + 1)
        )
        self.profile = nn.Conv1d(width, 2, 25, padding=12)
        self.counts = nn.Linear(width, 2)

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(sequence).relu()
        for layer in self.dilated:
            x = x + layer(x).relu()
        return self.profile(x), self.counts(x.mean(2))


class ChromBPNet(nn.Module):
    """A BPNet beside one of the assay's bias; counts add up in log space (Pampari et al. 2024)."""

    gives = ("profile", "counts")

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.main = BPNet(8, 2), BPNet()

    def forward(self, sequence: Tensor) -> tuple[Tensor, Tensor]:
        profile, counts = self.main(sequence)
        bias_profile, bias_counts = self.bias(sequence)
        total = torch.logsumexp(torch.stack([counts, bias_counts], -1), -1)
        return profile + bias_profile, total


class DeepSEA(nn.Module):
    """Convolutions with max-pooling, then dense layers (Zhou, Troyanskaya 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(4, 24, 8), nn.ReLU(), nn.MaxPool1d(4), nn.Dropout(0.2),
            nn.Conv1d(24, 32, 8), nn.ReLU(), nn.MaxPool1d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(32 * 5, 32), nn.ReLU(), nn.Linear(32, TRACKS), nn.Sigmoid())

    def forward(self, sequence: Tensor) -> Tensor:
        return self.head(self.features(sequence))


class Basset(nn.Module):
    """As DeepSEA, with batch normalization (Kelley et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, size, pool in ((4, 24, 19, 3), (24, 32, 11, 4), (32, 32, 7, 4)):
            conv = nn.Conv1d(before, after, size, padding=size // 2)
            layers += [conv, nn.BatchNorm1d(after), nn.ReLU(), nn.MaxPool1d(pool)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, TRACKS)
        )

    def forward(self, sequence: Tensor) -> Tensor:
        return self.head(self.features(sequence))


class DanQ(nn.Module):
    """A convolution, then an LSTM in both directions (Quang, Xie 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv1d(4, 24, 16), nn.ReLU(), nn.MaxPool1d(9))
        self.layer = nn.LSTM(24, 16, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Linear(12 * 32, 32), nn.ReLU(), nn.Linear(32, TRACKS))

    def forward(self, sequence: Tensor) -> Tensor:
        states = self.layer(self.features(sequence).transpose(1, 2))[0]
        return self.head(states.flatten(1))


class SpliceAI(nn.Module):
    """Residual blocks with activation first, a skip from each (Jaganathan et al. 2019)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.skip = nn.Conv1d(4, width, 1), nn.Conv1d(width, width, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width), nn.ReLU(), nn.Conv1d(width, width, 11, padding=5 * d, dilation=d),
                nn.BatchNorm1d(width), nn.ReLU(), nn.Conv1d(width, width, 11, padding=5 * d, dilation=d),
            )
            for d in (1, 4)
        )  # fmt: skip
        self.skips = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))
        self.head = nn.Conv1d(width, 3, 1)

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.first(sequence)
        total = self.skip(x)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            x = x + block(x)
            total = total + skip(x)
        return self.head(total[:, :, 40:-40]).softmax(1)


class Swish(nn.Module):
    """x sigma(1.702 x), Enformer's GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(1.702 * x) * x


class AttentionPool(nn.Module):
    """Pairs of positions weighted by a softmax of their own projections."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.reshape(x.shape[0], x.shape[1], x.shape[2] // 2, 2)
        return (pairs * self.logits(pairs).softmax(-1)).sum(-1)


class RelativeAttention(nn.Module):
    """Attention with a relative shift of positional logits (Transformer-XL), as Enformer has it."""

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, size = heads, width // heads
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        distance = torch.arange(1 - length, length).float()
        exponents = torch.exp(-distance.abs()[:, None] / 2.0 ** torch.arange(1, 5))
        self.register_buffer("positions", torch.cat([exponents, distance.sign()[:, None] * exponents], 1))
        self.relative = nn.Linear(8, width, bias=False)
        self.content, self.place = (nn.Parameter(torch.randn(heads, 1, size)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = q * q.shape[-1] ** -0.5
        keys = self.relative(self.positions).reshape(2 * length - 1, self.heads, -1).transpose(0, 1)
        places = (q + self.place) @ keys.transpose(-1, -2)  # [N, heads, length, 2 length - 1]
        shifted = torch.cat([torch.zeros_like(places[..., :1]), places], -1)
        shifted = shifted.reshape(n, self.heads, 2 * length, length)[:, :, 1:]
        shifted = shifted.reshape(n, self.heads, length, 2 * length - 1)[..., :length]
        weights = ((q + self.content) @ k.transpose(-1, -2) + shifted).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, width))


class Enformer(nn.Module):
    """A convolutional tower with attention pooling, transformer blocks, tracks (Avsec et al. 2021)."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()

        def block(before: int, size: int) -> nn.Sequential:
            return nn.Sequential(
                nn.BatchNorm1d(before), Swish(), nn.Conv1d(before, width, size, padding=size // 2)
            )

        self.stem = nn.Sequential(nn.Conv1d(4, width, 15, padding=7), block(width, 1), AttentionPool(width))
        self.tower = nn.Sequential(
            block(width, 5), AttentionPool(width), block(width, 5), AttentionPool(width)
        )
        length = LENGTH // 8
        self.attention = nn.ModuleList(RelativeAttention(width, 4, length) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.dense = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
            for _ in range(2)
        )
        self.head = nn.Sequential(Swish(), nn.Linear(width, TRACKS), nn.Softplus())

    def forward(self, sequence: Tensor) -> Tensor:
        x = self.tower(self.stem(sequence)).transpose(1, 2)
        for i, (attention, dense) in enumerate(zip(self.attention, self.dense, strict=True)):
            x = x + attention(self.norms[2 * i](x))
            x = x + dense(self.norms[2 * i + 1](x))
        return self.head(x[:, 4:-4]).sum(1)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, bool]] = {
    # the network, the explained output where it has several, and whether it takes several lengths
    "bpnet_counts": (BPNet, "counts", True),
    "bpnet_profile": (BPNet, "profile", True),
    "chrombpnet_counts": (ChromBPNet, "counts", True),
    "deepsea": (DeepSEA, "", False),
    "basset": (Basset, "", False),
    "danq": (DanQ, "", False),
    "spliceai": (SpliceAI, "", True),
    "enformer": (Enformer, "", False),
}


PROBABILITIES = ("deepsea",)


def models() -> dict[str, bool]:
    return {name: sized for name, (_, _, sized) in NETWORKS.items()}


def make(name: str) -> tuple[nn.Module, Inputs]:
    network, output, sized = NETWORKS[name]
    letters = np.random.default_rng(1).integers(0, 4, (SAMPLES + REFERENCES, LENGTH))
    rows = np.ascontiguousarray(np.eye(4, dtype=np.float32)[letters].transpose(0, 2, 1))
    inputs = Inputs(
        {"sequence": rows[:SAMPLES]},
        {"sequence": rows[SAMPLES:]},
        {"sequence": 2} if sized else {},
        told={"output": output} if output else {},
    )
    if output or name in PROBABILITIES:  # several heads, or a sigmoid, have no scale that could be set
        return network().eval(), inputs
    return settle(network(), inputs)
