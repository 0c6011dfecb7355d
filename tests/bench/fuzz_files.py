"""Broken ONNX files by the thousand: python tests/bench/fuzz_files.py --count 20000 [--start 0] [--jobs 1]

Each is compiled, or refused with a reason: never an internal error, never longer than 20 s, never more than
4 GiB.  Worker processes do the work, so that a file which hangs, or takes a process down, is one outcome
among others.  Faults are listed by seed; the exit code is 1 if there is one.  `--seed N` runs one seed in
this process, with its traceback; `--save FILE` writes that file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

import fuzz_files
from fuzz_files import Outcome, mutated, outcome

SECONDS, BYTES = 20.0, 4 * 2**30
MODELS = 300
"""How many models are made at random, beside fixtures and onnx's own."""


def models() -> list[bytes]:
    # a third each of networks, random models and single nodes: what compiles, and what is of every kind
    kinds = fuzz_files.fixtures(), fuzz_files.generated(MODELS), fuzz_files.node_models()
    most = max(map(len, kinds))
    return [model for kind in kinds for model in kind * (most // len(kind))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--save")
    given = parser.parse_args()
    seeds = models()
    if given.seed is not None:
        return show(mutated(seeds, given.seed), given.save)
    start, counts, faults = time.perf_counter(), Counter[str](), 0
    shares = [range(given.start + i, given.start + given.count, given.jobs) for i in range(given.jobs)]
    with ThreadPoolExecutor(given.jobs) as pool:
        for part in pool.map(lambda share: list(run(seeds, share)), shares):
            for seed, found in part:
                counts[f"{found.kind} {found.error}".strip()] += 1
                if is_fault(found):
                    faults += 1
                    print(f"seed {seed}: {found.kind}: {found.error}: {found.detail}")
    print(f"{given.count} files in {time.perf_counter() - start:.0f} s, {faults} faults")
    for kind, number in counts.most_common():
        print(f"  {number:6} {kind}")
    return int(faults > 0)


def is_fault(found: Outcome) -> bool:
    return found.kind in ("internal error", "hang", "died", "memory")


def show(content: bytes, save: str | None) -> int:
    if save:
        Path(save).write_bytes(content)
    found = outcome(content, reraise=True)
    print(found)
    return int(is_fault(found))


def run(seeds: list[bytes], share: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each seed, in a process that is replaced when it hangs or dies."""
    worker: Worker | None = None
    for done, seed in enumerate(share):
        worker = worker or Worker(seeds)
        found = worker.outcome(seed)
        if is_fault(found):
            print(f"seed {seed}: {found.kind}: {found.error}: {found.detail}", file=sys.stderr, flush=True)
        elif done % 500 == 499:
            print(f"{done + 1} of {len(share)}", file=sys.stderr, flush=True)  # type: ignore[arg-type]
        if found.kind in ("hang", "died", "memory"):
            worker.end()
            worker = None
        yield seed, found
    if worker is not None:
        worker.end()


class Worker:
    """A process that takes seeds and gives outcomes."""

    def __init__(self, seeds: list[bytes]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(seeds, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def outcome(self, seed: int) -> Outcome:
        self.pipe.send(seed)
        start, before = time.monotonic(), self.seconds()
        try:
            while not self.pipe.poll(1.0):
                # a busy machine is no hang, and one that waits for something is
                waited = time.monotonic() - start
                if self.seconds() - before > SECONDS or waited > 10 * SECONDS:
                    return Outcome("hang", f"over {SECONDS:g} s")
            found: Outcome = self.pipe.recv()
        except EOFError:
            self.process.join()
            return Outcome("died", f"exit code {self.process.exitcode}")
        return found

    def seconds(self) -> float:
        """The processor time that the process has taken, or the wall clock where nothing tells it."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        if not stat.exists():
            return time.monotonic()
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def work(seeds: list[bytes], pipe: Any) -> None:
    """Runs in the worker.  A process can't ask for more address space than twice the limit on its memory."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (2 * BYTES, 2 * BYTES))
    with Path(os.devnull).open("w") as sink, redirect_stderr(sink):
        while True:
            found = outcome(mutated(seeds, pipe.recv()))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            pipe.send(Outcome("memory", f"{peak / 2**30:.1f} GiB", found.detail) if peak > BYTES else found)


if __name__ == "__main__":
    sys.exit(main())
