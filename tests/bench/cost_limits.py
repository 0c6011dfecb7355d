"""The predicted largest number of references against the truth under a hard memory limit.

    python tests/bench/cost_limits.py --networks FOLDER --limit 4GiB [--names NAME ...] [--passes @naive ...]

The truth is found near the prediction: a fresh process loads and runs the lowered model three times in a
memory cgroup of its own, and is killed when it takes more than the limit.  Needs the right to make one.
Programs are those of cost_truth.py: pipelines, and strategies, with ":data" from a data file.  More than
--most references are not tried.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cost_truth
import numpy as np

import irshap
from irshap.cost import SessionModel, Settings, stages
from irshap.cost.limits import references_within
from irshap.ir.dims import N
from irshap.runtime.sizes import parse_size

PROCESS = 46 << 20
"""What Python, numpy and ONNX Runtime take before a session is made."""

RESOLUTION = 0.02


@contextmanager
def group(limit: int) -> Iterator[Path]:
    """A memory cgroup, version 1 or 2."""
    old = Path("/sys/fs/cgroup/memory")
    folder = (old if old.is_dir() else Path("/sys/fs/cgroup")) / f"irshap-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(limit))
        yield folder
    finally:
        folder.rmdir()


def survives(model: Path, limit: int, settings: Settings) -> bool:
    with group(limit) as folder:
        numbers = ["1", str(int(settings.pattern)), "3"]
        command = [sys.executable, cost_truth.__file__, "--child", str(model), *numbers]
        join = f'echo $$ > {folder / "cgroup.procs"} && exec "$@"'
        done = subprocess.run(["sh", "-c", join, "sh", *command], capture_output=True, check=False)
        return done.returncode == 0


def truth(source: Path, cell: cost_truth.Cell, limit: int, settings: Settings, guess: int, most: int) -> int:
    """The largest number of references that runs, if that isn't over `most`."""
    tried: dict[int, bool] = {}
    low = high = max(min(guess, most), 1)
    step = max(1, round(RESOLUTION * high))
    with tempfile.TemporaryDirectory() as scratch:

        def fits(count: int) -> bool:
            if count not in tried:
                path = Path(scratch) / "model.onnx"
                references = np.random.default_rng(0).standard_normal((count, 3, 224, 224), dtype=np.float32)
                compiled = irshap.compile(source, references, passes=cost_truth.pipeline(cell.program))
                compiled.save(path, external_data=cell.external)
                del compiled
                tried[count] = survives(path, limit, settings)
                for file in path.parent.iterdir():
                    file.unlink()
            return tried[count]

        while low > 0 and not fits(low):
            low -= step
        while high == low or fits(high):
            low, high = high, high + step
            if high > min(2 * guess, most):
                break
    return max(low, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicted largest numbers of references against the truth")
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--limit", nargs="+", default=["4GiB"])
    parser.add_argument("--names", nargs="+", default=["resnet50", "efficientnet_b0"])
    parser.add_argument("--passes", nargs="+", default=["@naive", "@default"])
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--pattern", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    print("| network | program | limit | predicted R | largest R that ran | error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.names:
        source = arguments.networks / f"{name}_torchscript.onnx"
        for passes in arguments.passes:
            cell = cost_truth.Cell(name, passes, 0, 1, arguments.pattern)
            stage = stages(source, cost_truth.pipeline(cell.program))[-1]
            session = SessionModel.of(stage.graph, stored=stage.stored)
            settings = Settings(pattern=arguments.pattern, runs=3)
            if cell.external:
                settings = replace(settings, external_over=0)
            for text in arguments.limit:
                limit = parse_size(text)
                guess = references_within(session, limit - PROCESS, {N: 1}, settings).references
                real = truth(source, cell, limit, settings, guess, arguments.most)
                if guess > arguments.most:
                    shown = (
                        f"over {arguments.most}",
                        f"{real} or more" if real >= arguments.most else str(real),
                        "",
                    )
                else:
                    shown = (str(guess), str(real), f"{guess / max(real, 1) - 1:+.1%}")
                print(f"| {name} | {passes} | {text} | " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    main()
