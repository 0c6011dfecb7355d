"""How long a training step takes: with a prior against without, by method and references, and against torch.

    python tests/bench/train_times.py [--rounds 15] [--memory SAMPLES ... | --profile] [--page FILE]

Rounds are interleaved, and what is told is the median of each round's ratio.  torch is in eager mode, with as
many threads; without torch its rows are left out.  With --memory instead: the peak of a process that runs a
step of so many samples, as cost_truth.py measures it, and what the memory model predicts.  With --profile:
where the time of the digits network's step goes, by layer, as the step is, with convolutions as such, and in
torch; what products and convolutions alone take is a bound.  --page writes the table between its marks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from cost_truth import MIB, fresh
from onnx import helper, numpy_helper
from op_profile import fastest, session_of
from training_study import tabular

from irshap import demo
from irshap.compiler.catalog import PassManager
from irshap.cost.session import predict
from irshap.ir.dims import N
from irshap.pipeline.named import PIPELINES
from irshap.training import train_step
from irshap.training.loop import Loop

BATCH = 64
X_GRADIENT = {"prior": "sparse", "method": "x-gradient"}
LAYERS = ("Conv", "MaxPool", "Relu", "Gemm")
"""By which the names of a step's nodes tell what layer they stem from."""
PRODUCTS = ("Gemm", "MatMul", "FusedMatMul", "Conv", "ConvTranspose")
ALONE = "Conv: products and convolutions alone"
IN_TORCH = {
    "aten::mkldnn_convolution": "Conv",
    "aten::convolution_backward": "Conv",
    "aten::max_pool2d_with_indices": "MaxPool",
    "aten::max_pool2d_with_indices_backward": "MaxPool",
    "aten::gather": "MaxPool",
    "aten::clamp_min": "Relu",
    "aten::threshold_backward": "Relu",
    "aten::mm": "Gemm",
}


def digits() -> onnx.ModelProto:
    """The demo's CNN without biases."""
    return PassManager.from_text("lift,canonicalize,remove-bias,lower").run(demo.model_path())


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "tabular": lambda: tabular(30, 0, hidden=64),
    "digits": digits,
}


@contextmanager
def without(name: str) -> Iterator[None]:
    """The pipelines of training steps without a pass."""
    before = dict(PIPELINES)
    PIPELINES.update({k: v.replace(f",{name},", ",") for k, v in before.items() if k.startswith("train")})
    try:
        yield
    finally:
        PIPELINES.update(before)


def feeds_of(loop: Loop, references: int = 1) -> dict[str, Any]:
    """A batch, random numbers for all that a step is given."""
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
    return feeds


def looped(model: onnx.ModelProto, **options: Any) -> Loop:
    """A step on one thread, from a model's own parameters."""
    step = train_step(model, **options)
    return Loop(step.model, {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}, None, 1)


def stepper(model: onnx.ModelProto, references: int = 1, **options: Any) -> Callable[[], object]:
    """Runs one step, again and again on the same batch."""
    loop = looped(model, **options)
    feeds = feeds_of(loop, references)

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


def in_runtime(model: onnx.ModelProto, runs: int, **options: Any) -> Counter[str]:
    """Milliseconds by layer of the fastest run, and of those in Conv what products and convolutions take."""
    step = train_step(model, **options)
    loop = looped(model, **options)
    feeds = feeds_of(loop) | {name: v.numpy() for name, v in loop.current.items()}
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(step.model.SerializeToString(), 1, Path(folder) / "profile")
        for _ in range(runs):
            session.run(None, feeds)
        events, _ = fastest(Path(session.end_profiling()))
    found = Counter[str]()
    for event in events:
        layer = next((kind for kind in LAYERS if kind in event["name"]), "other")
        found[layer] += event["dur"] / 1e3
        if layer == "Conv" and event["args"]["op_name"] in PRODUCTS:
            found[ALONE] += event["dur"] / 1e3
    return found


def profiled_in_torch(model: onnx.ModelProto, prior: bool, runs: int) -> Counter[str]:
    """Milliseconds of a run by layer, in the mean."""
    from torch.profiler import ProfilerActivity, profile

    run = in_torch(model, prior)
    for _ in range(5):
        run()
    with profile(activities=[ProfilerActivity.CPU]) as told:
        for _ in range(runs):
            run()
    found = Counter[str]()
    for event in told.key_averages():
        found[IN_TORCH.get(event.key, "other")] += event.self_cpu_time_total / 1e3 / runs
    return found


