"""Writes the tables of docs/serving.md: explanations and plain inference asked for by many clients at once.

    python tests/bench/load.py [--requests 10000] [--clients 32] [--write docs/serving.md] [--keep FILE]

Each row is measured in a process of its own, in which 32 threads ask: one session that all call at once, a
worker a core behind a queue, an `Explainer`, or over HTTP the app that `irshap package --kind docker` writes.
A closed loop asks again when it is answered; an open one at 70 % of what a closed one reached just before,
at times fixed beforehand from which the wait counts, so that a late answer delays no question.  Each answer's
digest is compared with that of a serial run on one thread.  Explanations of the digits with 100 references
get all requests through the first and second way and over HTTP, other rows a part of them.  Exits with 1
where an answer fails or differs, or where at even times p99 of explanations is over 3 x p50.

With --keep a run that ends after --seconds, or is stopped, goes on with the rows that are missing.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import itertools
import json
import multiprocessing
import os
import pickle
import platform
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
from dataset_speed import network
from op_profile import session_of
from test_serving import free_port, served
from waiting_lines import bounds, poisson, waiting_line

import irshap
from irshap import demo
from irshap.datasets.plan import cores
from irshap.runtime.arrays import Array, Arrays
from irshap.serving.docker import write_docker
from irshap.serving.ports import Explained

BEGIN, END = "<!-- load -->", "<!-- end of the load -->"
UTILIZATION = 0.7
LATE = 3
"""How many times p50 p99 may be."""

MOMENTS = 50
"""How often a run's memory is looked at."""

WARM = 0.3
"""The part of a run behind which its memory should no longer grow."""


# ---- ways to ask ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What answers.

    Attributes:
        ask: sends the request of a number; gives outputs, or over HTTP the answer's text.
        wanted: the digest of each request's right answer.
        process: whose memory counts, with its children's.
    """

    ask: Callable[[int], Sequence[Array] | bytes]
    wanted: list[bytes]
    process: int


def digest(answer: Sequence[Array] | bytes) -> bytes:
    whole = hashlib.blake2b(digest_size=16)
    for part in [answer] if isinstance(answer, bytes) else answer:
        if not isinstance(part, bytes):
            whole.update(f"{part.dtype} {part.shape}".encode())
        whole.update(part)
    return whole.digest()


def serial(model: Path, requests: list[Arrays]) -> list[bytes]:
    """One after the other, on one thread."""
    session = session_of(model, 1)
    return [digest(session.run(None, feed)) for feed in requests]


@contextmanager
def one(model: Path, requests: list[Arrays], *, threads: int = 1) -> Iterator[Asked]:
    """A session of ONNX Runtime that all clients call at once."""
    session = session_of(model, threads)
    yield Asked(lambda k: session.run(None, requests[k]), serial(model, requests), os.getpid())


@contextmanager
def workers(model: Path, requests: list[Arrays], *, count: int = 1) -> Iterator[Asked]:
    """Sessions in a line's front: a worker a core takes the oldest request, and a session that is free."""
    free: queue.SimpleQueue[Any] = queue.SimpleQueue()
    made = [session_of(model, 1) for _ in range(count)]
    for turn in range(cores()):
        free.put(made[turn % count])

    def work(k: int) -> Any:
        session = free.get()
        try:
            return session.run(None, requests[k])
        finally:
            free.put(session)

    with ThreadPoolExecutor(cores()) as pool:
        yield Asked(lambda k: pool.submit(work, k).result(), serial(model, requests), os.getpid())


@contextmanager
def explainer(model: Path, requests: list[Arrays]) -> Iterator[Asked]:
    """One `Explainer`, which checks what it is given."""
    shared = irshap.Explainer(model, threads=1)
    yield Asked(lambda k: [*shared(requests[k]).raw.values()], serial(model, requests), os.getpid())


