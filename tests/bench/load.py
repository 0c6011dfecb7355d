"""Writes the tables of docs/serving.md: explanations and plain inference asked for by many clients at once.

    python tests/bench/load.py [--requests 10000] [--clients 32] [--paced] [--write PAGE] [--keep FILE]

Each row is measured in a process of its own, in which 32 threads ask: one session that all call at once, a
worker a core behind a queue, an `Explainer`, or over HTTP the app that `irshap package --kind docker` writes.
A closed loop asks again when it is answered; an open one at 70 % of what a closed one reached just before,
at times fixed beforehand from which the wait counts, so that a late answer delays no question.  A loop in C
that takes as long as an explanation alone shows what the machine itself does to waits.  Each answer's digest
is compared with that of a serial run on one thread.  Explanations of the digits with 100 references get all
requests through the first and second way and over HTTP, other rows a part of them.  Exits with 1 where an
answer fails or differs, or where at even times p99 of explanations is over 3 x p50.

With --keep a run that ends after --seconds, or is stopped, goes on with the rows that are missing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import pickle
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from clients import BEST, CHECKED, CHOSEN, EACH, ONE, POOL, SHARED, WARM, WAYS, Case, Outcome, measure
from dataset_speed import network
from waiting_lines import LOOP, Loop, bounds, poisson, steady

import irshap
from irshap import demo
from irshap.datasets.plan import cores

BEGIN, END = "<!-- load -->", "<!-- end of the load -->"
PACED, END_PACED = "<!-- at a pace -->", "<!-- end of the pace -->"
UTILIZATION = 0.7
LATE = 3
"""How many times p50 p99 may be."""

ROUNDS = 3
"""How often a row of the open loop is measured; in turn with those that it is compared with."""


def told(outcome: Outcome) -> str:
    return f"{outcome.rate:.0f} | " + " | ".join(f"{q:.2f}" for q in outcome.quantiles)


PLAIN, FULL, STEADY = "digits, plain", "digits, 100 references", "(a loop in C)"
ALONE = "one client, one session, 1 thread"


class Study:
    """Measures rows, and remembers what wasn't right."""

    def __init__(
        self, folder: Path, requests: int, clients: int, keep: Path | None = None, seconds: float = np.inf
    ) -> None:
        self.requests, self.clients = requests, clients
        self.keep, self.until, self.number = keep, time.monotonic() + seconds, 0
        self.kept: list[Outcome] = pickle.loads(keep.read_bytes()) if keep and keep.exists() else []
        """The rows that an earlier run measured, in order."""
        self.answers = self.wrong = self.late = 0
        self.models: dict[str, tuple[str, Path]] = {}
        """The network and the file of each model."""
        digits = onnx.load(demo.model_path()), np.load(demo.references_path())
        for name, (model, references), counts in (
            ("digits", digits, (20, 100)),
            ("MLP", network(30, (64, 32)), (100,)),
        ):
            self.models[f"{name}, plain"] = name, folder / f"{name}.onnx"
            onnx.save(model, folder / f"{name}.onnx")
            for count in counts:
                file = folder / f"{name}_{count}.onnx"
                irshap.compile(model, references[:count]).save(file)
                self.models[f"{name}, {count} references"] = name, file

    def row(self, model: str, way: str, requests: int, *, clients: int | None = None, **more: Any) -> Outcome:
        kind, file = self.models[model]
        case = Case(file, kind, way, requests, clients or self.clients, **more)
        if self.number == len(self.kept):
            if time.monotonic() > self.until:
                sys.exit(f"{self.number} rows are measured: run it again")
            # a process for each row: what one leaves in memory isn't another's
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                self.kept.append(pool.apply(measure, (case,)))
            if self.keep is not None:
                self.keep.write_bytes(pickle.dumps(self.kept))
        outcome = self.kept[self.number]
        self.number += 1
        print(f"{model}; {way}: {told(outcome)}", flush=True)
        self.answers += len(outcome.waits)
        self.wrong += outcome.different + len(outcome.errors)
        for error in outcome.errors[:1]:
            print(f"  {len(outcome.errors)} failed: {error}", file=sys.stderr)
        return outcome

    def closed(self) -> tuple[list[str], dict[tuple[str, str], Outcome]]:
        lines = [
            "| model | asked through | requests | requests/s | p50 ms | p95 ms | p99 ms | slower than plain |"
        ]
        lines.append("|---|---|---:|---:|---:|---:|---:|---:|")
        found: dict[tuple[str, str], Outcome] = {}
        for model, (kind, _) in self.models.items():
            plain = model.endswith("plain")
            alone = self.row(model, SHARED, self.requests // 10, clients=1)
            rows = {ALONE: alone}
            for way in WAYS:
                if not (plain and way == CHECKED) and not (model != FULL and way in (CHOSEN, POOL, EACH)):
                    whole = model == FULL and way in (SHARED, BEST, ONE)
                    rows[way] = self.row(model, way, self.requests // (1 if whole else 4))
            for way, outcome in rows.items():
                found[model, way] = outcome
                base = None if plain else found.get((f"{kind}, plain", way))
                ratio = "" if base is None else f"{base.rate / outcome.rate:.1f} x"
                lines.append(f"| {model} | {way} | {len(outcome.waits)} | {told(outcome)} | {ratio} |")
        return lines, found

    def open(self) -> list[str]:
        lines = [
            "| asked through | times | model | requests/s | p50 ms | p95 ms | p99 ms | p99 / p50 | each |"
        ]
        lines.append("|---|---|---|---:|---:|---:|---:|---:|---|")
        loop = self.models[FULL][1].with_suffix(LOOP)
        loop.write_text(str(Loop.lasting(1 / self.row(FULL, SHARED, self.requests // 20, clients=1).rate)))
        self.models[STEADY] = "digits", loop
        for way in (SHARED, POOL, ONE):
            for name, draw, rounds in (("even", np.full, ROUNDS), ("Poisson", poisson, 1)):
                found: dict[str, list[Outcome]] = {PLAIN: [], FULL: [], STEADY: []}
                for model in (FULL, PLAIN, STEADY) * rounds:
                    if model != PLAIN:
                        # of just now: on a shared machine that of some minutes ago may be far from it
                        reached = self.row(model, way, self.requests // 12).rate
                        times = draw(self.requests // 6, 1 / (UTILIZATION * reached)).cumsum()
                    found[model].append(self.row(model, way, len(times), times=times))
                middle = {m: sorted(o, key=lambda one: one.tail)[len(o) // 2] for m, o in found.items()}
                for model, outcome in middle.items():
                    tails = ", ".join(f"{one.tail:.1f}" for one in found[model])
                    lines.append(
                        f"| {way} | {name} | {model} | {told(outcome)} | {outcome.tail:.1f} | {tails} |"
                    )
                if name == "even":
                    self.late += middle[FULL].tail > LATE
                else:
                    line = steady(times, reached, cores())
                    lines.append(f"| {way} | {name} | (a queue alone) | {line} | |")
        return lines

    def batches(self) -> list[str]:
        lines = ["| model | asked through | samples in a request | samples/s | p50 ms | p99 ms |"]
        lines.append("|---|---|---:|---:|---:|---:|")
        for model in ("digits, plain", FULL):
            for way in (BEST, ONE):
                for batch in (1, 8, 32):
                    requests = max(self.requests // 8 // batch, 2 * self.clients)
                    outcome = self.row(model, way, requests, batch=batch)
                    p50, _, p99 = outcome.quantiles
                    cells = f"{batch} | {outcome.rate * batch:.0f} | {p50:.2f} | {p99:.2f}"
                    lines.append(f"| {model} | {way} | {cells} |")
        return lines

    def memory(self, found: dict[tuple[str, str], Outcome], longest: int) -> list[str]:
        lines = ["| model | asked through | requests | MiB at 10, 30, 60, 100 % | KiB a 1000 requests |"]
        lines.append("|---|---|---:|---:|---:|")
        rows = {key: found[key] for key in ((FULL, way) for way in WAYS)}
        small = "digits, 20 references"
        rows |= {(small, way): self.row(small, way, longest) for way in (SHARED, CHECKED)}
        for (model, way), outcome in rows.items():
            at = [round(part * (len(outcome.memory) - 1)) for part in (0.1, WARM, 0.6, 1)]
            sizes = ", ".join(f"{outcome.memory[i, 1]:.1f}" for i in at)
            lines.append(f"| {model} | {way} | {len(outcome.waits)} | {sizes} | {outcome.growth:.1f} |")
        return lines


def at_a_pace(study: Study) -> list[str]:
    return [
        PACED,
        f"### Requests at {UTILIZATION:.0%} of that rate",
        "",
        f"By `python tests/bench/load.py --requests {study.requests} --paced`. The rate was measured",
        "just before; the plain model gets the times of the explained one. Even times: of several rounds, in",
        "which the rows take turns, the middle one by p99 / p50. A loop in C: the same instructions for each",
        "request, about as long as an explanation alone, at its own rate: what the machine does by itself;",
        "over HTTP in a server of nothing else.",
        "Requests that come by chance (Poisson) wait for each other, whatever answers them: where each takes",
        f"the same time, p99 / p50 is by cores {bounds(UTILIZATION)}.",
        "",
        *study.open(),
        END_PACED,
    ]


def page(study: Study, longest: int) -> str:
    closed, found = study.closed()
    paced, batched = at_a_pace(study), study.batches()
    kept = study.memory(found, longest)
    versions = f"ONNX Runtime {onnxruntime.__version__}, Python {platform.python_version()}"
    verdict = f"{study.wrong} failed or weren't the serial run's, bit by bit"
    lines = [
        f"Written by `python tests/bench/load.py --requests {study.requests} --clients {study.clients}`",
        f"({versions}, {cores()} cores, which the clients share). {study.answers} answers: {verdict}.",
        "",
        f"### {study.clients} clients that ask again at once",
        "",
        *closed,
        "",
        *paced,
        "",
        "### Several samples in a request",
        "",
        *batched,
        "",
        "### Memory",
        "",
        f"What is resident, and the slope of the least squares' line through it behind the first {WARM:.0%}.",
        "",
        *kept,
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--longest", type=int, help="requests of the runs for memory; by default twice as many"
    )
    parser.add_argument("--paced", action="store_true", help="measure requests at a pace alone")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seconds", type=float, default=np.inf)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), asked.requests, asked.clients, asked.keep, asked.seconds)
        if asked.paced:
            begin, end, text = PACED, END_PACED, "\n".join(at_a_pace(study))
        else:
            begin, end = BEGIN, END
            text = "\n".join([BEGIN, page(study, asked.longest or 2 * asked.requests), END])
    print(text)
    if asked.write:
        before, rest = asked.write.read_text(encoding="utf-8").split(begin)
        asked.write.write_text(f"{before}{text}{rest.split(end)[1]}", encoding="utf-8")
    print(f"{study.wrong} of {study.answers} answers wrong, {study.late} rows late at even times")
    sys.exit(study.wrong + study.late > 0)


if __name__ == "__main__":
    main()
