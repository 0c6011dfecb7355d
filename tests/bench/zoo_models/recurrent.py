"""Recurrent networks: LSTM, GRU and RNN as they are used, in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo_models.case import Inputs, noise, together, tokens
from zoo_models.vision import settle

__all__ = ["make", "models"]

STEPS, FEATURES, UNITS, CLASSES, WORDS = 12, 6, 16, 3, 50


class Last(nn.Module):
    """A recurrent layer, and a classifier of its last step."""

    def __init__(self, layer: nn.RNNBase, time_major: bool = False) -> None:
        super().__init__()
        self.layer, self.time_major = layer, time_major
        self.head = nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states = self.layer(x.transpose(0, 1))[0].transpose(0, 1) if self.time_major else self.layer(x)[0]
        return self.head(states[:, -1])


class Pooled(nn.Module):
    """Words, two directions, and the mean and the largest of all steps."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, FEATURES)
        self.layer = kind(FEATURES, UNITS, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(4 * UNITS, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        states = self.layer(self.words(words))[0]
        return self.head(torch.cat([states.mean(1), states.amax(1)], 1))


class Attentive(nn.Module):
    """Additive attention over the states of an LSTM (Bahdanau et al. 2015), as text classifiers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, FEATURES)
        self.layer = nn.LSTM(FEATURES, UNITS, bidirectional=True, batch_first=True)
        self.score = nn.Sequential(nn.Linear(2 * UNITS, UNITS), nn.Tanh(), nn.Linear(UNITS, 1, bias=False))
        self.head = nn.Linear(2 * UNITS, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        states = self.layer(self.words(words))[0]
        weights = self.score(states).softmax(1)
        return self.head((weights * states).sum(1))


class FinalStates(nn.Module):
    """The final states of both directions instead of a step's output."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(FEATURES, UNITS, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * UNITS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        final = self.layer(x)[1]
        hidden = final[0] if isinstance(final, tuple) else final
        return self.head(torch.cat([hidden[0], hidden[1]], 1))


class Translating(nn.Module):
    """An encoder whose final states begin a decoder, which attends to its states (Luong et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(FEATURES, UNITS, batch_first=True)
        self.decoder = nn.LSTM(2, UNITS, batch_first=True)
        self.head = nn.Linear(2 * UNITS, CLASSES)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        states, final = self.encoder(x)
        steps, _ = self.decoder(known, final)
        weights = (steps @ states.transpose(1, 2)).softmax(-1)
        return self.head(torch.cat([steps, weights @ states], -1)[:, -1])


class DeepAR(nn.Module):
    """Mean and spread of the next value from lagged values and covariates (Salinas et al. 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.series = nn.Embedding(10, 4)
        self.layer = nn.LSTM(1 + FEATURES + 4, UNITS, num_layers=2, batch_first=True)
        self.mean, self.spread = nn.Linear(UNITS, 1), nn.Linear(UNITS, 1)

    def forward(self, values: Tensor, covariates: Tensor, series: Tensor) -> Tensor:
        scale = 1 + values.abs().mean(1, keepdim=True)
        which = self.series(series).unsqueeze(1).expand(-1, values.shape[1], -1)
        states = self.layer(torch.cat([(values / scale).unsqueeze(-1), covariates, which], -1))[0][:, -1]
        return torch.cat([self.mean(states) * scale, functional.softplus(self.spread(states)) * scale], 1)


class Cells(nn.Module):
    """A loop over single steps, which the exporters unroll."""

    def __init__(self, kind: type[nn.LSTMCell] | type[nn.GRUCell]) -> None:
        super().__init__()
        self.cell, self.head = kind(FEATURES, UNITS), nn.Linear(UNITS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for step in range(STEPS):
            state = self.cell(x[:, step], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class ConvLSTM(nn.Module):
    """An LSTM whose gates are convolutions (Shi et al. 2015), over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(1 + 4, 16, 3, padding=1)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = frames.new_zeros(frames.shape[0], 4, *frames.shape[-2:])
        cell = hidden
        for step in range(4):
            gates = self.gates(torch.cat([frames[:, step], hidden], 1))
            i, f, o, g = gates.chunk(4, 1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
        return self.head(hidden.mean((2, 3)))


class CRNN(nn.Module):
    """Convolutions, then two directions over columns (Shi et al. 2017), each step's classes added up."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d((4, 1)),
        )  # fmt: skip
        self.layer = nn.LSTM(16, UNITS, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * UNITS, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        columns = self.features(image).squeeze(2).transpose(1, 2)
        return self.head(self.layer(columns)[0]).log_softmax(-1).sum(1)


class GRU4Rec(nn.Module):
    """The next item of a session (Hidasi et al. 2016): scores against the items' own embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(WORDS, UNITS)
        self.layer = nn.GRU(UNITS, UNITS, batch_first=True)

    def forward(self, items: Tensor) -> Tensor:
        return self.layer(self.items(items))[0][:, -1] @ self.items.weight.T


def _steps() -> Inputs:
    return noise("x", (STEPS, FEATURES), 1)


def _words() -> Inputs:
    return tokens("words", (STEPS,), WORDS, 1)


def _layer(kind: type[nn.RNNBase], layers: int = 1, **options: object) -> nn.RNNBase:
    return kind(FEATURES, UNITS, num_layers=layers, batch_first=True, **options)  # type: ignore[arg-type]


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "lstm": (lambda: Last(_layer(nn.LSTM)), _steps),
    "lstm_stacked": (lambda: Last(_layer(nn.LSTM, 3, dropout=0.1)), _steps),
    "lstm_bidirectional": (lambda: Last(_layer(nn.LSTM, 2, bidirectional=True)), _steps),
    "lstm_time_major": (lambda: Last(nn.LSTM(FEATURES, UNITS), time_major=True), _steps),
    "lstm_final_states": (lambda: FinalStates(nn.LSTM), _steps),
    "lstm_words": (lambda: Pooled(nn.LSTM), _words),
    "lstm_attention": (Attentive, _words),
    "lstm_encoder_decoder": (Translating, lambda: together(_steps(), noise("known", (4, 2), seed=2))),
    "lstm_cells": (lambda: Cells(nn.LSTMCell), lambda: noise("x", (STEPS, FEATURES))),
    "gru": (lambda: Last(_layer(nn.GRU)), _steps),
    "gru_stacked": (lambda: Last(_layer(nn.GRU, 2)), _steps),
    "gru_bidirectional": (lambda: Last(_layer(nn.GRU, bidirectional=True)), _steps),
    "gru_final_states": (lambda: FinalStates(nn.GRU), _steps),
    "gru_words": (lambda: Pooled(nn.GRU), _words),
    "gru_cells": (lambda: Cells(nn.GRUCell), lambda: noise("x", (STEPS, FEATURES))),
    "gru4rec": (GRU4Rec, lambda: tokens("items", (STEPS,), WORDS, 1)),
    "rnn_tanh": (lambda: Last(_layer(nn.RNN, 2)), _steps),
    "rnn_relu": (lambda: Last(_layer(nn.RNN, nonlinearity="relu")), _steps),
    "deepar": (
        DeepAR,
        lambda: together(
            noise("values", (STEPS,), 1),
            noise("covariates", (STEPS, FEATURES), 1, 2),
            tokens("series", (), 10),
        ),
    ),
    "conv_lstm": (ConvLSTM, lambda: noise("frames", (4, 1, 8, 8))),
    "crnn": (CRNN, lambda: noise("image", (1, 8, 24))),
}  # fmt: skip


def models() -> dict[str, bool]:
    return {name: bool(inputs().lengths) for name, (_, inputs) in NETWORKS.items()}


def make(name: str) -> tuple[nn.Module, Inputs]:
    network, inputs = NETWORKS[name]
    return settle(network(), inputs())
