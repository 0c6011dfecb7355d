"""Clients that ask for explanations all at once, in their ways, and what came (load.py)."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
import os
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
import psutil
from test_serving import free_port, served
from waiting_lines import LOOP, session_of

import irshap
from irshap import demo
from irshap.datasets.plan import cores
from irshap.runtime.arrays import Array, Arrays
from irshap.serving.docker import write_docker
from irshap.serving.ports import Explained

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
        if model.suffix == LOOP:
            (folder / "app.py").write_text(NO_APP.replace("ROUNDS", model.read_text()))
        else:  # what `package` does, which takes no plain model
            shutil.copyfile(model, folder / write_docker(Explained(model, (), (), ()), "served", folder))
        command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port)]
        command += ["--workers", str(processes), "--log-level", "error"]
        with served(command, folder, f"http://127.0.0.1:{port}/v2/health/ready") as process:
            wanted = []
            for k, right in enumerate(serial(model, requests)):
                text = ask(k)
                same = model.suffix == LOOP or digest(_arrays(text)) == right
                assert same, f"over HTTP another answer to request {k}"
                wanted.append(digest(text))
            yield Asked(ask, wanted, process.pid)


NO_APP = """
import asyncio, os
from concurrent.futures import ThreadPoolExecutor
from hashlib import pbkdf2_hmac

pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))


async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["method"] == "POST":
            while (await receive()).get("more_body"):
                pass
            job = asyncio.get_running_loop().run_in_executor
            await job(pool, pbkdf2_hmac, "sha256", b"", b"", ROUNDS)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
"""
"""A server of nothing but a loop in C behind a worker a core: what uvicorn and the machine do."""


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
    def tail(self) -> float:
        """p99 / p50."""
        return self.quantiles[2] / self.quantiles[0]

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