@contextmanager
def app(model: Path, requests: list[Arrays], *, processes: int = 1) -> Iterator[Asked]:
    """The container's app.  What it answers one client must be the serial run's numbers, bit by bit."""
    port, local = free_port(), threading.local()
    bodies = [json.dumps({"inputs": [_tensor(*i) for i in feed.items()]}).encode() for feed in requests]

    def ask(k: int) -> bytes:
        if not hasattr(local, "line"):
            local.line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        local.line.request("POST", "/v2/models/served/infer", bodies[k], {"Content-Type": "application/json"})
        try:
            answer = local.line.getresponse()
            text: bytes = answer.read()
        except OSError:
            local.line.close()
            raise
        if answer.status != 200:
            raise OSError(f"{answer.status} {text[:200]!r}")
        return text

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "app"
        folder.mkdir()
        # what `package` does, which takes no plain model
        shutil.copyfile(model, folder / write_docker(Explained(model, (), (), ()), "served", folder))
        command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)]
        command += ["--workers", str(processes), "--log-level", "error"]
        with served(command, folder, f"http://127.0.0.1:{port}/v2/health/ready") as process:
            wanted = []
            for k, right in enumerate(serial(model, requests)):
                text = ask(k)
                assert digest(_arrays(text)) == right, f"over HTTP another answer to request {k}"
                wanted.append(digest(text))
            yield Asked(ask, wanted, process.pid)


KINDS = {"FP32": np.float32, "INT64": np.int64}


def _tensor(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "shape": array.shape, "datatype": "FP32", "data": array.ravel().tolist()}


def _arrays(text: bytes) -> list[Array]:
    outputs = json.loads(text)["outputs"]
    return [np.array(o["data"], KINDS[o["datatype"]]).reshape(o["shape"]) for o in outputs]


WAYS: dict[str, Callable[[Path, list[Arrays]], AbstractContextManager[Asked]]] = {
    "one session, ONNX Runtime's threads": partial(one, threads=0),
    "one session, 1 thread": one,
    "one session, 1 thread, a worker a core": workers,
    "a session and a worker a core, 1 thread": partial(workers, count=cores()),
    "one `Explainer`, 1 thread": explainer,
    "HTTP, 1 process": app,
    "HTTP, a process a core": partial(app, processes=cores()),
}
CHOSEN, SHARED, BEST, POOL, CHECKED, ONE, EACH = WAYS


# ---- asking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A row.

    Attributes:
        batch: samples of a request.
        times: when requests come, in seconds after the first; None: a closed loop.
    """

    model: Path
    network: str
    way: str
    requests: int
    clients: int
    batch: int = 1
    times: Array | None = None


@dataclass(frozen=True)
class Outcome:
    """What came.

    Attributes:
        rate: requests a second.
        waits: milliseconds of each.
        errors: of the requests that failed, what was said.
        different: how many answers aren't the serial run's.
        memory: MiB at requests of these numbers: [[number, MiB], ...].
    """

    rate: float
    waits: Array
    errors: list[str]
    different: int
    memory: Array

    @property
    def quantiles(self) -> tuple[float, float, float]:
        p50, p95, p99 = np.quantile(self.waits, (0.5, 0.95, 0.99))
        return float(p50), float(p95), float(p99)

    @property
    def growth(self) -> float:
        """KiB for each 1000 requests after warming up: the slope of the least squares' line."""
        moments = self.memory[self.memory[:, 0] >= WARM * len(self.waits)]
        return float(np.polyfit(moments[:, 0], moments[:, 1], 1)[0]) * 1024 * 1000


def requests_of(case: Case) -> list[Arrays]:
    """Different requests, which come in turn."""
    if case.network == "digits":
        name, rows = "image", demo.digits()[0]
    else:
        name, rows = "x", np.random.default_rng(5).normal(size=(360, 30)).astype(np.float32)
    starts = range(0, len(rows), case.batch)
    return [{name: rows[np.arange(start, start + case.batch) % len(rows)]} for start in starts]


def measure(case: Case) -> Outcome:
    """In this process, whose memory may be what counts."""
    requests = requests_of(case)
    with WAYS[case.way](case.model, requests) as asked:
        return drive(asked, case)


