"""Who does what in the Ray engine, whatever ends and when it shows: on a Ray of this file, in one process.

`test_ray.py` has a real one, whose moments nobody chooses.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from explaining import model, table

import irshap.datasets.ray as engine
from irshap.datasets.job import Job, Record, Shard
from irshap.datasets.prepare import Options, prepared
from irshap.errors import UserError


class RayError(Exception):
    """A call whose actor or machine has ended."""


class RayTaskError(RayError):
    """A call that raised."""


@dataclass(eq=False)
class Machine:
    """So many actors fit in; it ends before its call number `life`."""

    places: int
    life: float = float("inf")
    actors: list[Actor] = field(default_factory=list)


class Actor:
    """Holds calls until the machine that it has got runs them."""

    def __init__(self, made: Any) -> None:
        self.made, self.machine, self.calls = made, None, deque[tuple[Any, Callable[[], Any]]]()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: self.call(lambda: getattr(self.made, name)(*given)))

    def call(self, run: Callable[[], Any]) -> object:
        self.calls.append((object(), run))
        return self.calls[-1][0]


class FakeRay:
    """What the engine takes of Ray.

    Args:
        machines: those of the cluster.
        rng: which call is the next to end.
        late: an end shows only when there is nothing else to tell, and by then counts as a resource.
    """

    def __init__(self, machines: list[Machine], rng: np.random.Generator, *, late: bool) -> None:
        self.machines, self.rng, self.late = machines, rng, late
        self.actors: list[Actor] = []
        self.answers: dict[Any, Any] = {}
        self.started = 0
        self.exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def is_initialized(self) -> bool:
        return True

    def put(self, given: Any) -> Any:
        return given

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(sum(m.places for m in self.machines))}

    def remote(self, kind: Any) -> Any:
        def made() -> Actor:
            self.actors.append(Actor(kind()))
            self.started += 1
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=made))

    def kill(self, actor: Actor) -> None:
        self.actors.remove(actor)
        for machine in self.machines:
            if actor in machine.actors:
                machine.actors.remove(actor)

    def wait(self, refs: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        for actor in self.actors:
            free = [m for m in self.machines if m.life > 0 and len(m.actors) < m.places]
            if actor.machine is None and free:
                actor.machine = free[0]
                free[0].actors.append(actor)
        ready = [actor for actor in self.actors if actor.machine and actor.calls]
        alive = [actor for actor in ready if actor.machine.life > 0]
        ready = alive if alive and self.late else ready
        assert ready, "it waits for what will never come"
        actor = ready[self.rng.integers(len(ready))]
        ref, run = actor.calls.popleft()
        actor.machine.life -= 1
        self.answers[ref] = run() if actor.machine.life >= 0 else RayError("its node has died")
        return [ref], []

    def get(self, ref: Any) -> Any:
        if isinstance(answer := self.answers.pop(ref), Exception):
            raise answer
        return answer


class Told:
    """An actor that explains nothing."""

    def start(self, job: Job, there: Any) -> None:
        return

    def explain(self, shard: Shard) -> Record:
        return {"shard": shard.index}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Of 32 shards."""
    options = Options(batch=8, shard_rows=32, format="npy")
    return prepared(model(), table(), tmp_path_factory.mktemp("crew"), options, here=False).job


def run(monkeypatch: pytest.MonkeyPatch, ray: FakeRay, job: Job, workers: int | None = None) -> None:
    """Runs the job, each shard of which is told of once."""
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(engine, "_Actor", Told)
    try:
        found = engine.RayEngine(Options(workers=workers))(job, {})
        told = [record["shard"] for records in found for record in records]
    finally:
        assert not ray.actors
    assert sorted(told) == list(range(32))


@pytest.mark.parametrize("late", [True, False])
def test_a_machine_that_ends(monkeypatch: pytest.MonkeyPatch, job: Job, late: bool) -> None:
    """Its shards are explained on the others, also where these had nothing left to do when it showed."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        places = int(rng.integers(1, 5))
        ray = FakeRay([Machine(places), Machine(places, life=int(rng.integers(1, 9)))], rng, late=late)
        run(monkeypatch, ray, job)
        assert ray.machines[1].life < 0


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_no_more_actors_than_are_asked_for(monkeypatch: pytest.MonkeyPatch, job: Job, workers: int) -> None:
    ray = FakeRay([Machine(8)], np.random.default_rng(0), late=False)
    run(monkeypatch, ray, job, workers)
    assert ray.started == workers


def test_machines_that_end_one_after_the_other(monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    """Three that end over the same shard are one error."""
    # each has started, and ends at the first shard that it gets
    machines = [Machine(1, life=1), Machine(1, life=1), Machine(1, life=1), Machine(1)]
    ray = FakeRay(machines, np.random.default_rng(0), late=True)
    with pytest.raises(UserError, match=r"3 actors ended over shard \d+: its node has died"):
        run(monkeypatch, ray, job, 1)
