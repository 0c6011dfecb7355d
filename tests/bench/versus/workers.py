"""Worker processes: started, told to run, watched, and ended."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from cost_truth import available

from versus.systems import System

__all__ = ["Failed", "Worker", "child", "complaint"]

BENCH = Path(__file__).parents[1]
LEAST_FREE = 1 << 30
"""Bytes that the machine keeps free: a worker that would take them is ended, and that is its result."""

LONGEST = 1800.0


_ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Exit)\b.*", re.MULTILINE)


def complaint(log: str) -> str:
    """What a process said last before it ended."""
    lines = _ERROR.findall(log) or log.strip().splitlines()
    return f": {lines[-1][:200]}" if lines else ""


class Failed(Exception):
    """A worker that ended, or was ended, before it answered; says why."""


def child(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """A process that finds the benchmark's modules."""
    paths = [str(BENCH), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, **options)


class Worker:
    """A system in a process of its own; `first` is what it said of loading and its first run.

    Raises:
        Failed: it ended before it had run once.
    """

    def __init__(self, python: str, system: System, files: dict[str, Any], log: Path) -> None:
        self.system = system
        self.log = log.open("w+")
        spec = json.dumps({"make": system.make, "files": files})
        command = [python, "-m", "versus.worker", spec]
        self.process = child(command, stdin=subprocess.PIPE, stderr=self.log)
        try:
            self.first = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, least: float) -> dict[str, Any]:
        """Runs for at least so many seconds; each run's `seconds`, and the `peak` since the first run."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"run": least}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("ended between its runs") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        end = time.monotonic() + LONGEST
        while not select.select([self.process.stdout], [], [], 0.1)[0]:
            if available() < LEAST_FREE:
                self.process.kill()
                raise Failed("needs more memory than the machine has")
            if time.monotonic() > end:
                self.process.kill()
                raise Failed(f"took longer than {LONGEST:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise self._failure("ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failure(self, what: str) -> Failed:
        code = self.process.wait()
        self.log.seek(0)
        return Failed(f"{what} with exit code {code}{complaint(self.log.read())}")

    def close(self) -> None:
        """Ends it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
