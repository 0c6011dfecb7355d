"""Networks with attention and layer normalization, random weights: torchvision's, timm's and transformers'.

    python tests/bench/transformer_networks.py --out FOLDER [NAME ...]

writes NAME_torchscript.onnx files, by the exporter of that name, opset 17, with an open batch.  Those of text
start at the embeddings, [N, 128, width], so that what is attributed is a float.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import transformers
from torch import nn
from torchvision.models import convnext_tiny, swin_t, swin_transformer, vit_b_16

TOKENS, HEAD = 128, 32
IMAGE = (3, 224, 224)


class Text(nn.Module):
    """The scores of two classes from the first token of an encoder, by its embeddings."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(inputs_embeds=x).last_hidden_state[:, 0])


def bert(layers: int, width: int) -> nn.Module:
    config = transformers.BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        intermediate_size=4 * width,
        attn_implementation="eager",
    )
    return Text(transformers.BertModel(config), width)


def distilbert(layers: int, width: int) -> nn.Module:
    config = transformers.DistilBertConfig(
        dim=width,
        n_layers=layers,
        n_heads=width // HEAD,
        hidden_dim=4 * width,
        attn_implementation="eager",
    )
    return Text(transformers.DistilBertModel(config), width)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vit_b_16": (vit_b_16, IMAGE),
    "swin_t": (swin_t, IMAGE),
    "convnext_tiny": (convnext_tiny, IMAGE),
    "bert": (lambda: bert(6, 384), (TOKENS, 384)),
    # not looked at while the four above were made faster
    "deit_tiny": (lambda: timm.create_model("deit_tiny_patch16_224"), IMAGE),
    "swin_narrow": (
        lambda: swin_transformer.SwinTransformer([4, 4], 48, [2, 2, 6, 2], [3, 6, 12, 24], [7, 7]),
        IMAGE,
    ),
    "distilbert": (lambda: distilbert(3, 256), (TOKENS, 256)),
}


def build(name: str) -> nn.Module:
    """The network, its weights from a seed; what starts at 0 (a last layer) is random, too."""
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    for weights in model.parameters():
        if weights.ndim == 2 and not weights.any():
            nn.init.normal_(weights, std=0.05)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NETWORKS)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    for name in given.names:
        torch.onnx.export(
            build(name),
            (torch.randn(2, *NETWORKS[name][1]),),
            given.out / f"{name}_torchscript.onnx",
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "N"}, "scores": {0: "N"}},
        )
        print(name, flush=True)


if __name__ == "__main__":
    main()
