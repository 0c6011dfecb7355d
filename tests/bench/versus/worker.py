"""One fresh process for one system: loads it, runs it cold, then runs it whenever it is told to.

    python -m versus.worker '{"make": "module:class", "files": {...}}'

Talks JSON, one object a line.  It starts with what loading and the first run took; on {"run": SECONDS} it
runs until so much time has gone by, at least once, and answers with each run's seconds and the peak so far.
Memory is resident memory in bytes: of the process, and `before` is what it had before it loaded anything.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from cost_truth import reset_peak, status

MOST = 20
"""Runs in one answer."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Files:
    """What a system may read; `values` is where attributions go."""

    onnx: str
    torch: str
    sample: str
    references: str
    count: int
    compiled: str = ""
    values: str = ""

    def arrays(self) -> tuple[Array, Array]:
        """The sample [1, ...] and the references [R, ...], float32."""
        return np.load(self.sample), np.load(self.references)[: self.count]


@dataclass(frozen=True)
class Answer:
    """Attributions [1, ...], the explained number, and its mean over the references."""

    values: Array
    explained: float
    base: float

    @property
    def completeness(self) -> float:
        """|f - base - sum| relative to |f - base|, or to 1e-3 |f| where that is larger."""
        gap = self.explained - self.base
        missing = gap - float(self.values.sum(dtype=np.float64))
        return abs(missing) / max(abs(gap), 1e-3 * abs(self.explained))


class Subject:
    """A system in its process.  `load` is followed by `prepare`, then by runs."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.x, self.references = files.arrays()

    def load(self) -> None:
        """Loads the model."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Does what is done once for a set of references."""

    def run(self) -> Any:
        """What is timed: the prediction and its attributions from the sample."""
        raise NotImplementedError

    def answer(self, result: Any) -> Answer | None:
        """What a run gave, if it explains."""
        return None

    def versions(self) -> dict[str, str]:
        """Of the packages that matter."""
        raise NotImplementedError


def timed(step: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = step()
    return time.perf_counter() - start, result


def start(subject: Subject) -> dict[str, Any]:
    """Loads and runs it once."""
    reset_peak()
    found: dict[str, Any] = {"before": status("VmRSS")}
    load, _ = timed(subject.load)
    found["loaded"] = status("VmRSS")
    prepare, _ = timed(subject.prepare)
    first, result = timed(subject.run)
    found |= {"load_seconds": load + prepare, "first_seconds": first, "peak": status("VmHWM")}
    answer = subject.answer(result)
    if answer is not None:
        np.save(subject.files.values, answer.values)
        found |= {
            "completeness": answer.completeness,
            "explained": answer.explained,
            "base": answer.base,
        }
    # what checking the answer took is no part of the system's memory
    reset_peak()
    return {**found, "versions": subject.versions()}


def runs(subject: Subject, least: float) -> list[float]:
    """Seconds of each run."""
    found: list[float] = []
    while not found or (sum(found) < least and len(found) < MOST):
        found.append(timed(subject.run)[0])
    return found


def main() -> None:
    # What libraries print must not get between the answers.
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        spec = json.loads(sys.argv[1])
        module, name = spec["make"].split(":")
        subject = getattr(import_module(module), name)(Files(**spec["files"]))
        print(json.dumps(start(subject)), file=out, flush=True)
        for line in sys.stdin:
            seconds = runs(subject, json.loads(line)["run"])
            print(json.dumps({"seconds": seconds, "peak": status("VmHWM")}), file=out, flush=True)


if __name__ == "__main__":
    main()
