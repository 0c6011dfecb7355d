"""Networks of time series: classifiers and forecasters, in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo_models.case import Inputs, noise
from zoo_models.vision import settle

__all__ = ["make", "models"]

STEPS, CHANNELS, WIDTH, HORIZON = 32, 3, 16, 4


class Causal(nn.Module):
    """A convolution of what was: padded on the left, or cut on the right."""

    def __init__(self, before: int, after: int, dilation: int, cut: bool = False) -> None:
        super().__init__()
        self.over, self.cut = 2 * dilation, cut
        self.conv = nn.Conv1d(before, after, 3, padding=self.over if cut else 0, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., : -self.over] if self.cut else self.conv(functional.pad(x, (self.over, 0)))


class TCN(nn.Module):
    """Dilated causal blocks with a residual, weights normalized (Bai et al. 2018); the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.ways = nn.ModuleList(), nn.ModuleList()
        for before, dilation in ((CHANNELS, 1), (WIDTH, 2), (WIDTH, 4)):
            one, two = Causal(before, WIDTH, dilation, cut=True), Causal(WIDTH, WIDTH, dilation, cut=True)
            for layer in (one, two):
                nn.utils.parametrizations.weight_norm(layer.conv)
            self.blocks.append(nn.Sequential(one, nn.ReLU(), nn.Dropout(0.1), two, nn.ReLU()))
            self.ways.append(nn.Conv1d(before, WIDTH, 1) if before != WIDTH else nn.Identity())
        self.head = nn.Linear(WIDTH, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        for block, way in zip(self.blocks, self.ways, strict=True):
            x = (block(x) + way(x)).relu()
        return self.head(x[:, :, -1])


class NBeats(nn.Module):
    """Blocks that each explain a part of the past and of the future (Oreshkin et al. 2020)."""

    def __init__(self, steps: int = STEPS) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(steps, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
            for _ in range(3)
        )
        self.thetas = nn.ModuleList(nn.Linear(WIDTH, 6) for _ in range(3))
        past, future = torch.arange(steps) / steps, torch.arange(HORIZON) / steps + 1
        self.register_buffer("past", torch.stack([past**i for i in range(3)]))
        self.register_buffer("future", torch.stack([future**i for i in range(3)]))

    def forward(self, x: Tensor) -> Tensor:
        total = x[:, -1:].expand(-1, HORIZON)
        for block, theta in zip(self.blocks, self.thetas, strict=True):
            backward, forward = theta(block(x)).chunk(2, 1)
            x, total = x - backward @ self.past, total + forward @ self.future
        return total


class NHits(nn.Module):
    """Blocks on pooled pasts, forecasts interpolated (Challu et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(STEPS // pool, WIDTH), nn.ReLU(), nn.Linear(WIDTH, STEPS + 2))
            for pool in (8, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        for pool, block in zip((8, 2), self.blocks, strict=True):
            theta = block(functional.max_pool1d(x.unsqueeze(1), pool).squeeze(1))
            x = x - theta[:, :STEPS]
            knots = theta[:, STEPS:].unsqueeze(1)
            total = total + functional.interpolate(knots, size=HORIZON, mode="linear").squeeze(1)
        return total  # type: ignore[return-value]


class WaveNet(nn.Module):
    """Gated dilated convolutions, a skip from each (van den Oord et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = Causal(CHANNELS, WIDTH, 1)
        self.gates = nn.ModuleList(Causal(WIDTH, 2 * WIDTH, 2**i) for i in range(3))
        self.ways = nn.ModuleList(nn.Conv1d(WIDTH, 2 * WIDTH, 1) for _ in range(3))
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv1d(WIDTH, WIDTH, 1), nn.ReLU(), nn.Conv1d(WIDTH, HORIZON, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x.transpose(1, 2)), torch.zeros(1, device=x.device)
        for gates, way in zip(self.gates, self.ways, strict=True):
            filtered, gate = gates(x).chunk(2, 1)
            residual, skip = way(filtered.tanh() * gate.sigmoid()).chunk(2, 1)
            x, total = x + residual, total + skip
        return self.head(total)[:, :, -1]


class Forecaster(nn.Module):
    """An LSTM that goes on from its own forecasts."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.cell = nn.LSTM(CHANNELS, WIDTH, batch_first=True), nn.LSTMCell(CHANNELS, WIDTH)
        self.head = nn.Linear(WIDTH, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, cell) = self.layer(x)
        state, found = (hidden[0], cell[0]), []
        for _ in range(HORIZON):
            found.append(self.head(state[0]))
            state = self.cell(found[-1], state)
        return torch.stack(found, 1)[..., 0]


class Reversible(nn.Module):
    """Series less their mean by their spread, and forecasts put back (RevIN, Kim et al. 2022)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.gain = inner, nn.Parameter(torch.ones(CHANNELS) * 1.1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        spread = (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        forecast = self.inner((x - mean) / spread * self.gain)
        return (forecast / self.gain * spread + mean)[:, :, 0]


class Patches(nn.Module):
    """Overlapping patches of each channel, a transformer, a flat head (PatchTST, Nie et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.places = nn.Linear(8, WIDTH), nn.Parameter(torch.randn(7, WIDTH) / 4)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(7 * WIDTH, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        patches = x.transpose(1, 2).unfold(2, 8, 4)  # [N, channels, patches, 8]
        tokens = (self.enter(patches) + self.places).flatten(0, 1)
        found = self.layers(tokens).unflatten(0, (-1, CHANNELS))
        return self.head(found.flatten(2)).transpose(1, 2)


class Inverted(nn.Module):
    """A token for each channel (iTransformer, Liu et al. 2024)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(STEPS, WIDTH), nn.Linear(WIDTH, HORIZON)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.enter(x.transpose(1, 2)))).transpose(1, 2)


class Informer(nn.Module):
    """Distilling by convolution and max-pooling (Zhou et al. 2021).

    `sparse`: only the queries whose scores spread most attend, others take the mean of the values.
    """

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.sparse, self.enter = sparse, nn.Conv1d(CHANNELS, WIDTH, 3, padding=1, padding_mode="circular")
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.distil = nn.Sequential(
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1, padding_mode="circular"), nn.BatchNorm1d(WIDTH), nn.ELU(),
            nn.MaxPool1d(3, 2, 1),
        )  # fmt: skip
        self.head = nn.Linear(WIDTH, HORIZON)

    def attend(self, i: int, x: Tensor) -> Tensor:
        q, k, v = self.qkv[i](x).chunk(3, -1)
        scores = q @ k.transpose(1, 2) / WIDTH**0.5
        found = scores.softmax(-1) @ v
        if self.sparse:
            spread = scores.amax(-1) - scores.mean(-1)
            chosen = spread.topk(6, dim=-1).indices.unsqueeze(-1).expand(-1, -1, WIDTH)
            mean = v.mean(1, keepdim=True).expand(-1, x.shape[1], -1)
            found = mean.scatter(1, chosen, found.gather(1, chosen))
        return self.norms[i](x + found)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x.transpose(1, 2)).transpose(1, 2)
        x = self.distil(self.attend(0, x).transpose(1, 2)).transpose(1, 2)
        return self.head(self.attend(1, x)[:, -1])