def profiles(runs: int) -> str:
    """The table of where the time of the digits network's steps goes."""
    model, columns = digits(), list[Counter[str]]()
    for options in ({}, X_GRADIENT):
        columns.append(in_runtime(model, runs, **options))
        with without("samples-last"):
            columns.append(in_runtime(model, runs, **options))
        columns.append(profiled_in_torch(model, bool(options), runs))
    names = ("step", "convolutions as such", "torch")
    heads = [f"{which} {name}" for which in ("plain:", "x-gradient:") for name in names]
    lines = ["| ms | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    kinds = (*LAYERS, "other")
    for kind in (*kinds, ALONE):
        lines.append(
            f"| {kind} | " + " | ".join(f"{c[kind]:.2f}" if kind in c else "-" for c in columns) + " |"
        )
    whole = " | ".join(f"{sum(c[kind] for kind in kinds):.2f}" for c in columns)
    return "\n".join([*lines, f"| all | {whole} |"])


def memory(samples: list[int]) -> str:
    """The table of predicted and measured peaks in MiB, without a prior and with two."""
    asked: dict[str, dict[str, str]] = {
        "plain step": {},
        "x-gradient with the sparse prior": X_GRADIENT,
        "right-reasons": {"prior": "right-reasons"},
    }
    first, *rest = samples
    lines = [f"| | {first} samples | " + " | ".join(map(str, rest)) + " |", "|---|" + "---:|" * len(samples)]
    for name, model in MODELS.items():
        for kind, options in asked.items():
            step, cells = train_step(model(), **options), []
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "step.onnx"
                step.save(file)
                for count in samples:
                    predicted = predict(step.graph, {N: count}).peak
                    found = fresh(file, count, pattern=True, runs=3)["peak"]
                    cells.append(f"{predicted / MIB:.0f}, {found / MIB:.0f}")
                    print(f"{name:8} {kind:14} {count:6} samples: {cells[-1]} ({predicted / found - 1:+.1%})")
            lines.append(f"| {name}, {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(model: onnx.ModelProto, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of every round of each kind of step."""
    runs = {
        "plain": stepper(model),
        "x-gradient": stepper(model, **X_GRADIENT),
        "right-reasons": stepper(model, prior="right-reasons"),
        "deeplift": stepper(model, prior="sparse", method="deeplift"),
    }
    for count in (1, 2, 4, 8):
        runs[f"expected {count}"] = stepper(model, count, prior="sparse", method="expected-gradients")
    with without("samples-last"):
        runs |= {"as such plain": stepper(model), "as such x-gradient": stepper(model, **X_GRADIENT)}
    with suppress(ImportError):
        runs |= {"torch plain": in_torch(model, False), "torch x-gradient": in_torch(model, True)}
    return {kind: np.array(seconds) for kind, seconds in medians(runs, rounds).items()}


def times(rounds: int) -> str:
    """The table of ratios."""
    found = {name: measured(made(), rounds) for name, made in MODELS.items()}
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]

    def row(label: str, kinds: list[str], base: str, form: str) -> None:
        cells = []
        for seconds in found.values():
            ratios = [float(np.median(seconds[kind] / seconds[base])) for kind in kinds if kind in seconds]
            cells.append(
                form.format(", ".join(f"{r:.2g}" if r < 1 or r >= 10 else f"{r:.3g}" for r in ratios))
            )
        lines.append(f"| {label} | " + " | ".join(cells) + " |")

    row("x-gradient, by a plain step", ["x-gradient"], "plain", "{} x")
    row("right-reasons", ["right-reasons"], "plain", "{} x")
    row("deeplift, 1 reference", ["deeplift"], "plain", "{} x")
    expected = [f"expected {count}" for count in (1, 2, 4, 8)]
    row("expected gradients, 1, 2, 4, 8 references", expected, "plain", "{} x")
    for kind, label in (("plain", "the plain step"), ("x-gradient", "x-gradient with the sparse prior")):
        row(f"torch takes, for {label}", [f"torch {kind}"], kind, "{} x as long")
        row(f"with convolutions as such, {label} takes", [f"as such {kind}"], kind, "{} x as long")
    micros = [f"{np.median(s[k]) * 1e6:.0f}" for s in found.values() for k in ("plain", "x-gradient")]
    print("microseconds, plain and x-gradient:", ", ".join(micros))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", type=int, nargs="+")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    if given.memory:
        mark, table = "memory", memory(given.memory)
    elif given.profile:
        mark, table = "profile", profiles(4 * given.rounds)
    else:
        mark, table = "times", times(given.rounds)
    print(table)
    if given.page:
        before, rest = given.page.read_text().split(f"<!-- {mark} -->")
        after = rest.split(f"<!-- end of the {mark} -->")[1]
        given.page.write_text(f"{before}<!-- {mark} -->\n{table}\n<!-- end of the {mark} -->{after}")


if __name__ == "__main__":
    main()
