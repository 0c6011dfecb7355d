"""Broken inputs by the thousand: python tests/bench/fuzz_texts.py KIND --count 5000 [--start 0] [--jobs 1]

    ir          programs as text: parsed, checked, and run through passes
    pipeline    texts of pipelines: parsed, and run on a small network
    data        .npy, .npz and Parquet files, to whatever reads such
    explained   explained files, to who explains, draws and packages with them

Each is taken, or refused with a reason, within 20 s and 4 GiB; see fuzz_files.py, which does the same with
models.  Faults are listed by seed; the exit code is 1 if there is one.  `--seed N` runs one seed with its
traceback, `--save FILE` writes what it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import fuzz_data
import fuzz_explained
import fuzz_texts
from fuzz_workers import Kind, hunt

KINDS = {
    "ir": fuzz_texts.IR,
    "pipeline": fuzz_texts.PIPELINE,
    "data": fuzz_data.DATA,
    "explained": fuzz_explained.EXPLAINED,
}


def kind(name: str) -> Kind:
    return KINDS[name]


if __name__ == "__main__":
    sys.exit(hunt(__doc__, kind, tuple(KINDS), 5000))
