"""Measures systems side by side: compiled beforehand, grouped by memory, then round after round in turn."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from versus.record import Entry, Record
from versus.systems import BATCH, ONE, YARDSTICK, System
from versus.workers import Failed, Worker, child, complaint

__all__ = ["GIB", "Bench", "Plan", "cells", "say"]

GIB = 1 << 30
FIRST_GUESS = 2 * GIB
"""What a process is taken to need with one reference, as long as nothing is known of it."""

APART = 1e-3
"""Attributions farther from irshap's, by the sum of distances over that of sizes, are another algorithm's.
In float32 it is 3e-4 at most.  The largest distance is no measure: one pooling position that rounding turns
over makes it 3e-2 (VGG19)."""


@dataclass(frozen=True)
class Plan:
    """How long, and with what.

    Attributes:
        nets, work: folders of the exported models, and of what is made while measuring.
        pythons: the Python of each runtime.
        rounds: how many; a system that has run for `enough` seconds gets no more than `least` of them.
        slice: seconds that a fast system repeats its run for in each round.
        memory: bytes that all workers may have together.
    """

    nets: Path
    work: Path
    pythons: dict[str, str]
    rounds: int = 5
    least: int = 3
    enough: float = 150.0
    slice: float = 1.0
    memory: int = 18 * GIB


class Bench:
    """Fills a record, cell by cell."""

    def __init__(self, plan: Plan, record: Record) -> None:
        self.plan, self.record = plan, record

    def prepare(self, network: str) -> None:
        """Makes the network and the images once."""
        if not (self.plan.work / f"{network}.pt").exists():
            places = [str(self.plan.work.resolve()), str(self.plan.nets.resolve())]
            self._child("torch", "versus.torch_side", network, *places)

    def truth(self, network: str, count: int) -> None:
        """Evaluates both pipelines in float64, once."""
        cell = self.record.cell(network, count)
        if "float64" not in cell:
            files = self._files(network, count, ONE)
            out = str(self._values(network, count, "float64").resolve())
            arguments = [files["onnx"], files["sample"], files["references"], str(count), out]
            try:
                cell["float64"] = json.loads(self._child("onnx", "versus.agreement", *arguments))
            except Failed as failure:
                say(network, count, "float64", str(failure))
            else:
                self.record.save()
                say(network, count, "float64", f"{cell['float64']['apart']:.1e} apart")

    def cell(self, network: str, count: int, systems: Sequence[System]) -> None:
        """Measures what the record lacks of these systems, and saves it as it comes.

        Should inference itself fail, so that there is no yardstick, then that is said, and the cell left out.
        """
        try:
            self._cell(network, count, systems)
        except Failed as failure:
            say(network, count, f"left out: inference failed: {failure}")

    def _cell(self, network: str, count: int, systems: Sequence[System]) -> None:
        cell = self.record.cell(network, count)
        missing = [s for s in systems if s not in YARDSTICK and s.name not in cell["systems"]]
        if not missing and all(s.name in cell["systems"] for s in YARDSTICK):
            return
        made: list[Path] = []
        try:
            for system in missing:
                if system.passes is not None:
                    made.append(self._path(system))
                    self._compile(network, count, system)
            runnable = [s for s in missing if s.name not in cell["systems"]]
            for group in self._groups(network, count, runnable) or [[]]:
                self._group(network, count, group)
        finally:
            for path in made:
                for file in (path, *path.parent.glob(f"{path.name}*.data")):
                    file.unlink(missing_ok=True)

    def _compile(self, network: str, count: int, system: System) -> None:
        cell = self.record.cell(network, count)
        files = self._files(network, count, system)
        assert system.passes is not None
        arguments = [files["onnx"], files["references"], str(count), system.passes, files["compiled"]]
        try:
            found = json.loads(self._child("onnx", "versus.compiling", *arguments))
        except Failed as failure:
            cell["systems"][system.name] = {"failed": f"not compiled: {failure}"}
            say(network, count, system.name, f"not compiled: {failure}")
        else:
            cell["compiled"][system.name] = found
            say(network, count, system.name, f"compiled in {found['seconds']:.1f} s")
        self.record.save()

    def _groups(self, network: str, count: int, systems: Sequence[System]) -> list[list[System]]:
        """Systems that fit into memory together with the yardstick: first fit."""
        groups: list[tuple[int, list[System]]] = []
        base = sum(self._need(network, count, s) for s in YARDSTICK)
        for system in systems:
            need = self._need(network, count, system)
            for at, (used, members) in enumerate(groups):
                if used + need <= self.plan.memory:
                    members.append(system)
                    groups[at] = (used + need, members)
                    break
            else:
                groups.append((base + need, [system]))
        return [members for _, members in groups]

    def _need(self, network: str, count: int, system: System) -> int:
        known = self.record.expected_peak(network, count, system.name)
        if known is not None:
            return known
        return FIRST_GUESS if system in YARDSTICK or count == 1 else self.plan.memory

    def _group(self, network: str, count: int, systems: Sequence[System]) -> None:
        entries = self.record.cell(network, count)["systems"]
        with ExitStack() as stack:
            started = [self._start(network, count, s, stack) for s in (*YARDSTICK, *systems)]
            workers = [worker for worker in started if worker is not None]
            for number in range(self.plan.rounds):
                alive = [w for w in workers if w.system in YARDSTICK or self._wants(entries[w.system.name])]
                if len(alive) == len(YARDSTICK) and systems:
                    break
                self._round(alive if number % 2 == 0 else alive[::-1], entries)
        self.record.save()
        for system in systems:
            if (relative := self.record.relative(network, count, system.name)) is not None:
                say(network, count, system.name, f"{relative:.2f} x the inference of 1 and {count}")

    def _start(self, network: str, count: int, system: System, stack: ExitStack) -> Worker | None:
        """A worker that has run once, which is recorded; None where that is all, or it failed."""
        entries = self.record.cell(network, count)["systems"]
        log = self.plan.work / f"{system.name}.log"
        try:
            python = self.plan.pythons[system.runtime]
            worker = Worker(python, system, self._files(network, count, system), log)
            with ExitStack() as own:
                own.enter_context(worker)
                self.record.data["about"].setdefault("versions", {})[system.runtime] = worker.first[
                    "versions"
                ]
                first = {"runtime": system.runtime, **worker.first, "rounds": []}
                first |= self._distances(network, count, system)
                if system.timed:
                    stack.push(own.pop_all())
        except Failed as failure:
            if system in YARDSTICK:
                raise
            entries[system.name] = {"failed": str(failure)}
            say(network, count, system.name, str(failure))
            return None
        # a yardstick that stands in several groups keeps its first cold start
        entries.setdefault(system.name, first)
        say(network, count, system.name, f"first run {first['first_seconds']:.2f} s")
        return worker if system.timed else None

    def _wants(self, entry: Entry) -> bool:
        if "failed" in entry:
            return False
        spent = entry["first_seconds"] + sum(r["seconds"] for r in entry["rounds"])
        return len(entry["rounds"]) < self.plan.least or spent < self.plan.enough

    def _round(self, workers: Sequence[Worker], entries: dict[str, Entry]) -> None:
        found: dict[str, float] = {}
        for worker in workers:
            name = worker.system.name
            try:
                answer = worker.run(self.plan.slice)
            except Failed as failure:
                if worker.system in YARDSTICK:
                    raise
                entries[name] = {"failed": str(failure)}
                continue
            found[name] = median(answer["seconds"])
            entries[name]["peak"] = max(entries[name]["peak"], answer["peak"])
        unit = found[ONE.name] + found[BATCH.name]
        for name, seconds in found.items():
            entries[name]["rounds"].append({"seconds": seconds, "unit": unit})

    def _distances(self, network: str, count: int, system: System) -> Entry:
        """How far its attributions are from those of the compiled files, relative to the largest of these.

        Raises:
            Failed: an exact system's are not the same.
        """
        own = self._values(network, count, system.name)
        if not system.explains or not own.exists():
            return {}
        values = np.load(own).astype(np.float64)
        found: dict[str, float] = {}
        apart: dict[str, float] = {}
        known = self.record.cell(network, count)
        for name in ("naive", "default", "float64"):
            path = self._values(network, count, name)
            if name != system.name and (name in known["systems"] or name in known) and path.exists():
                truth = np.load(path).astype(np.float64)
                distance = np.abs(values - truth)
                found[name] = float(distance.max() / np.abs(truth).max())
                apart[name] = float(distance.sum() / np.abs(truth).sum())
        if system.exact and any(d > APART for d in apart.values()):
            listed = ", ".join(f"{d:.1e} from {name}'s" for name, d in apart.items())
            raise Failed(f"not timed: its attributions are {listed}")
        return {"distances": found}

    def _values(self, network: str, count: int, name: str) -> Path:
        folder = self.plan.work / f"{self.record.part}-values"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{network}-{count}-{name}.npy"

    def _path(self, system: System) -> Path:
        return self.plan.work / f"{system.name}.onnx"

    def _files(self, network: str, count: int, system: System) -> dict[str, Any]:
        paths = {
            "onnx": self.plan.nets / f"{network}_torchscript.onnx",
            "torch": self.plan.work / f"{network}.pt",
            "sample": self.plan.work / "sample.npy",
            "references": self.plan.work / "references.npy",
            "compiled": self._path(system),
            "values": self._values(network, count, system.name),
        }
        return {**{name: str(path.resolve()) for name, path in paths.items()}, "count": count}

    def _child(self, runtime: str, module: str, *arguments: str) -> str:
        with (self.plan.work / "child.log").open("w+") as log:
            process = child([self.plan.pythons[runtime], "-m", module, *arguments], stderr=log)
            out, _ = process.communicate()
            log.seek(0)
            said = complaint(log.read())
        if process.returncode:
            raise Failed(f"exit code {process.returncode}{said}")
        return out


def say(*what: object) -> None:
    """A line of progress."""
    print(*what, sep="  ", file=sys.stderr, flush=True)


def cells(names: Sequence[str], counts: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Fewest references first: they tell what more will take."""
    for count in sorted(counts):
        for name in names:
            yield name, count
