"""What an explanation costs on 25 architectures: time by inference of 1 + R, file, memory.

    python tests/bench/architectures.py --nets FOLDER [--suite mobile|cnn|transformer] [--references 10]
                                        [--runs 7] [--rows ROWS.jsonl] [--page PAGE.md]
                                        [--passes PIPELINE] [NAME ...]

FOLDER holds NAME_torchscript.onnx of torchvision's classifiers, as tests/bench/networks.py writes them.
Each network is measured in a process of its own; runs of the explanation and of plain inference of 1 and of R
samples take turns there.  Rows that are there are not measured again, so that a run can go on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from op_profile import Runs
from versus.machine import field

import irshap

SUITES: dict[str, tuple[str, ...]] = {
    "cnn": (
        "alexnet", "vgg19", "squeezenet1_1", "googlenet", "inception_v3", "resnet18", "resnet50",
        "resnext50_32x4d", "wide_resnet50_2", "densenet121", "densenet201", "regnet_x_400mf",
        "regnet_y_400mf",
    ),
    "mobile": (
        "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", "mnasnet1_0", "shufflenet_v2_x1_0",
        "efficientnet_b0", "efficientnet_v2_s",
    ),
    "transformer": ("vit_b_16", "swin_t", "swin_v2_t", "convnext_tiny", "maxvit_t"),
}  # fmt: skip
CLOSE = 2
"""References for the comparison with @naive, which holds all pairs at once."""

HEAD = """# Architectures

What the explanation of one sample against {references} references costs. `tests/bench/architectures.py` wrote
this page on {processor}, {cores} cores; torchvision's networks with random weights
and calibrated batch norms, 224 x 224 images, float32.

- **by inference**: median of {runs} ratios to the time of inferring 1 and then {references} samples with ONNX
  Runtime, in turns; with the load of the machine before each network.
- **file**: the explained model, by the plain one's size in brackets; **peak**: of the process that compiles.
- **from naive**: largest distance of `@default`'s attributions from `@naive`'s, relative to the largest of
  these, with {close} references.
- **incomplete**: |f(x) - base - sum| by |f(x) - base|, with {close} references.

| network | by inference | load | nodes | file, MB | compiled in, s | peak, MiB | from naive | incomplete |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def images(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise at four scales: global averages would erase plain noise."""
    rng = np.random.default_rng(seed)
    total = np.zeros((count, 3, 224, 224), np.float32)
    for cells in (2, 7, 28, 224):
        grid = rng.standard_normal((count, 3, cells, cells)).astype(np.float32)
        total += grid.repeat(224 // cells, 2).repeat(224 // cells, 3)
    return total / 2


def measured(network: Path, count: int, runs: int, passes: str) -> dict[str, float]:
    """One network's row: times in seconds, sizes in bytes."""
    references, sample = images(count, 0), images(1, 1)
    row = {"load": os.getloadavg()[0], "plain": float(network.stat().st_size)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        compiled = irshap.compile(network, references, passes=passes)
        row["compiled"] = time.perf_counter() - start
        row["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
        row["nodes"] = len(compiled.lowered.graph.node)
        file = Path(folder, "explained.onnx")
        compiled.save(file)
        del compiled
        row["file"] = float(sum(f.stat().st_size for f in Path(folder).iterdir()))
        row |= compared(network, references[:CLOSE], sample, passes)
        feeds = ((network, sample), (network, references), (file, sample))
        one, many, explained = (Runs(model, {"image": x}) for model, x in feeds)
        for _ in range(runs + 1):  # the first of each is left out
            for system in (one, many, explained):
                system.run()
    plain = np.array(one.seconds[1:]) + np.array(many.seconds[1:])
    return row | {"ratio": float(np.median(np.array(explained.seconds[1:]) / plain))}


def compared(network: Path, references: Any, sample: Any, passes: str) -> dict[str, float]:
    """How far a pipeline is from @naive, and its sum from f(x) - base."""
    found = []
    for pipeline in (passes, "@naive"):
        explainer = irshap.compile(network, references, passes=pipeline).explainer()
        found.append(explainer(sample))
    (ours, naive) = (e.raw["image_attributions"] for e in found)
    logits = found[0].raw["logits"]
    gap = logits[0, int(found[0].raw["target_index"][0])] - found[0].raw["base_values"][0]
    return {
        "from_naive": float(np.abs(ours - naive).max() / np.abs(naive).max()),
        "incomplete": float(abs(gap - ours.sum(dtype=np.float64)) / abs(gap)),
    }


def page(rows: dict[str, dict[str, float]], names: Sequence[str], count: int, runs: int) -> str:
    """docs/architectures.md."""
    processor, cores = field("/proc/cpuinfo", "model name"), len(os.sched_getaffinity(0))
    text = HEAD.format(references=count, processor=processor, cores=cores, runs=runs, close=CLOSE)
    for name in names:
        if (row := rows.get(name)) is None:
            continue
        size = f"{row['file'] / 1e6:.0f} ({row['file'] / row['plain']:.1f})"
        cells = [name, f"{row['ratio']:.2f}", f"{row['load']:.1f}", f"{row['nodes']:.0f}", size]
        cells += [f"{row['compiled']:.0f}", f"{row['peak'] / 2**20:.0f}"]
        cells += [f"{row['from_naive']:.1e}", f"{row['incomplete']:.1e}"]
        text += f"| {' | '.join(cells)} |\n"
    ratios = sorted(row["ratio"] for name, row in rows.items() if name in names)
    return f"{text}\nMedian of {len(ratios)}: {np.median(ratios):.2f}; worst: {ratios[-1]:.2f}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--suite", choices=SUITES)
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--rows", type=Path, default=Path("build/bench/architectures.jsonl"))
    parser.add_argument("--page", type=Path)
    parser.add_argument("--passes", default="@default", help="another pipeline, with --rows of its own")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        network = given.nets / f"{given.one}_torchscript.onnx"
        print(json.dumps(measured(network, given.references, given.runs, given.passes)))
        return
    listed = [name for suite in SUITES.values() for name in suite]
    names = given.names or (SUITES[given.suite] if given.suite else listed)
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    given.rows.touch()
    rows = {row.pop("name"): row for row in map(json.loads, given.rows.read_text().splitlines())}
    for name in names:
        if name in rows or not (given.nets / f"{name}_torchscript.onnx").exists():
            continue
        call = [sys.executable, __file__, "--nets", str(given.nets), "--one", name]
        call += ["--references", str(given.references), "--runs", str(given.runs)]
        call += ["--passes", given.passes]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: {(done.stderr.strip().splitlines() or ['died'])[-1]}", flush=True)
            continue
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        with given.rows.open("a") as stream:
            stream.write(json.dumps({"name": name, **rows[name]}) + "\n")
        print(f"{name}: {rows[name]['ratio']:.2f} x inference", flush=True)
    if given.page:
        given.page.write_text(page(rows, listed, given.references, given.runs))


if __name__ == "__main__":
    main()