class DLinear(nn.Module):
    """Trend by a moving average and what is left, a linear layer for each (Zeng et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.trend, self.season = nn.Linear(STEPS, HORIZON), nn.Linear(STEPS, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        padded = torch.cat([x[:, :1].expand(-1, 2, -1), x, x[:, -1:].expand(-1, 2, -1)], 1)
        trend = functional.avg_pool1d(padded.transpose(1, 2), 5, 1)
        return (self.trend(trend) + self.season(x.transpose(1, 2) - trend))[:, 0]


class Mixer(nn.Module):
    """Perceptrons over steps and over channels in turn (TSMixer, Chen et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.channels = nn.Linear(STEPS, STEPS), nn.Linear(CHANNELS, CHANNELS)
        self.norm, self.head = nn.LayerNorm((STEPS, CHANNELS)), nn.Linear(STEPS, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + self.steps(self.norm(x).transpose(1, 2)).relu().transpose(1, 2)
            x = x + self.channels(x).relu()
        return self.head(x.transpose(1, 2))[:, 0]


class Fusion(nn.Module):
    """Gated residuals and a choice of variables before an LSTM and attention (TFT, Lim et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Linear(1, WIDTH) for _ in range(CHANNELS))
        self.choice = nn.Linear(CHANNELS * WIDTH, CHANNELS)
        self.layer = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.gates = nn.ModuleList(nn.Linear(WIDTH, 2 * WIDTH) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        each = torch.stack([layer(x[..., i : i + 1]) for i, layer in enumerate(self.each)], -1)
        weights = self.choice(functional.elu(each.flatten(2))).softmax(-1)
        chosen = (each * weights.unsqueeze(2)).sum(-1)
        h = self.norms[0](chosen + functional.glu(self.gates[0](self.layer(chosen)[0])))
        later = torch.triu(torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device), 1)
        mixed = self.attention(h, h, h, attn_mask=later, need_weights=False)[0]
        return self.head(self.norms[1](h + functional.glu(self.gates[1](mixed)))[:, -1])


class InceptionTime(nn.Module):
    """Convolutions of several lengths beside a max-pooling (Ismail Fawaz et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(CHANNELS, 4, 1, bias=False)
        self.wide = nn.ModuleList(nn.Conv1d(4, 4, k, padding=k // 2, bias=False) for k in (5, 11, 19))
        self.pooled, self.way = nn.Conv1d(CHANNELS, 4, 1, bias=False), nn.Conv1d(CHANNELS, 16, 1)
        self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        narrow = self.narrow(x)
        pooled = self.pooled(functional.max_pool1d(x, 3, 1, 1))
        joined = self.norm(torch.cat([*(c(narrow) for c in self.wide), pooled], 1)).relu()
        return self.head((joined + self.way(x)).relu().mean(2))


class Autoformer(nn.Module):
    """Correlation of a series with itself by Fourier transforms, trends taken out (Wu et al. 2021).

    All lags are weighted; the original keeps the largest few.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.qkv = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        q, k, v = (t.transpose(1, 2) for t in self.qkv(h).chunk(3, -1))
        spectrum = torch.fft.rfft(q) * torch.conj(torch.fft.rfft(k))
        weights = torch.fft.irfft(spectrum, n=STEPS).mean(1, keepdim=True).softmax(-1)
        lagged = torch.stack([v.roll(-lag, 2) for lag in range(STEPS)], -1)
        h = h + (lagged * weights.unsqueeze(2)).sum(-1).transpose(1, 2)
        trend = functional.avg_pool1d(h.transpose(1, 2), 5, 1, 2, count_include_pad=False)
        return self.head((h.transpose(1, 2) - trend)[:, :, -1])


def _sized() -> Inputs:
    return noise("x", (STEPS, CHANNELS), 1)


def _fixed() -> Inputs:
    return noise("x", (STEPS, CHANNELS))


def _single() -> Inputs:
    return noise("x", (STEPS,))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "tcn": (TCN, _sized),
    "nbeats": (NBeats, _single),
    "nhits": (NHits, _single),
    "wavenet": (WaveNet, _sized),
    "lstm_forecaster": (Forecaster, _sized),
    "patchtst": (lambda: Reversible(Patches()), _fixed),
    "itransformer": (lambda: Reversible(Inverted()), _fixed),
    "informer": (lambda: Informer(sparse=False), _sized),
    "informer_sparse": (lambda: Informer(sparse=True), _fixed),
    "dlinear": (DLinear, _fixed),
    "tsmixer": (Mixer, _fixed),
    "tft": (Fusion, _sized),
    "inception_time": (InceptionTime, _sized),
    "autoformer": (Autoformer, _fixed),
}


def models() -> dict[str, bool]:
    return {name: bool(inputs().lengths) for name, (_, inputs) in NETWORKS.items()}


def make(name: str) -> tuple[nn.Module, Inputs]:
    network, inputs = NETWORKS[name]
    return settle(network(), inputs())
