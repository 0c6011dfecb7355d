"""Networks for the table of runtimes: a TextCNN and a tiny BERT on token ids.

Both have random weights, scaled so that their logits spread; a runtime's arithmetic doesn't depend on them.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import transformers
from torch import nn

WORDS, LENGTH = 50, 12
SEED = 5


class TextCNN(nn.Module):
    """Kim 2014: an embedding, convolutions of three widths, the largest of each over time, a dense layer."""

    def __init__(self, width: int = 16, channels: int = 8, classes: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, width)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, channels, k) for k in (2, 3, 4))
        self.head = nn.Linear(3 * channels, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        embedded = self.embedding(tokens).transpose(1, 2)
        pooled = [torch.relu(conv(embedded)).amax(dim=2) for conv in self.convolutions]
        return self.head(torch.cat(pooled, dim=1))


class Bert(nn.Module):
    """transformers' BERT of two layers, scores from the first token."""

    def __init__(self, width: int = 32, classes: int = 4) -> None:
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=WORDS,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=LENGTH,
            attn_implementation="eager",
        )
        self.bert, self.head = (
            transformers.BertModel(config, add_pooling_layer=True),
            nn.Linear(width, classes),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.bert(input_ids=tokens).pooler_output)


NETWORKS = {"textcnn": TextCNN, "bert": Bert}


def export(name: str, folder: Path) -> Path:
    """Writes a network with an open batch, and returns its path."""
    path = folder / f"{name}.onnx"
    torch.manual_seed(SEED)
    network = NETWORKS[name]().eval()
    with torch.no_grad():
        network.head.weight *= 8
    tokens = torch.randint(0, WORDS, (2, LENGTH))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporter says of its own age
        torch.onnx.export(
            network,
            (tokens,),
            str(path),
            input_names=["tokens"],
            output_names=["scores"],
            dynamic_axes={"tokens": {0: "batch"}, "scores": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    return path
