"""Broken ONNX files by the thousand: python tests/bench/fuzz_files.py --count 20000 [--start 0] [--jobs 1]

Each is compiled, or refused with a reason: never an internal error, never longer than 20 s, never more than
4 GiB.  Worker processes do the work, so that a file which hangs, or takes a process down, is one outcome
among others.  Faults are listed by seed; the exit code is 1 if there is one.  `--seed N` runs one seed in
this process, with its traceback; `--save FILE` writes that file.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import fuzz_files
from fuzz_workers import Kind, hunt

MODELS = 300
"""How many models are made at random, beside fixtures and onnx's own."""


def models() -> list[bytes]:
    # a third each of networks, random models and single nodes: what compiles, and what is of every kind
    kinds = fuzz_files.fixtures(), fuzz_files.generated(MODELS), fuzz_files.node_models()
    most = max(map(len, kinds))
    return [model for kind in kinds for model in kind * (most // len(kind))]


if __name__ == "__main__":
    kind = Kind(partial(fuzz_files.mutated, models()), fuzz_files.outcome)
    sys.exit(hunt(__doc__, lambda name: kind, ("models",), 20_000))