def drive(asked: Asked, case: Case) -> Outcome:
    """All clients, each in its thread."""
    waits, numbers = np.full(case.requests, np.nan), itertools.count()
    errors: list[str] = []
    different: list[int] = []
    memory: list[tuple[int, float]] = []
    server = psutil.Process(asked.process)
    family = [server, *(server.children(recursive=True) if asked.process != os.getpid() else [])]
    begin = 0.0

    def go() -> None:
        nonlocal begin
        begin = time.perf_counter()

    ready = threading.Barrier(case.clients, go)

    def client() -> None:
        for k in range(3):  # what a first call allocates
            asked.ask(k)
        ready.wait()
        start = begin
        while (number := next(numbers)) < case.requests:
            k = number % len(asked.wanted)
            if case.times is not None:
                start = begin + case.times[number]
                while (early := start - time.perf_counter()) > 0:
                    time.sleep(early)
            try:
                answer = asked.ask(k)
                now = time.perf_counter()
                # in a closed loop from the answer before on: what a thread waits to ask again counts, too
                waits[number], start = 1e3 * (now - start), now
                if digest(answer) != asked.wanted[k]:
                    different.append(number)
            except Exception as error:  # whatever it is, it counts as a failed request
                errors.append(str(error))
            if number % max(1, case.requests // MOMENTS) == 0:
                memory.append((number, sum(p.memory_info().rss for p in family) / 2**20))

    threads = [threading.Thread(target=client) for _ in range(case.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begin
    answered = waits[~np.isnan(waits)]
    return Outcome(len(answered) / seconds, answered, errors, len(different), np.array(sorted(memory)))


# ---- the page ---------------------------------------------------------------------------------------------


def told(outcome: Outcome) -> str:
    return f"{outcome.rate:.0f} | " + " | ".join(f"{q:.2f}" for q in outcome.quantiles)


FULL = "digits, 100 references"
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
        lines = ["| asked through | times | model | requests/s | p50 ms | p95 ms | p99 ms | p99 / p50 |"]
        lines.append("|---|---|---|---:|---:|---:|---:|---:|")
        for way in (SHARED, BEST, ONE):
            for name, draw in (("even", np.full), ("Poisson", poisson)):
                # of just now: on a shared machine that of some minutes ago may be far from it
                reached = self.row(FULL, way, self.requests // 6).rate
                gap = 1 / (UTILIZATION * reached)
                times = draw(self.requests // 6, gap).cumsum()
                for model in ("digits, plain", FULL):
                    outcome = self.row(model, way, len(times), times=times)
                    p50, _, p99 = outcome.quantiles
                    self.late += name == "even" and model == FULL and p99 > LATE * p50
                    lines.append(f"| {way} | {name} | {model} | {told(outcome)} | {p99 / p50:.1f} |")
                line = waiting_line(times, cores() / reached, cores())
                a, b, c = 1e3 * np.quantile(line, (0.5, 0.95, 0.99))
                cells = f"{1 / np.diff(times).mean():.0f} | {a:.2f} | {b:.2f} | {c:.2f} | {c / a:.1f}"
                lines.append(f"| {way} | {name} | (a steady server) | {cells} |")
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


def page(study: Study, longest: int) -> str:
    closed, found = study.closed()
    paced, batched = study.open(), study.batches()
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
        f"### Requests at {UTILIZATION:.0%} of that rate",
        "",
        f"The plain model gets the same times. A steady server: {cores()} cores that take the same time for",
        "each request, what such times do by themselves. Requests that come by chance (Poisson) wait for",
        f"each other, whatever answers them: of a steady server p99 / p50 is by cores {bounds(UTILIZATION)}.",
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
    parser.add_argument("--write", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seconds", type=float, default=np.inf)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), asked.requests, asked.clients, asked.keep, asked.seconds)
        text = page(study, asked.longest or 2 * asked.requests)
    print(text)
    if asked.write:
        before, rest = asked.write.read_text(encoding="utf-8").split(BEGIN)
        behind = rest.split(END)[1]
        asked.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{behind}", encoding="utf-8")
    print(f"{study.wrong} of {study.answers} answers wrong, {study.late} rows late at even times")
    sys.exit(study.wrong + study.late > 0)


if __name__ == "__main__":
    main()
