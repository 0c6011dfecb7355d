"""Systems that run in torch, and what they need: `python -m versus.torch_side NAME FOLDER NETS`."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import captum
import numpy as np
import shap
import torch
import torchvision
from captum.attr import DeepLift, DeepLiftShap
from opt_torch import Explained, OptTorch

from versus.worker import Answer, Files, Subject

MOST_REFERENCES = 32


class _TorchSubject(Subject):
    """Gets the network in the form that SHAP and Captum ask for; predicting is a part of what is timed."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        warnings.simplefilter("ignore")  # of modules that they don't know: the completeness says it
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.sample, self.background = torch.from_numpy(self.x), torch.from_numpy(self.references)

    def load(self) -> None:
        self.model = torch.load(self.files.torch, weights_only=False)

    def versions(self) -> dict[str, str]:
        return {
            "Python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "SHAP": shap.__version__,
            "Captum": captum.__version__,
            "numpy": np.__version__,
        }

    def _answer(self, values: Any, target: int) -> Answer:
        with torch.no_grad():
            explained = float(self.model(self.sample)[0, target])
            base = float(self.model(self.background)[:, target].double().mean())
        return Answer(np.asarray(values), explained, base)


class TorchInference(_TorchSubject):
    """The sample, then the references in one batch."""

    def run(self) -> Any:
        with torch.inference_mode():
            return self.model(self.sample), self.model(self.background)


class Shap(_TorchSubject):
    """DeepExplainer on the largest output; its check of additivity is left out of the time."""

    def prepare(self) -> None:
        self.explainer = shap.DeepExplainer(self.model, self.background)

    def run(self) -> Any:
        return self.explainer.shap_values(self.sample, ranked_outputs=1, check_additivity=False)

    def answer(self, result: Any) -> Answer:
        values, ranks = result
        return self._answer(np.asarray(values)[..., 0], int(ranks[0, 0]))


class Captum(_TorchSubject):
    """DeepLiftShap; it has to be told the target, so the prediction comes first."""

    def prepare(self) -> None:
        # the former refuses a single reference
        method = DeepLiftShap if len(self.background) > 1 else DeepLift
        self.explainer = method(self.model)

    def run(self) -> Any:
        with torch.no_grad():
            target = int(self.model(self.sample).argmax())
        return self.explainer.attribute(self.sample, self.background, target=target), target

    def answer(self, result: Any) -> Answer:
        values, target = result
        return self._answer(values.detach().numpy(), target)


class Separated(Captum):
    """Captum with a copy between nonlinear modules that touch, without which its rules miss each other."""

    def prepare(self) -> None:
        from networks import separated

        super().prepare()
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(separated(self.model))


class OptTorchSubject(_TorchSubject):
    """The optimized algorithm in torch."""

    def prepare(self) -> None:
        self.explainer = OptTorch(self.model, self.background)

    def run(self) -> Explained:
        return self.explainer(self.sample)

    def answer(self, result: Explained) -> Answer:
        return Answer(result.values.numpy(), float(result.outputs[0, result.target]), result.base)


def prepare(name: str, folder: Path, nets: Path) -> None:
    """Writes NAME.pt, the images, and the ONNX model if it is missing; checks that both are one network."""
    import networks
    import onnxruntime

    folder.mkdir(parents=True, exist_ok=True)
    model = networks.build(name)
    torch.save(model, folder / f"{name}.pt")
    # one seed an image, so that a smaller number of references is the beginning of a larger one
    references = torch.cat([networks.images(1, seed=1000 + i) for i in range(MOST_REFERENCES)])
    sample = networks.images(1, seed=5)
    np.save(folder / "references.npy", references.numpy())
    np.save(folder / "sample.npy", sample.numpy())
    path = nets / f"{name}_torchscript.onnx"
    if not path.exists():
        networks.export(name, nets, model=model)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = model(sample).numpy()
    error = np.abs(session.run(None, {session.get_inputs()[0].name: sample.numpy()})[0] - expected).max()
    if error > 1e-3 * np.abs(expected).max():
        raise SystemExit(f"{path} is another network than the one built here (outputs differ by {error:.1e})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("nets", type=Path)
    options = parser.parse_args()
    prepare(options.name, options.folder, options.nets)


if __name__ == "__main__":
    main()
