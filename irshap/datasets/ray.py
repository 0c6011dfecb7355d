"""The Ray engine: shards of a job, on the machines of a cluster that share a folder (docs/scale.md)."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from irshap.datasets.base import digest_of, sampled_digest
from irshap.datasets.job import Job, Record, Shard, Worker
from irshap.datasets.manifest import NAME
from irshap.datasets.prepare import Options, model_digest, versions
from irshap.errors import UserError
from irshap.extras import optional

__all__ = ["RayEngine"]

AHEAD = 2
"""Calls that an actor has at a time, so that it needn't wait until the driver has noted a shard."""

TRIES = 3
"""How many actors may end over one shard, or while they start, until that is an error."""

PATIENCE = 600.0
"""Seconds without room for any actor until that is an error: machines that autoscalers order take minutes."""

GPU = ("CUDA", "MIGraphX", "NvTensorRTRTX", "ROCM", "Tensorrt")
"""How the names of providers begin for which an actor gets a GPU of its own."""

ALIKE = "all machines need the same files at the same paths, and the same versions"


class RayEngine:
    """Actors with a session each read, explain and write shards; only records come back.

    Raises:
        UserError: Ray is missing.
    """

    def __init__(self, asked: Options) -> None:
        self._ray = optional("ray", "ray", "ray", "this engine", "the engine ray")
        self._workers, self._address = asked.workers, asked.address

    def __call__(self, job: Job, finished: Mapping[int, Record]) -> Iterator[list[Record]]:
        """Runs what isn't finished.

        Raises:
            UserError: as a `Worker`; there is no cluster; its machines see other files than this one, or
                have other versions.
        """
        if job.source.once or job.shards is None:
            mend = "write its rows to files first"
            raise UserError("an iterator can't go to other machines", where=job.source.where, mend=mend)
        with self._connected():
            crew = _Crew(self._ray, job, self._workers, [i for i in range(job.shards) if i not in finished])
            try:
                yield from ([record] for record in crew.records())
            finally:
                crew.dismiss()

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """A process that is connected to a cluster stays so."""
        if self._ray.is_initialized():
            yield
            return
        try:
            host, colon, port = (self._address or "").removeprefix("ray://").rpartition(":")
            if colon:  # Ray itself would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            self._ray.init(self._address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            what = f"no cluster can be reached: {str(error).splitlines()[0]}"
            raise UserError(what, where=self._address or "Ray", mend="start one with ray start") from error
        try:
            yield
        finally:
            self._ray.shutdown()


def _seen(job: Job) -> dict[str, Any]:
    """What all machines must see alike, or explanations would be plausible nonsense."""
    manifest = job.sink.folder / NAME
    return {
        **{f"version of {name}": told for name, told in versions(job.sink.kind).items()},
        "folder of results": sampled_digest(manifest) if manifest.exists() else None,
        "model": model_digest(job.model),
        "first row of data": digest_of(job.source.first(1)),
    }


class _Actor:
    """Holds a session, in a process that Ray starts on any machine."""

    def start(self, job: Job, there: Mapping[str, Any]) -> None:
        """Makes the session.

        Args:
            there: what the driver sees.

        Raises:
            UserError: this machine sees something else, or lacks something.
        """
        import ray

        try:
            for name, here in _seen(job).items():
                if here != there.get(name):
                    what = f"another {name} than on the driver's machine"
                    raise UserError(f"{what} ({here!s:.20}, not {there.get(name)!s:.20})")
            self.worker = Worker(job)
            wanted = json.loads((job.sink.folder / NAME).read_bytes())["run"]["options"]["providers"]
            if wanted != (found := list(self.worker.explainer.providers)):
                raise UserError(f"runs on {found}, not on {wanted}")
        except UserError as error:
            where = f"node {ray.util.get_node_ip_address()}"
            raise UserError(f"{error}", where=where, mend=ALIKE) from None

    def explain(self, shard: Shard) -> Record:
        """Explains a shard and writes it."""
        return self.worker(shard)


