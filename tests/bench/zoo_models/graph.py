"""Graph networks: batches of dense adjacency matrices, and one graph as a list of edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo_models.case import BATCHES, REFERENCES, SAMPLES, Case, Inputs, noise, together, tokens, variants
from zoo_models.vision import settle

__all__ = ["cases", "make", "models"]

NODES, FEATURES, WIDTH, CLASSES, EDGES = 7, 5, 12, 3, 20


class GCN(nn.Module):
    """D^-1/2 (A + I) D^-1/2 X W (Kipf, Welling 2017), the mean of all nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency.to(x.dtype) + torch.eye(adjacency.shape[-1], device=x.device)
        scale = a.sum(-1, keepdim=True).rsqrt()
        a = scale * a * scale.transpose(1, 2)
        for layer in self.layers:
            x = (a @ layer(x)).relu()
        return self.head(x.mean(1))


class GAT(nn.Module):
    """Attention among neighbours by LeakyReLU(a [W x, W y]) (Velickovic et al. 2018)."""

    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.w = nn.Linear(FEATURES, heads * WIDTH, bias=False)
        self.source, self.target = (nn.Parameter(torch.randn(heads, WIDTH) / 4) for _ in range(2))
        self.heads, self.head = heads, nn.Linear(heads * WIDTH, CLASSES)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        h = self.w(x).unflatten(-1, (self.heads, WIDTH))
        scores = (h * self.source).sum(-1).unsqueeze(2) + (h * self.target).sum(-1).unsqueeze(1)
        scores = functional.leaky_relu(scores, 0.2).permute(0, 3, 1, 2)
        connected = adjacency.unsqueeze(1) > 0
        weights = scores.masked_fill(~connected, float("-inf")).softmax(-1)
        mixed = (weights @ h.transpose(1, 2)).transpose(1, 2)
        return self.head(functional.elu(mixed).flatten(2).mean(1))


class GIN(nn.Module):
    """Perceptrons of (1 + eps) x + the sum of neighbours, read out after each layer (Xu et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.full((2,), 0.1))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(n, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for n in (FEATURES, WIDTH)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(2))
        self.head = nn.Linear(FEATURES + 2 * WIDTH, CLASSES)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a, read = adjacency.to(x.dtype), [x.sum(1)]
        for eps, layer, norm in zip(self.eps, self.layers, self.norms, strict=True):
            x = layer((1 + eps) * x + a @ x)
            x = norm(x.transpose(1, 2)).transpose(1, 2).relu()
            read.append(x.sum(1))
        return self.head(torch.cat(read, 1))


class SAGE(nn.Module):
    """A node beside the largest of its neighbours' features, normalized (Hamilton et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.join = nn.Linear(FEATURES, WIDTH), nn.Linear(FEATURES + WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        sent = self.pool(x).relu().unsqueeze(1).expand(-1, x.shape[1], -1, -1)
        largest = sent.masked_fill((adjacency == 0).unsqueeze(-1), 0.0).amax(2)
        h = functional.normalize(self.join(torch.cat([x, largest], -1)).relu(), dim=-1)
        return self.head(h.mean(1))


