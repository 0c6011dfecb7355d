"""The suites by name: the models that each lists, and how one is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from zoo_models import hugging, vision
from zoo_models.case import Case, Inputs, variants

__all__ = ["SUITES", "Suite"]


@dataclass(frozen=True)
class Suite:
    """`models`: whether each takes inputs of several lengths; `make`: a seeded model and its inputs."""

    name: str
    models: Callable[[], dict[str, bool]]
    make: Callable[[str], tuple[torch.nn.Module, Inputs]]

    def cases(self, model: str) -> list[Case]:
        return variants(self.name, model, self.models()[model])

    def build(self, model: str) -> tuple[torch.nn.Module, Inputs]:
        torch.manual_seed(0)
        return self.make(model)


SUITES = {
    s.name: s
    for s in (
        Suite("text", hugging.text, hugging.make_text),
        Suite("audio", hugging.audio, hugging.make_audio),
        Suite("images", hugging.images, hugging.make_images),
        Suite("videos", hugging.videos, hugging.make_videos),
        Suite("torchvision", vision.torchvision_models, vision.make_torchvision),
        Suite("timm", vision.timm_models, vision.make_timm),
    )
}
