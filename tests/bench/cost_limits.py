"""The predicted largest number of references against the truth under a hard memory limit.

    python tests/bench/cost_limits.py --networks FOLDER --limit 4GiB [--names NAME ...] [--passes @naive ...]

The truth is found near the prediction: a fresh process loads and runs the lowered model three times in a
memory cgroup of its own, and is killed when it takes more than the limit.  Needs the right to make one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cost_truth
import numpy as np

import irshap
from irshap.cost import Settings, schedule, stages
from irshap.cost.devices import parse_size
from irshap.cost.limits import references_within
from irshap.dims import N

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
        numbers = ["1", str(int(settings.arena)), str(int(settings.pattern)), "3"]
        command = [sys.executable, cost_truth.__file__, "--child", str(model), *numbers]
        join = f'echo $$ > {folder / "cgroup.procs"} && exec "$@"'
        done = subprocess.run(["sh", "-c", join, "sh", *command], capture_output=True, check=False)
        return done.returncode == 0


def truth(source: Path, passes: str, limit: int, settings: Settings, guess: int, scratch: Path) -> int:
    tried: dict[int, bool] = {}

    def fits(count: int) -> bool:
        if count not in tried:
            path = scratch / "model.onnx"
            references = np.random.default_rng(0).standard_normal((count, 3, 224, 224), dtype=np.float32)
            irshap.compile(source, references, passes=passes).save(path)
            tried[count] = survives(path, limit, settings)
            for file in scratch.iterdir():
                file.unlink()
        return tried[count]

    step = max(1, round(RESOLUTION * guess))
    low = high = max(guess, 1)
    while low > 0 and not fits(low):
        low -= step
    while high == low or fits(high):
        low, high = high, high + step
        if high > 2 * guess:
            break
    return max(low, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicted largest numbers of references against the truth")
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--limit", nargs="+", default=["4GiB"])
    parser.add_argument("--names", nargs="+", default=["resnet50", "efficientnet_b0"])
    parser.add_argument("--passes", nargs="+", default=["@naive", "@default"])
    parser.add_argument("--pattern", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    settings = Settings(pattern=arguments.pattern, runs=3)
    print("| network | program | limit | predicted R | largest R that ran | error |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.names:
        source = arguments.networks / f"{name}_torchscript.onnx"
        for passes in arguments.passes:
            stage = stages(source, passes)[-1]
            plan = schedule(stage.graph, stored=stage.stored)
            for text in arguments.limit:
                limit = parse_size(text)
                guess = references_within(plan, limit - PROCESS, {N: 1}, settings).references
                with tempfile.TemporaryDirectory() as scratch:
                    real = truth(source, passes, limit, settings, guess, Path(scratch))
                print(
                    f"| {name} | {passes} | {text} | {guess} | {real} | {guess / max(real, 1) - 1:+.1%} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