class MPNN(nn.Module):
    """Messages by a matrix for each edge's features, nodes as states of a GRU (Gilmer et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.edge = nn.Linear(FEATURES, WIDTH), nn.Linear(2, WIDTH * WIDTH)
        self.cell, self.head = nn.GRUCell(WIDTH, WIDTH), nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        first = h = self.enter(x).tanh()
        matrices = self.edge(edges).unflatten(-1, (WIDTH, WIDTH))
        for _ in range(2):
            sent = torch.einsum("nuvij,nvj->nui", matrices, h) / NODES
            h = self.cell(sent.flatten(0, 1), h.flatten(0, 1)).unflatten(0, (-1, NODES))
        gate = torch.sigmoid(self.enter(x))
        return self.head(torch.cat([(gate * h).sum(1), first.sum(1)], -1))


class EGNN(nn.Module):
    """Messages by squared distances, coordinates that move (Satorras et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.edge = nn.Sequential(
            nn.Linear(2 * FEATURES + 1, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU()
        )
        self.move = nn.Linear(WIDTH, 1, bias=False)
        self.node = nn.Sequential(nn.Linear(FEATURES + WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, FEATURES))
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor, coordinates: Tensor) -> Tensor:
        for _ in range(2):
            apart = coordinates.unsqueeze(2) - coordinates.unsqueeze(1)
            squared = apart.square().sum(-1, keepdim=True)
            count = x.shape[1]
            one = x.unsqueeze(2).expand(-1, -1, count, -1)
            other = x.unsqueeze(1).expand(-1, count, -1, -1)
            message = self.edge(torch.cat([one, other, squared], -1))
            coordinates = coordinates + (apart * self.move(message)).mean(2)
            x = x + self.node(torch.cat([x, message.sum(2)], -1))
        return self.head(x.mean(1))


class GraphTransformer(nn.Module):
    """Attention with a bias for each distance in the graph (Graphormer, Ying et al. 2021), a node for all."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.distance = nn.Linear(FEATURES, WIDTH), nn.Embedding(4, 2)
        self.node = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.norm, self.qkv = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.dense = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        x = torch.cat([self.node.expand(x.shape[0], -1, -1), self.enter(x)], 1)
        bias = functional.pad(self.distance(distances).permute(0, 3, 1, 2), (1, 0, 1, 0))
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (WIDTH / 2) ** 0.5 + bias).softmax(-1)
        x = x + (weights @ v).transpose(1, 2).flatten(2)
        x = x + self.dense(x)
        return self.head(x[:, 0])


class DiffPool(nn.Module):
    """Nodes assigned to a few clusters by a softmax (Ying et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.assign = nn.Linear(FEATURES, WIDTH), nn.Linear(FEATURES, 3)
        self.coarse, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        a = adjacency.to(x.dtype) + torch.eye(adjacency.shape[-1], device=x.device)
        a = a / a.sum(-1, keepdim=True)
        z, s = (a @ self.embed(x)).relu(), (a @ self.assign(x)).softmax(-1)
        pooled, coarse = s.transpose(1, 2) @ z, s.transpose(1, 2) @ a @ s
        return self.head((coarse @ self.coarse(pooled)).relu().amax(1))


def gathered(target: Tensor, sent: Tensor) -> Tensor:
    """What each node [V, F] gets of what edges [E, F] send."""
    zeros = torch.zeros(NODES, sent.shape[1], device=sent.device)
    return zeros.scatter_add(0, target.unsqueeze(1).expand(-1, sent.shape[1]), sent)


class OneGCN(nn.Module):
    """A GCN on one graph [V, F] by its edges; each node's classes, or one node's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)])

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        loops = torch.arange(NODES, device=x.device)
        source, target = torch.cat([edges, torch.stack([loops, loops])], 1)
        ones = torch.ones_like(target, dtype=x.dtype)
        degree = gathered(target, ones.unsqueeze(1))
        weights = (degree[source] * degree[target]).rsqrt()
        for i, layer in enumerate(self.layers):
            h = layer(x)
            x = gathered(target, weights * h[source])
            x = x.relu() if i == 0 else x
        return x


class OneGIN(nn.Module):
    """A GIN on one graph [V, F] by its edges, read out as the graph's classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(n, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for n in (FEATURES, WIDTH)
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x + gathered(edges[1], x[edges[0]])).relu()
        return self.head(x.sum(0, keepdim=True))


class OneGAT(nn.Module):
    """A GAT on one graph by its edges: a softmax over each node's edges, spelled out."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.head = nn.Linear(FEATURES, WIDTH, bias=False), nn.Linear(WIDTH, CLASSES)
        self.a = nn.Linear(2 * WIDTH, 1, bias=False)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h, (source, target) = self.w(x), edges
        scores = functional.leaky_relu(self.a(torch.cat([h[source], h[target]], 1)), 0.2).exp()
        total, mixed = gathered(target, scores), gathered(target, scores * h[source])
        return self.head(functional.elu(mixed / (total + 1e-9)))


def _adjacency() -> Inputs:
    """Undirected, with loops: integers, so that it is held."""
    edges = np.random.default_rng(2).random((SAMPLES, NODES, NODES)) < 0.4
    return Inputs(
        {"adjacency": (edges | edges.transpose(0, 2, 1) | np.eye(NODES, dtype=bool)).astype(np.int64)}, {}
    )


def _weighted() -> Inputs:
    """Weights of edges, which are attributed, too."""
    weights = np.random.default_rng(2).random((SAMPLES + REFERENCES, NODES, NODES)).astype(np.float32)
    return Inputs({"adjacency": weights[:SAMPLES]}, {"adjacency": weights[SAMPLES:]})


def _distances() -> Inputs:
    return tokens("distances", (NODES, NODES), 4, seed=2)


def _edges() -> Inputs:
    """One list of edges for all samples."""
    return Inputs(
        {"edges": np.random.default_rng(2).integers(0, NODES, (2, EDGES))}, {}, axes={"edges": None}
    )


def _nodes(*others: Inputs) -> Inputs:
    return together(noise("x", (NODES, FEATURES)), *others)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "gcn": (GCN, lambda: _nodes(_adjacency())),
    "gcn_weighted": (GCN, lambda: _nodes(_weighted())),
    "gat": (GAT, lambda: _nodes(_adjacency())),
    "gin": (GIN, lambda: _nodes(_adjacency())),
    "gin_weighted": (GIN, lambda: _nodes(_weighted())),
    "graphsage": (SAGE, lambda: _nodes(_adjacency())),
    "mpnn": (MPNN, lambda: _nodes(noise("edges", (NODES, NODES, 2), seed=2))),
    "egnn": (EGNN, lambda: _nodes(noise("coordinates", (NODES, 3), seed=2))),
    "graph_transformer": (GraphTransformer, lambda: _nodes(_distances())),
    "diffpool": (DiffPool, lambda: _nodes(_adjacency())),
    "diffpool_weighted": (DiffPool, lambda: _nodes(_weighted())),
}
WHOLE: dict[str, Callable[[], nn.Module]] = {
    "one_gcn": OneGCN, "one_gin": OneGIN, "one_gat": OneGAT,
}  # fmt: skip
"""Of one graph: the model's whole input is one sample."""


def models() -> dict[str, bool]:
    return dict.fromkeys([*NETWORKS, *WHOLE], False)


def cases(suite: str, model: str, sized: bool) -> list[Case]:
    return variants(suite, model, sized, ("none",) if model in WHOLE else BATCHES)


def make(name: str) -> tuple[nn.Module, Inputs]:
    if name in WHOLE:
        return WHOLE[name]().eval(), together(noise("x", (NODES, FEATURES)), _edges(), batch="none")
    network, inputs = NETWORKS[name]
    return settle(network(), inputs())
