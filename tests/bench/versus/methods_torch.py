"""Methods as Captum has them; each is told the class, so the prediction comes first, as irshap returns it."""

from __future__ import annotations

from typing import Any

import torch
from captum import attr

from versus.torch_side import _TorchSubject
from versus.worker import Answer


class _Captum(_TorchSubject):
    def explain(self, target: int) -> Any:
        """What is attributed for a class."""
        raise NotImplementedError

    def run(self) -> Any:
        with torch.no_grad():
            target = int(self.model(self.sample).argmax())
        return self.explain(target), target

    def answer(self, result: Any) -> Answer:
        values, target = result
        return self._answer(values.detach().numpy(), target)


class Saliency(_Captum):
    """|dT/dx|"""

    def explain(self, target: int) -> Any:
        return attr.Saliency(self.model).attribute(self.sample, target)


class IntegratedGradients(_Captum):
    """`count` Gauss-Legendre nodes at once, as is Captum's default."""

    together: int | None = None

    def explain(self, target: int) -> Any:
        zeros, steps = torch.zeros_like(self.sample), self.files.count
        method = attr.IntegratedGradients(self.model)
        return method.attribute(self.sample, zeros, target, n_steps=steps, internal_batch_size=self.together)


class ChunkedIntegratedGradients(IntegratedGradients):
    """Ten nodes at a time, as irshap takes them."""

    together = 10


class Occlusion(_Captum):
    """Patches of 16 x 16 pixels beside each other, 25 at a time; Captum's default is one."""

    def explain(self, target: int) -> Any:
        window = (self.sample.shape[1], 16, 16)
        method = attr.Occlusion(self.model)
        found = method.attribute(self.sample, window, window, target=target, perturbations_per_eval=25)
        return found / (window[0] * 16 * 16)
