"""The benchmark's networks: torchvision's, with random weights; VGG19, ResNet50, DenseNet201, EfficientNetB0.

    python tests/bench/networks.py --out FOLDER [--exporter torchscript|dynamo] [NAME ...]

writes NAME_EXPORTER.onnx files and prints how far they are from torch; NAME is any of torchvision's networks
that classify images. Random weights do: the time of an attribution doesn't depend on them. But the outputs
must depend on the input: batch-norm statistics are calibrated on random images, and the last layer is scaled
to logits of mean 0 and spread 1 over them.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import operator
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torchvision
from torch import fx, nn
from torch.nn import functional

NAMES = ("vgg19", "resnet50", "densenet201", "efficientnet_b0")
EXPORTERS = ("torchscript", "dynamo")
SIZE = 224
SEED = 7
OPSET = 17  # of the TorchScript exporter; the dynamo exporter chooses its own

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus,
    nn.Softmax, nn.Hardswish, nn.Hardsigmoid, nn.MaxPool2d,
)  # fmt: skip
FUNCTIONS: dict[Callable[..., torch.Tensor], type[nn.Module]] = {
    functional.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    functional.silu: nn.SiLU,
    torch.sigmoid: nn.Sigmoid,
    functional.sigmoid: nn.Sigmoid,
    torch.tanh: nn.Tanh,
}

OPTIONS = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


def images(count: int, seed: int) -> torch.Tensor:
    """Random normalized images with structure at several scales: global averages erase plain noise."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, SIZE, SIZE)
    for cells in (2, 7, 28, SIZE):
        grid = torch.randn(count, 3, cells, cells, generator=generator)
        total += functional.interpolate(grid, size=(SIZE, SIZE), mode="nearest")
    return total / 2


def fair(model: nn.Module) -> nn.Module:
    """The same network with an activation module of its own, not in place, for every activation call.

    SHAP and Captum hang their rules on modules: a module called twice, a function or an in-place change goes
    wrong there or is missed, and in-place addition after a hooked module raises. This gives the peers the
    network in the form they ask for.
    """
    traced = fx.symbolic_trace(copy.deepcopy(model).eval())
    modules = dict(traced.named_modules())
    seen: set[int] = set()
    for node in list(traced.graph.nodes):
        replacement = None
        if node.op == "call_module" and isinstance(modules[node.target], ACTIVATIONS):
            module = modules[node.target]
            if hasattr(module, "inplace"):
                module.inplace = False
            if id(module) in seen:
                replacement = copy.deepcopy(module)
            seen.add(id(module))
        elif node.op == "call_function" and node.target in FUNCTIONS:
            replacement = FUNCTIONS[node.target]()
            node.args, node.kwargs = node.args[:1], {}
        elif node.op == "call_function" and node.target in (operator.iadd, operator.imul):
            node.target = {operator.iadd: operator.add, operator.imul: operator.mul}[node.target]
        if replacement is not None:
            name = f"own_{node.name}"
            traced.add_submodule(name, replacement)
            node.op, node.target = "call_module", name
    traced.graph.lint()
    traced.recompile()
    probe = images(2, SEED + 1)
    with torch.no_grad():
        if not torch.equal(model.eval()(probe), traced(probe)):
            raise AssertionError("making the activations separate modules changed the network")
    return traced


@contextlib.contextmanager
def separated(model: nn.Module) -> Iterator[nn.Module]:
    """`model` with a copy before each activation: without it Captum is wrong where two of them touch.

    Its hook that reads the first one's output gradient runs before the second one's rule replaces it.
    """
    handles = [
        module.register_forward_pre_hook(lambda _, args: args[0].clone())
        for module in model.modules()
        if isinstance(module, ACTIVATIONS)
    ]
    try:
        yield model
    finally:
        for handle in handles:
            handle.remove()


def calibrate(model: nn.Module, batches: list[torch.Tensor]) -> None:
    """Set batch-norm statistics to the plain average over `batches`."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()  # this alone: stochastic depth and dropout stay off
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def build(name: str) -> nn.Module:
    """One of torchvision's classifiers: seeded, calibrated, in eval mode, fair."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(f"unknown network {name!r}: one of {', '.join(known)}")
    torch.manual_seed(SEED)
    model = torchvision.models.get_model(name, weights=None, **OPTIONS.get(name, {})).eval()
    batches = [images(8, SEED + 100 + i) for i in range(3)]
    # SqueezeNet ends with a convolution, and a ReLU behind it, so that its logits keep their mean
    ends = [m for m in model.modules() if isinstance(m, nn.Linear)]
    last = ends[-1] if ends else [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1]
    if not last.weight.any():  # ViT's head starts at zero
        nn.init.xavier_uniform_(last.weight)
    calibrate(model, batches)
    with torch.no_grad():
        logits = model(torch.cat(batches))
        scale = logits.std(0).mean()
        last.weight.div_(scale)
        if last.bias is not None:  # MaxViT's has none
            last.bias.copy_((last.bias - (logits.mean(0) if ends else 0)) / scale)
    return fair(model)


def export(name: str, folder: Path, exporter: str = "torchscript", model: nn.Module | None = None) -> Path:
    """Write `name`_`exporter`.onnx (dynamic batch) into `folder`; `model` spares building it again."""
    if exporter not in EXPORTERS:
        raise ValueError(f"unknown exporter {exporter!r}: one of {', '.join(EXPORTERS)}")
    model = build(name) if model is None else model
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_{exporter}.onnx"
    example = (images(2, SEED + 2),)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            torch.onnx.export(
                model, example, str(path), dynamo=False, opset_version=OPSET,
                input_names=["image"], output_names=["logits"],
                dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
            )  # fmt: skip
        else:
            torch.onnx.export(
                model, example, str(path), dynamo=True, external_data=False, verbose=False,
                input_names=["image"], output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    onnx.checker.check_model(str(path), full_check=True)
    return path


def check(model: nn.Module, path: Path) -> str:
    """A line on the exported file: its distance from torch, and how its outputs vary over images."""
    batch = images(8, SEED + 3)
    with torch.no_grad():
        expected = model(batch).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"image": batch.numpy()})
    error = np.abs(actual - expected).max()
    proto = onnx.load(str(path), load_external_data=False)
    return (
        f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB, {len(proto.graph.node)} nodes, "
        f"opset {proto.opset_import[0].version}, |ONNX Runtime - torch| {error:.1e}, "
        f"std over images {actual.std(0).mean():.3f}, |logit| <= {np.abs(actual).max():.1f}, "
        f"classes {sorted(set(actual.argmax(1).tolist()))}"
    )


def main() -> None:
    """Build, export and check the networks asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, required=True, help="folder for the ONNX files")
    parser.add_argument("--exporter", choices=EXPORTERS, action="append", help="default: both")
    options = parser.parse_args()
    for name in options.names:
        model = build(name)
        for exporter in options.exporter or EXPORTERS:
            print(check(model, export(name, options.out, exporter, model)), flush=True)


if __name__ == "__main__":
    main()
