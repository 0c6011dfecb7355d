"""Ends runs of `irshap explain` by SIGKILL at random moments, and compares what comes out in the end.

    python tests/bench/kill_explain.py [--count 200] [--format parquet] [--seed 0] [--keep FOLDER]

A run is killed between 0 and --longest seconds after its first shard of this turn; one of four rather at any
time between its start and its first shard, as long as that took the undisturbed run (importing, loading,
planning, the manifest).  Then it is started again; when a folder is finished, its bytes are compared with
those of an undisturbed run, its rows are counted, and the next folder begins.  Exits with 1 if anything
differs; says which files do, and keeps both folders.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from dataset_speed import data, explained

import irshap

SHARDS = 128


def start(folder: Path, out: str, format: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "irshap",
        "explain",
        "explained_30.onnx",
        f"{SHARDS * 64}_30.npy",
        "-o",
        out,
    ]
    command += ["--format", format, "--batch", "32", "--shard-rows", "64", "--workers", "2"]
    root = str(Path(irshap.__file__).parents[1])
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": root}, stdout=quiet)


def finished(folder: Path) -> int:
    """How many shards are noted."""
    journal, manifest = folder / "_journal.jsonl", folder / "_manifest.json"
    if journal.exists():
        return journal.read_bytes().count(b"\n")
    return len(json.loads(manifest.read_text())["shards"]) if manifest.exists() else 0


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows(folder: Path) -> list[int]:
    """The rows that the folder has, in order."""
    told = json.loads((folder / "_manifest.json").read_text())["shards"]
    return [row for shard in told for row in range(shard["start"], shard["stop"])]


def undisturbed(folder: Path, format: str) -> float:
    """Explains into `whole`; the seconds until its first shard."""
    begun, run = time.perf_counter(), start(folder, "whole", format)
    while run.poll() is None and not finished(folder / "whole"):
        time.sleep(0.002)
    first = time.perf_counter() - begun
    if run.wait():
        sys.exit("the undisturbed run fails")
    return first


def kill(
    run: subprocess.Popen[bytes], out: Path, rng: np.random.Generator, first: float, longest: float
) -> bool:
    """Whether the run was killed before it ended."""
    begun, early = finished(out), rng.random() < 0.25
    while not early and run.poll() is None and finished(out) <= begun:
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0, first if early else longest)))
    run.send_signal(signal.SIGKILL)
    return run.wait() == -signal.SIGKILL


def differences(out: Path, wanted: dict[str, bytes], code: int) -> list[str]:
    """What isn't as in an undisturbed run."""
    found = contents(out)
    told = [f"exit code {code}"] if code else []
    told += [f"no {name}" for name in sorted(wanted.keys() - found.keys())]
    told += [f"also {name}" for name in sorted(found.keys() - wanted.keys())]
    both = sorted(wanted.keys() & found.keys())
    told += [f"{name} differs" for name in both if wanted[name] != found[name]]
    return told or ([] if rows(out) == list(range(SHARDS * 64)) else ["rows are missing, or there twice"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--format", choices=["parquet", "npy"], default="parquet")
    parser.add_argument("--longest", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("kill_explain_kept"), help="for what differs")
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        explained(folder, 30, (64, 32)), data(folder, SHARDS * 64, 30)
        first = undisturbed(folder, asked.format)
        wanted = contents(folder / "whole")
        killed = folders = wrong = 0
        while killed < asked.count:
            out = folder / f"out{folders}"
            while killed < asked.count and kill(
                start(folder, out.name, asked.format), out, rng, first, asked.longest
            ):
                killed += 1
                print(f"\r{killed} killed, {finished(out)} of {SHARDS} shards", end="", flush=True)
            code = start(folder, out.name, asked.format).wait()
            if told := differences(out, wanted, code):
                wrong += 1
                print(f"\n{out.name}: {', '.join(told)}", flush=True)
                for kept in (folder / "whole", out):
                    shutil.copytree(kept, asked.keep / kept.name, dirs_exist_ok=True)
            folders += 1
        print(f"\n{killed} runs killed, {folders} folders finished, {wrong} of them differ")
        sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
