"""Where the time of an explanation goes, by kind of ONNX node.

    python tests/bench/op_profile.py --nets FOLDER [--references 20] [--threads 1] [--passes TEXT] [NAME ...]

ONNX Runtime's profiler, the fastest of --runs runs.  Times are relative to plain inference of 1 and of R
samples, interleaved with these runs.  FOLDER holds NAME_torchscript.onnx, as tests/bench/networks.py and
tests/bench/transformer_networks.py write.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import irshap

NAMES = ("vgg19", "resnet50", "densenet201", "efficientnet_b0")
LAYOUT = ("ReorderInput", "ReorderOutput")
SETTLE = 0.05
"""Seconds before each run: the threads of a session that has just run go on spinning for a while, and would
take time from the next one, which counts most for those with the shortest runs."""


def session_of(model: Path | bytes, threads: int, profile: Path | None = None) -> Any:
    """A session on the CPU as `Explainer` makes it: without memory patterns."""
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Runs:
    """A session with its feeds; keeps the seconds of each run."""

    def __init__(
        self, model: Path, feeds: dict[str, Any], profile: Path | None = None, threads: int = 0
    ) -> None:
        self.session = session_of(model, threads, profile)
        self.feeds, self.seconds = feeds, list[float]()

    def run(self) -> None:
        time.sleep(SETTLE)
        start = time.perf_counter()
        self.session.run(None, self.feeds)
        self.seconds.append(time.perf_counter() - start)


def random_inputs(network: Path, *counts: int) -> tuple[np.ndarray, ...]:
    """Random float32 arrays of these many samples, of the shape that the network takes."""
    (taken,) = onnx.load(network, load_external_data=False).graph.input
    shape = [d.dim_value for d in taken.type.tensor_type.shape.dim][1:]
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((count, *shape)).astype(np.float32) for count in counts)


def profile(network: Path, count: int, passes: str, runs: int, threads: int) -> tuple[Counter[str], float]:
    """Seconds of each kind of node in the fastest run, and the time of that run over that of inference."""
    references, sample = random_inputs(network, count, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explained.onnx"
        irshap.compile(network, references, passes=passes).save(file)
        one, many = (Runs(network, {"image": x}, threads=threads) for x in (sample, references))
        explained = Runs(file, {"image": sample}, Path(folder) / "profile", threads)
        for _ in range(runs):
            for system in (one, many, explained):
                system.run()
        found = _by_kind(Path(explained.session.end_profiling()))
    return found, min(explained.seconds) / (min(one.seconds) + min(many.seconds))


def fastest(profile: Path) -> tuple[list[dict[str, Any]], float]:
    """The events of nodes in the fastest run that a profile holds, and the microseconds of that run.

    A loop counts as its nodes, which have events of their own.
    """
    events = json.loads(profile.read_text())
    whole = min((e for e in events if e["name"] == "model_run"), key=lambda e: e["dur"])
    found = []
    for event in events:
        inside = whole["ts"] <= event["ts"] <= whole["ts"] + whole["dur"]
        kernel = event.get("cat") == "Node" and event["name"].endswith("kernel_time")
        if inside and kernel and event["args"]["op_name"] != "Scan":
            found.append(event)
    return found, whole["dur"]


def _by_kind(profile: Path) -> Counter[str]:
    """Microseconds of the fastest run."""
    events, whole = fastest(profile)
    found: Counter[str] = Counter()
    for event in events:
        kind = event["args"]["op_name"]
        found["layout" if kind in LAYOUT else kind] += event["dur"]
    found["between nodes"] = max(0, whole - found.total())
    return found


def options(description: str | None) -> argparse.ArgumentParser:
    """The options of a command that runs explanations and inference in turns."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="0: one for each core")
    return parser


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--passes", default="@default")
    parser.add_argument("--kinds", type=int, default=10, help="rows of the table")
    given = parser.parse_args()
    columns: dict[str, tuple[Counter[str], float]] = {}
    for name in given.names:
        network = given.nets / f"{name}_torchscript.onnx"
        columns[name] = profile(network, given.references, given.passes, given.runs, given.threads)
    shares = Counter[str]()
    for found, ratio in columns.values():
        shares.update({kind: ratio * t / found.total() for kind, t in found.items()})
    print(f"Time over that of inferring 1 and {given.references} samples, {given.passes}:\n")
    print("| kind of node | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    listed = [kind for kind, _ in shares.most_common(given.kinds)]
    for kind in (*listed, "other"):
        cells = []
        for found, ratio in columns.values():
            part = found[kind] if kind != "other" else sum(t for k, t in found.items() if k not in listed)
            cells.append(f"{ratio * part / found.total():.2f}")
        print(f"| {kind} | {' | '.join(cells)} |")
    print("| all | " + " | ".join(f"{ratio:.2f}" for _, ratio in columns.values()) + " |")


if __name__ == "__main__":
    main()
