"""What fuzzers share: outcomes, and processes that are replaced when an input makes them hang or die.

Whatever an input is, irshap takes it or refuses it with a reason: any other exception is a fault of irshap,
and so are a process that dies, 20 s of work, or 4 GiB.
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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irshap.errors import UserError

__all__ = ["Kind", "Outcome", "hunt", "is_fault", "judged", "refused"]

SECONDS, BYTES = 20.0, 4 * 2**30


@dataclass(frozen=True)
class Outcome:
    """How an input ended: by the name of what was done with it, "refused", or a fault."""

    kind: str
    error: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        made: the input of a seed, the same each time.
        outcome: what becomes of it; with `reraise` a fault is raised.
    """

    made: Callable[[int], bytes]
    outcome: Callable[..., Outcome]


def is_fault(found: Outcome) -> bool:
    return found.kind in ("internal error", "hang", "died", "memory")


def refused(kind: str, refusal: UserError) -> Outcome:
    """What was refused after `kind`; without a reason it is a fault."""
    if not refusal.what.strip():
        return Outcome("internal error", type(refusal).__name__, "refused without a reason")
    return Outcome(kind, type(refusal).__name__, str(refusal)[:300])


def judged(steps: Iterator[str], reraise: bool) -> Outcome:
    """The outcome of work that tells each step when it is done."""
    kind = "refused"
    try:
        for step in steps:
            kind = step
        return Outcome(kind)
    except UserError as refusal:
        return refused(kind, refusal)
    except Exception as error:  # whatever it is, it is a fault
        if reraise:
            raise
        detail = str(error).splitlines()
        return Outcome("internal error", type(error).__name__, detail[0][:300] if detail else "")


def hunt(description: str | None, kinds: Callable[[str], Kind], names: tuple[str, ...], count: int) -> int:
    """The command: runs seeds of a kind, lists faults by seed, and counts how all ended.

    Args:
        kinds: the kind of a name.
        names: theirs; where there is one alone it isn't asked for.
        count: of seeds, by default.

    Returns:
        The exit code: 1 if there is a fault.
    """
    parser = argparse.ArgumentParser(description=description)
    if len(names) > 1:
        parser.add_argument("kind", choices=names)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--save")
    given = parser.parse_args()
    kind = kinds(given.kind if len(names) > 1 else names[0])
    if given.seed is not None:
        return _show(kind, given.seed, given.save)
    kind.made(0)  # what seeds share is made before there are processes
    start, counts, faults = time.perf_counter(), Counter[str](), 0
    shares = [range(given.start + i, given.start + given.count, given.jobs) for i in range(given.jobs)]
    with ThreadPoolExecutor(given.jobs) as pool:
        for part in pool.map(lambda share: list(_run(kind, share)), shares):
            for seed, found in part:
                counts[f"{found.kind} {found.error}".strip()] += 1
                if is_fault(found):
                    faults += 1
                    print(f"seed {seed}: {found.kind}: {found.error}: {found.detail}")
    print(f"{given.count} in {time.perf_counter() - start:.0f} s, {faults} faults")
    for name, number in counts.most_common():
        print(f"  {number:6} {name}")
    return int(faults > 0)


def _show(kind: Kind, seed: int, save: str | None) -> int:
    content = kind.made(seed)
    if save:
        Path(save).write_bytes(content)
    found = kind.outcome(content, reraise=True)
    print(found)
    return int(is_fault(found))


def _run(kind: Kind, share: Iterable[int]) -> Iterator[tuple[int, Outcome]]:
    """The outcome of each seed, in a process that is replaced when it hangs or dies."""
    worker: Worker | None = None
    for done, seed in enumerate(share):
        worker = worker or Worker(kind)
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

    def __init__(self, kind: Kind) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(kind, theirs), daemon=True)
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


def _work(kind: Kind, pipe: Any) -> None:
    """Runs in the worker.  A process can't ask for more address space than twice the limit on its memory."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (2 * BYTES, 2 * BYTES))
    with Path(os.devnull).open("w") as sink, redirect_stderr(sink), redirect_stdout(sink):
        while True:
            found = kind.outcome(kind.made(pipe.recv()))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            pipe.send(Outcome("memory", f"{peak / 2**30:.1f} GiB", found.detail) if peak > BYTES else found)
