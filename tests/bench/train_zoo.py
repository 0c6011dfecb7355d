"""Gradients of a loss by every parameter, against torch's own backward, on the zoo's smallest networks.

    python tests/bench/train_zoo.py [--count 10] [--only PATTERN] [--exporter torchscript|dynamo]
                                    [--page docs/training.md]

The smallest by the nodes that the zoo's rows count, among torch's networks with a dynamic batch.  Each is
exported in float64 and in float32 with its parameters as they are (the exporters would fold some of them),
with the statistics of its batch norms frozen, as in evaluation.  What torch's backward gives for the same
module in float64 is what both are compared with: the first in irshap's evaluator, the second in ONNX Runtime.
The loss is cross-entropy for classes, else mean squared error.  --page writes the table between its marks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from irshap.errors import IrshapError

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "oracles"), str(HERE.parent / "helpers")]
ROWS = HERE / "zoo_models" / "rows.jsonl"
OF_OTHERS = ("sklearn", "keras", "forms")
MARKS = ("<!-- zoo -->", "<!-- end of the zoo -->")
LIMITS = {"float64": 1e-9, "float32": 1e-4}
SAMPLES = 3


def smallest(count: int, only: str = "", rows: Path = ROWS) -> dict[str, int]:
    """The nodes of so many networks, the smallest first, by suite/model: of their smallest file."""
    found: dict[str, int] = {}
    for row in map(json.loads, rows.read_text().splitlines()):
        name = f"{row['suite']}/{row['model']}"
        if row["suite"] in OF_OTHERS or row.get("batch") != "dynamic" or row.get("length") != "fixed":
            continue
        if "nodes" in row and re.search(only, name):
            found[name] = min(row["nodes"], found.get(name, row["nodes"]))
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0]))[:count])


def off(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """The largest difference of any gradient, by the largest gradient of all."""
    largest = max(float(np.abs(a).max()) for a in wanted.values())
    return max(float(np.abs(found[n] - a).max()) for n, a in wanted.items()) / largest


def by_torch(
    module: Any, given: Mapping[str, Any], loss: str, labels: Any, weights: Any
) -> tuple[float, dict[str, Any]]:
    """The loss and its gradients by name; without parameters that it doesn't depend on."""
    import torch
    from torch.nn import functional

    f = _output(module, given)
    if loss == "cross-entropy":
        each = functional.cross_entropy(f, torch.from_numpy(labels), reduction="none")
    else:
        each = (f - torch.from_numpy(labels)).square().flatten(1).mean(1)
    whole = (each * torch.from_numpy(weights)).sum() / weights.sum()
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(whole, parameters, allow_unused=True)
    return whole.item(), {n: g.numpy() for n, g in zip(names, gradients, strict=True) if g is not None}


def compared(name: str, exporter: str) -> dict[str, Any]:
    """How far irshap's gradients of a network of the zoo are from torch's."""
    import torch
    from exporting import export
    from stepping import evaluated, initial, run
    from zoo_models.suites import SUITES

    from irshap.training import train_step

    suite, _, model = name.partition("/")
    torch.backends.mha.set_fastpath_enabled(False)
    module, inputs = SUITES[suite].build(model)
    module = deepcopy(module).eval()
    _as_files_have_it(module)

    def given(kind: Any) -> dict[str, Any]:
        floats = {n: a.astype(kind) for n, a in inputs.samples.items() if a.dtype.kind == "f"}
        return {**inputs.samples, **floats}

    exact = module.double()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        output = _output(exact, given(np.float64))
    classes = output.dim() == 2 and output.shape[1] > 1
    loss = "cross-entropy" if classes else "mse"
    labels = rng.integers(0, output.shape[1], SAMPLES) if classes else rng.normal(size=tuple(output.shape))
    weights = rng.random(SAMPLES) + 0.5
    told, wanted = by_torch(exact, given(np.float64), loss, labels, weights)

    row: dict[str, Any] = {"network": name, "loss": loss}
    with tempfile.TemporaryDirectory() as folder:
        for kind, runner in ((np.float64, evaluated), (np.float32, run)):
            file = Path(folder) / f"{kind.__name__}.onnx"
            typed = module.to(getattr(torch, kind.__name__))
            tensors = {n: torch.from_numpy(a[:2]) for n, a in given(kind).items()}
            export(typed, tensors, file, exporter=exporter, folded=False)
            source = onnx.load(file)
            step = train_step(source, loss=loss, optimizer="gradients", parameters=_trained(source, wanted))
            names = step.training.given
            feeds = {**initial(source), **given(kind), names["sample_weights"]: weights.astype(kind)}
            feeds[names["labels"]] = labels if classes else labels.astype(kind)
            known = {v.name for v in step.model.graph.input}
            found = runner(step, {n: a for n, a in feeds.items() if n in known})
            gradients = {n: found[output] for n, output in step.training.parameters.items()}
            lacking = sorted(wanted.keys() - gradients.keys())
            if lacking:
                raise ValueError(f"no gradient of {', '.join(lacking)}")
            row[kind.__name__] = off(gradients, wanted)
            row[f"loss in {kind.__name__}"] = abs(float(found["loss"]) - told) / abs(told)
    return row | {"parameters": len(wanted), "numbers": sum(a.size for a in wanted.values())}


def _output(module: Any, given: Mapping[str, Any]) -> Any:
    """What the loss is of: the first output where a network gives several."""
    import torch

    found = module(*map(torch.from_numpy, given.values()))
    return found[0] if isinstance(found, tuple) else found


def _as_files_have_it(module: Any) -> None:
    """Changes what a file can't hold, so that both compute the same function.

    Parameters of one number are drawn anew: exporters make one initializer of two that are equal.  Attributes
    of an ONNX node are float32.
    """
    import torch

    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in module.parameters():
            if value.numel() > 1 and bool((value == value.flatten()[0]).all()):
                value += 0.1 * torch.randn(value.shape, generator=generator)
    for part in module.modules():
        for name, value in vars(part).items():
            if name in ("eps", "negative_slope") and isinstance(value, float):
                setattr(part, name, float(np.float32(value)))


def _trained(source: onnx.ModelProto, wanted: Mapping[str, Any]) -> str:
    """The names of the module's parameters that are initializers of the file."""
    return ", ".join(t.name for t in source.graph.initializer if t.name in wanted)


def page(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | nodes | parameters | numbers | float64 | float32 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if "why" in row:
            lines.append(f"| {row['network']} | {row['nodes']} | {row['why']} | | | |")
            continue
        cells = [row["network"], row["nodes"], row["parameters"], f"{row['numbers']:,}".replace(",", " ")]
        cells += [f"{row[kind]:.1e}" for kind in LIMITS]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--only", default="")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="torchscript")
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    rows, good = [], True
    for name, nodes in smallest(given.count, given.only).items():
        try:
            row = compared(name, given.exporter)
        except IrshapError as error:
            row = {"network": name, "why": f"refused: {error}"}
        except Exception as error:  # whatever an exporter raises is its answer
            row = {"network": name, "why": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        row["nodes"] = nodes
        row["good"] = all(row.get(kind, 1.0) <= limit for kind, limit in LIMITS.items())
        good &= row["good"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    if given.page:
        text = given.page.read_text()
        before, rest = text.split(MARKS[0])
        given.page.write_text(f"{before}{MARKS[0]}\n{page(rows)}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
