"""How long a training step takes: with a prior against without, by method and references, and against torch.

    python tests/bench/train_times.py [--rounds 15] [--memory SAMPLES ...]

Rounds are interleaved, and what is told is the median of each round's ratio.  torch is in eager mode, with as
many threads; without torch its column is left out.  With --memory instead: the peak of a process that runs a
step of so many samples, as cost_truth.py measures it, and what the memory model predicts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cost_truth import MIB, fresh
from onnx import helper, numpy_helper
from training_study import tabular

from irshap import demo
from irshap.compiler.catalog import PassManager
from irshap.cost.session import predict
from irshap.ir.dims import N
from irshap.training import train_step
from irshap.training.loop import Loop

BATCH = 64


def digits() -> onnx.ModelProto:
    """The demo's CNN without biases."""
    return PassManager.from_text("lift,canonicalize,remove-bias,lower").run(demo.model_path())


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "tabular": lambda: tabular(30, 0, hidden=64),
    "digits": digits,
}


def stepper(model: onnx.ModelProto, references: int = 1, **options: Any) -> Callable[[], object]:
    """Runs one step, again and again on the same batch."""
    step = train_step(model, **options)
    start = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    loop = Loop(step.model, start, None, 1)
    rng, training = np.random.default_rng(1), loop.training
    feeds = {}
    sizes = {"N": BATCH, "batch": BATCH, "R": references}
    for name, shape in loop.shapes.items():
        if name in loop.handed:
            continue
        dims = [d if isinstance(d, int) else sizes[d] for d in shape]
        array = rng.normal(size=dims) if dims else np.array(1e-3)
        if name == training.given["labels"]:
            array = rng.integers(0, 2, dims)
        if name == training.given["sample_weights"]:
            array = np.ones(dims)
        feeds[name] = array.astype(loop.dtypes[name])

    def run() -> object:
        found = loop.run(feeds)
        loop.accept()
        return found

    return run


def in_torch(model: onnx.ModelProto, prior: bool) -> Callable[[], object]:
    """The same step in eager torch: SGD, x-gradient with the sparse prior, pair by pair."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    tensors = {t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer}
    weights = {n: t.requires_grad_() for n, t in tensors.items() if t.is_floating_point() and t.dim() > 1}
    optimizer = torch.optim.SGD(weights.values(), lr=1e-3)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = torch.randn(BATCH, *shape, requires_grad=prior)
    labels = torch.randint(0, 2, (BATCH,))

    def forward(h: torch.Tensor) -> torch.Tensor:
        for node in model.graph.node:
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Conv":
                h = functional.conv2d(h, weights[node.input[1]], None, options["strides"], options["pads"][0])
            elif node.op_type == "Gemm":
                h = functional.linear(h, weights[node.input[1]])
            elif node.op_type == "Relu":
                h = functional.relu(h)
            elif node.op_type == "MaxPool":
                h = functional.max_pool2d(h, options["kernel_shape"], options["strides"])
            elif node.op_type in ("Flatten", "Reshape"):
                h = h.flatten(1)
            else:
                raise ValueError(node.op_type)
        return h

    def run() -> object:
        optimizer.zero_grad()
        y = forward(x)
        whole = functional.cross_entropy(y, labels)
        if prior:
            target = y.gather(1, labels[:, None]).sum()
            a = x * torch.autograd.grad(target, x, create_graph=True)[0]
            size = a.abs().mean(0).flatten()
            gini = (size[:, None] - size[None]).abs().sum() / (len(size) * size.sum())
            whole = whole - 1e-3 * gini
        whole.backward()
        optimizer.step()
        return whole.item()

    return run


def medians(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round, interleaved."""
    counts = {}
    for name, run in runs.items():
        for _ in range(3):
            run()
        start = time.perf_counter()
        run()
        counts[name] = max(1, int(0.03 / (time.perf_counter() - start)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(counts[name]):
                run()
            found[name].append((time.perf_counter() - start) / counts[name])
    return found


def memory(samples: list[int]) -> None:
    """Prints predicted and measured peaks, without a prior and with two."""
    asked: dict[str, dict[str, str]] = {
        "plain": {},
        "x-gradient": {"prior": "sparse", "method": "x-gradient"},
        "right-reasons": {"prior": "right-reasons"},
    }
    for name, model in MODELS.items():
        for kind, options in asked.items():
            step = train_step(model(), **options)
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "step.onnx"
                step.save(file)
                for count in samples:
                    predicted = predict(step.graph, {N: count}).peak
                    found = fresh(file, count, pattern=True, runs=3)["peak"]
                    told = f"predicted {predicted / MIB:.0f} MiB, measured {found / MIB:.0f}"
                    print(f"{name:8} {kind:14} {count:6} samples: {told} ({predicted / found - 1:+.1%})")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", type=int, nargs="+")
    given = parser.parse_args()
    if given.memory:
        memory(given.memory)
        return
    rounds = given.rounds
    for name, made in MODELS.items():
        model = made()
        runs = {
            "plain": stepper(model),
            "x-gradient": stepper(model, prior="sparse", method="x-gradient"),
            "gradient": stepper(model, prior="sparse", method="gradient"),
            "right-reasons": stepper(model, prior="right-reasons"),
            "deeplift, 1 reference": stepper(model, prior="sparse", method="deeplift"),
        }
        for count in (1, 2, 4, 8):
            runs[f"expected, {count}"] = stepper(model, count, prior="sparse", method="expected-gradients")
        with suppress(ImportError):
            runs |= {"torch plain": in_torch(model, False), "torch x-gradient": in_torch(model, True)}
        found = medians(runs, rounds)
        plain = found["plain"]
        for kind, seconds in found.items():
            ratio = float(np.median(np.array(seconds) / plain))
            print(f"{name:8} {kind:22} {np.median(seconds) * 1e6:9.0f} us   {ratio:5.2f} x plain")
        for kind in ("plain", "x-gradient"):
            if f"torch {kind}" in found:
                ratio = float(np.median(np.array(found[f"torch {kind}"]) / found[kind]))
                print(f"{name:8} torch takes {ratio:.2f} x as long for {kind}")


if __name__ == "__main__":
    main()