def _raised(error: Exception, index: int | None) -> Exception:
    """What an actor raised, without how it came here."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, UserError):
        return cause
    if index is None:  # what it was given can't be unpickled there
        return UserError(f"an actor can't start: {str(error).splitlines()[-1]}", where="Ray", mend=ALIKE)
    return error


class _Crew:
    """The actors of a job, and who does what.

    Ray restarts nothing here: a call that is retried waits for its own actor, which has no place while others
    hold the machines that are left.  Instead the others take over, and a new actor is asked for.  One that
    has nothing left to do is let go: what is lost later needs its place, and it may itself be on a machine
    that is gone, which shows only when it is called.

    Args:
        workers: how many actors; None: as many as the cluster has room for, now or later.
        todo: shards.
    """

    def __init__(self, ray: Any, job: Job, workers: int | None, todo: list[int]) -> None:
        self.ray, self.job, self.workers = ray, job, workers
        names = [p if isinstance(p, str) else p[0] for p in job.providers or ()]
        self.needs = {"CPU": job.plan.threads, "GPU": int(any(name.startswith(GPU) for name in names))}
        self.kind = ray.remote(_Actor).options(num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"])
        self.given = ray.put(job), _seen(job)
        # what each actor will get: neighbours, which tables are read best in; None: what no actor has yet
        self.runs: dict[Any, deque[int]] = {None: deque(todo)}
        self.calls: dict[Any, tuple[Any, int | None]] = {}  # the actor and its shard; None: it starts
        self.ended: Counter[int | None] = Counter()
        self.failed: Exception | None = None

    def records(self) -> Iterator[Record]:
        """Records as they come; after an error those of shards that are under way."""
        errors, last = self.ray.exceptions, time.monotonic()
        while self._busy() or (self.failed is None and any(self.runs.values())):
            self._hire()
            done, _ = self.ray.wait(list(self.calls), timeout=5)
            if done or self._busy():
                last = time.monotonic()
            elif time.monotonic() - last > PATIENCE:
                what = f"no room for an actor of {self.needs} for {PATIENCE:.0f} s"
                raise UserError(what, where="Ray", mend="add machines to the cluster, or ask for less")
            for ref in done:
                (actor, index), record = self.calls[ref], None
                try:
                    record = self.ray.get(ref)
                except errors.RayTaskError as error:  # what the actor raised, and would raise again
                    self.failed = self.failed or _raised(error, index)
                except errors.RayError as error:
                    self._lost(actor, error)
                    continue
                del self.calls[ref]
                self._give(actor)
                if record is not None:
                    yield record
        if self.failed is not None:
            raise self.failed

    def dismiss(self) -> None:
        """Ends all actors."""
        for actor in filter(None, self.runs):
            self.ray.kill(actor)

    def _busy(self) -> int:
        """How many shards are under way."""
        return sum(index is not None for _, index in self.calls.values())

    def _hire(self) -> None:
        """Asks for the actors that are missing: at first, when one has ended, when a machine has come."""
        if self.failed is not None:
            return
        wanted = self.workers
        if wanted is None:
            there = self.ray.cluster_resources()
            wanted = max(1, min(int(there.get(name, 0) // n) for name, n in self.needs.items() if n))
        actors, starting = len(self.runs) - 1, len(self.calls) - self._busy()
        for _ in range(min(wanted - actors, sum(map(len, self.runs.values())) - starting)):
            actor = self.kind.remote()
            self.runs[actor] = deque()
            self.calls[actor.start.remote(*self.given)] = actor, None

    def _give(self, actor: Any) -> None:
        """The next shards of its run, or of half of the longest one; the actor's end where there are none."""
        if self.failed is not None:
            return
        self.ended[None] = 0  # actors do start
        run, has = self.runs[actor], sum(other == actor for other, _ in self.calls.values())
        while has < AHEAD:
            if not run and (longest := max(self.runs.values(), key=len)):
                half = [longest.pop() for _ in range(-(-len(longest) // 2))]
                run.extend(reversed(half))
            if not run:
                break
            index = run.popleft()
            self.calls[actor.explain.remote(self.job.shard(index))] = actor, index
            has += 1
        if not has:
            self.ray.kill(actor)
            del self.runs[actor]

    def _lost(self, actor: Any, error: Exception) -> None:
        """Its process or machine has ended: others take what it had."""
        self.ray.kill(actor)
        had = [(ref, index) for ref, (other, index) in self.calls.items() if other == actor]
        for ref, _ in had:
            del self.calls[ref]
        self.runs[None].extend(index for _, index in had if index is not None)
        self.runs[None].extend(self.runs.pop(actor))
        first = had[0][1]  # what it was at; the next one only waited
        self.ended[first] += 1
        if self.ended[first] >= TRIES and self.failed is None:
            what = f"{TRIES} actors ended " + ("as they started" if first is None else f"over shard {first}")
            mend = "see whether they had enough memory, and that irshap is installed on all machines"
            self.failed = UserError(f"{what}: {' '.join(str(error).split())}", where="Ray", mend=mend)
