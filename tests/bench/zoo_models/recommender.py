"""Recommender networks: ids [N, fields] and dense features [N, F], one score."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from zoo_models.case import SAMPLES, Inputs, noise, together, tokens
from zoo_models.vision import settle

__all__ = ["make", "models"]

FIELDS, IDS, DENSE, WIDTH, HISTORY = 5, 20, 4, 8, 6


def mlp(*sizes: int) -> nn.Sequential:
    """Dense layers with ReLU between."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Fields(nn.Module):
    """One table for all fields, each with ids of its own."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.table = nn.Embedding(FIELDS * IDS, width)
        self.register_buffer("offsets", IDS * torch.arange(FIELDS))

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids + self.offsets)


class DLRM(nn.Module):
    """Products of all pairs of embeddings, a table for each field (Naumov et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(IDS, WIDTH) for _ in range(FIELDS))
        self.bottom = nn.Sequential(*mlp(DENSE, 16, WIDTH), nn.ReLU())
        pairs = (FIELDS + 1) * FIELDS // 2
        self.top = mlp(WIDTH + pairs, 16, 1)
        self.register_buffer("rows", torch.tril_indices(FIELDS + 1, FIELDS + 1, -1))

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        x = self.bottom(dense)
        each = torch.stack([x, *(table(ids[:, i]) for i, table in enumerate(self.tables))], 1)
        products = torch.bmm(each, each.transpose(1, 2))
        return self.top(torch.cat([x, products[:, self.rows[0], self.rows[1]]], 1))


