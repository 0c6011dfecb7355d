"""Ends `irshap compile` and `irshap train` by SIGKILL at random moments, and looks at what is left.

    python tests/bench/kill_compile.py [--count 300] [--seed 0]

A model is compiled to one name with other references in turn, in one file and with a data file; after each
kill there must be the bytes of one of the two, with its own data.  Half of the kills fall into compiling and
the first save, half into the `--saves` saves that follow.  At the end one more run must leave nothing but its
own files.  A training run is killed and started again until it ends: its model must have the bytes of an
undisturbed run.
Processes are forks of this one, which has imported all there is but made no session: kills fall into work.
Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import irshap.compiler.catalog
from irshap import demo
from irshap.cli import main as cli
from irshap.files import data_file
from irshap.lowering.files.load import load_model
from irshap.lowering.files.save import save_model
from irshap.training import Trainer

__all__ = ["killed", "main", "pair"]


def killed(work: Callable[[], object], after: float) -> bool:
    """Whether `work`, in a process of its own, was killed after so many seconds before it ended."""
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 1
        try:
            code = int(work() or 0)
        finally:
            os._exit(code)
    end = time.monotonic() + after
    while not (found := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.0005)
    if found[0]:
        if found[1]:
            sys.exit(f"a run that nobody killed ends with {found[1]}")
        return False
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def pair(path: Path) -> tuple[bytes, bytes | None] | None:
    """What a model's file and its data file hold; None where there is no model."""
    if not path.exists():
        return None
    data = data_file(path)
    return path.read_bytes(), None if data is None else data.read_bytes()


def run(*arguments: str) -> Callable[[], object]:
    return lambda: cli(list(arguments))


def compiling(
    folder: Path, options: list[str], count: int, saves: int, rng: np.random.Generator
) -> Counter[str]:
    """What is there after each kill."""
    out, told = folder / "out.onnx", Counter[str]()
    commands = []
    for i, name in enumerate("ab"):
        np.save(folder / f"{name}.npy", np.load(demo.references_path())[i * 40 : i * 40 + 40])
        commands.append(
            ["compile", str(demo.model_path()), "-r", str(folder / f"{name}.npy"), "-o", str(out), *options]
        )
    wanted = []
    for command in commands:
        begun = time.perf_counter()
        assert not killed(run(*command), 600)
        longest = time.perf_counter() - begun
        wanted.append(pair(out))
    assert wanted[0] != wanted[1]

    def repeated(command: list[str]) -> Callable[[], object]:
        def work() -> int:
            code = int(cli(command) or 0)
            again = load_model(out)
            for _ in range(saves):
                save_model(again, out, external_over=0 if "--external-data" in options else 2**31 - 1)
            return code

        return work

    for i in range(count):
        # half of them while it is compiled or first saved, half while it is saved again and again
        after = float(rng.uniform(0, longest * (1.1 if i % 2 else 3)))
        ended = not killed(repeated(commands[i % 2]), after)
        found = pair(out)
        told["ended" if ended else "killed"] += 1
        told["old" if found == wanted[1 - i % 2] else "new" if found == wanted[i % 2] else "WRONG"] += 1
    assert not killed(run(*commands[0]), 600)
    data = data_file(out)
    left = {p.name for p in folder.iterdir()} - {"a.npy", "b.npy", out.name, data.name if data else out.name}
    told["LEFT"] += len(left)
    return told


def training(folder: Path, count: int, rng: np.random.Generator) -> Counter[str]:
    """How often a resumed run ends with the bytes of an undisturbed one."""
    images, labels = demo.digits()
    np.savez(folder / "data.npz", image=images, labels=labels)
    base = ["train", str(demo.model_path()), str(folder / "data.npz"), "--epochs", "3"]
    base += ["--checkpoint-every", "5"]

    def command(name: str) -> Callable[[], object]:
        return run(*base, "-o", str(folder / f"{name}.onnx"), "--checkpoint", str(folder / f"{name}.npz"))

    begun = time.perf_counter()
    assert not killed(command("whole"), 600)
    longest = time.perf_counter() - begun
    wanted, told, runs = pair(folder / "whole.onnx"), Counter[str](), 0
    while told["killed"] < count:
        name = f"run{runs}"
        while told["killed"] < count and killed(command(name), float(rng.uniform(0, longest))):
            told["killed"] += 1
            told["WRONG"] += pair(folder / f"{name}.onnx") not in (None, wanted)
        assert not killed(command(name), 600)
        told["finished"] += 1
        told["WRONG"] += pair(folder / f"{name}.onnx") != wanted
        runs += 1
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300, help="kills, a third of each kind")
    parser.add_argument("--saves", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    each = -(-asked.count // 3)
    assert irshap.compiler.catalog and Trainer  # imported before forking
    wrong = 0
    for name, options in (("one file", []), ("a data file", ["--external-data"]), ("training", None)):
        rng = np.random.default_rng(asked.seed)
        with tempfile.TemporaryDirectory() as where:
            if options is None:
                told = training(Path(where), each, rng)
            else:
                told = compiling(Path(where), options, each, asked.saves, rng)
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in told.items() if count)}", flush=True)
        wrong += told["WRONG"] + told["LEFT"]
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