class Bags(nn.Module):
    """Sums of several ids' embeddings a field, as DLRM has them for fields of many values."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(IDS, WIDTH, mode="sum")
        self.head = mlp(DENSE + WIDTH, 16, 1)

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        return self.head(torch.cat([dense, self.bag(ids)], 1))


class WideDeep(nn.Module):
    """A linear model beside a deep one (Cheng et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.deep = Fields(1), Fields()
        self.linear, self.dense = nn.Linear(DENSE, 1), mlp(DENSE + FIELDS * WIDTH, 32, 16, 1)

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        deep = self.dense(torch.cat([dense, self.deep(ids).flatten(1)], 1))
        return torch.sigmoid(self.wide(ids).sum(1) + self.linear(dense) + deep)


class NeuMF(nn.Module):
    """A product of user and item beside a perceptron of both (He et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(IDS, WIDTH) for _ in range(4))
        self.deep, self.head = mlp(2 * WIDTH, 16, WIDTH), nn.Linear(2 * WIDTH, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        u, i, u2, i2 = (t(x) for t, x in zip(self.tables, (user, item, user, item), strict=True))
        return self.head(torch.cat([u * i, self.deep(torch.cat([u2, i2], 1)).relu()], 1))


class DeepFM(nn.Module):
    """A factorization machine beside a perceptron, of the same embeddings (Guo et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Fields(1), Fields()
        self.deep = mlp(FIELDS * WIDTH, 32, 1)

    def forward(self, ids: Tensor) -> Tensor:
        v = self.second(ids)
        crossed = (v.sum(1).square() - v.square().sum(1)).sum(1, keepdim=True) / 2
        return torch.sigmoid(self.first(ids).sum(1) + crossed + self.deep(v.flatten(1)))


class DCN(nn.Module):
    """Cross layers x0 (W x + b) + x, the second form, with a mixture of low ranks (Wang et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.fields, width = Fields(), DENSE + FIELDS * WIDTH
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.low, self.high = nn.Linear(width, 2 * 4, bias=False), nn.Parameter(torch.randn(2, 4, width) / 4)
        self.gate, self.head = nn.Linear(width, 2), nn.Linear(width + 16, 1)
        self.deep = nn.Sequential(*mlp(width, 32, 16), nn.ReLU())

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        first = x = torch.cat([dense, self.fields(ids).flatten(1)], 1)
        for layer in self.cross:
            x = first * layer(x) + x
        experts = torch.einsum("ner,erw->new", self.low(x).tanh().unflatten(1, (2, 4)), self.high)
        x = x + first * (self.gate(x).softmax(1).unsqueeze(-1) * experts).sum(1)
        return self.head(torch.cat([x, self.deep(first)], 1))


class XDeepFM(nn.Module):
    """Compressed interactions of vectors (Lian et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.fields, self.mix = Fields(), nn.Conv1d(FIELDS * FIELDS, 6, 1)
        self.mix2, self.head = nn.Conv1d(6 * FIELDS, 6, 1), nn.Linear(12, 1)

    def forward(self, ids: Tensor) -> Tensor:
        v = self.fields(ids)
        one = self.mix(torch.einsum("nfd,ngd->nfgd", v, v).flatten(1, 2)).relu()
        two = self.mix2(torch.einsum("nfd,ngd->nfgd", one, v).flatten(1, 2)).relu()
        return self.head(torch.cat([one.sum(2), two.sum(2)], 1))


class DIN(nn.Module):
    """A history's items weighted by a unit with the candidate (Zhou et al. 2018), padding left out."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(IDS, WIDTH)
        self.unit = nn.Sequential(nn.Linear(4 * WIDTH, 16), nn.PReLU(), nn.Linear(16, 1))
        self.head = nn.Sequential(
            nn.Linear(2 * WIDTH, 16), nn.BatchNorm1d(16), nn.PReLU(16), nn.Linear(16, 1)
        )

    def forward(self, candidate: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        item, past = self.items(candidate).unsqueeze(1), self.items(history)
        beside = item.expand(-1, past.shape[1], -1)
        weights = self.unit(torch.cat([beside, past, beside - past, beside * past], -1)).squeeze(-1)
        weights = torch.where(mask > 0, weights, torch.zeros_like(weights))
        return self.head(torch.cat([item.squeeze(1), (weights.unsqueeze(-1) * past).sum(1)], 1))


class AutoInt(nn.Module):
    """Self-attention among fields (Song et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.fields, self.attention = Fields(), nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.past, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(FIELDS * WIDTH, 1)

    def forward(self, ids: Tensor) -> Tensor:
        v = self.fields(ids)
        found = self.attention(v, v, v, need_weights=False)[0] + self.past(v)
        return self.head(found.relu().flatten(1))


class TwoTowers(nn.Module):
    """The cosine of a user's and an item's tower (Yi et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = mlp(DENSE, 16, WIDTH), nn.Sequential(Fields(), nn.Flatten())
        self.deep = mlp(FIELDS * WIDTH, 16, WIDTH)

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        u, i = self.user(dense), self.deep(self.item(ids))
        cosine = nn.functional.normalize(u, dim=1) * nn.functional.normalize(i, dim=1)
        return cosine.sum(1, keepdim=True) / 0.1


class SASRec(nn.Module):
    """Causal self-attention over past items (Kang, McAuley 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.places = nn.Embedding(IDS, WIDTH), nn.Embedding(4 * HISTORY, WIDTH)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True, norm_first=True)

    def forward(self, history: Tensor) -> Tensor:
        length = history.shape[1]
        x = self.items(history) * WIDTH**0.5 + self.places(torch.arange(length, device=history.device))
        later = torch.triu(torch.ones(length, length, dtype=torch.bool, device=history.device), 1)
        return self.layer(x, src_mask=later)[:, -1] @ self.items.weight.T


class MMoE(nn.Module):
    """Experts that two tasks share, each with a gate of its own (Ma et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(mlp(DENSE + FIELDS * WIDTH, 16, WIDTH) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(DENSE + FIELDS * WIDTH, 3) for _ in range(2))
        self.fields, self.towers = Fields(), nn.ModuleList(mlp(WIDTH, 8, 1) for _ in range(2))

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        x = torch.cat([dense, self.fields(ids).flatten(1)], 1)
        experts = torch.stack([e(x).relu() for e in self.experts], 1)
        mixed = [(gate(x).softmax(1).unsqueeze(1) @ experts).squeeze(1) for gate in self.gates]
        both = torch.cat([tower(m) for tower, m in zip(self.towers, mixed, strict=True)], 1)
        return both.sigmoid()


def _ids() -> Inputs:
    return tokens("ids", (FIELDS,), IDS)


def _both() -> Inputs:
    return together(noise("dense", (DENSE,)), _ids())


def _history() -> Inputs:
    mask = np.ones((SAMPLES, HISTORY), np.int64)
    mask[1, 4:] = 0
    held = Inputs({"mask": mask}, {}, {"mask": 1})
    return together(tokens("candidate", (), IDS), tokens("history", (HISTORY,), IDS, 1, 2), held)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "dlrm": (DLRM, _both),
    "embedding_bag": (Bags, _both),
    "wide_deep": (WideDeep, _both),
    "neumf": (NeuMF, lambda: together(tokens("user", (), IDS), tokens("item", (), IDS, seed=2))),
    "deepfm": (DeepFM, _ids),
    "dcn_v2": (DCN, _both),
    "xdeepfm": (XDeepFM, _ids),
    "din": (DIN, _history),
    "autoint": (AutoInt, _ids),
    "two_towers": (TwoTowers, _both),
    "sasrec": (SASRec, lambda: tokens("history", (HISTORY,), IDS, 1)),
    "mmoe": (MMoE, _both),
}


def models() -> dict[str, bool]:
    return {name: bool(inputs().lengths) for name, (_, inputs) in NETWORKS.items()}


def make(name: str) -> tuple[nn.Module, Inputs]:
    network, inputs = NETWORKS[name]
    return settle(network(), inputs())
