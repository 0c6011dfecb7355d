"""Commands in processes of their own, with limits; and the file of rows that a long run goes on from."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "Rows", "answered", "limited", "measured"]

PEERS = ("shap", "captum")
BENCH = Path(__file__).parents[1]
Row = dict[str, Any]


def limited(
    arguments: Sequence[str], seconds: float, memory: int, python: str = sys.executable
) -> tuple[int | str, str, str]:
    """Exit code ("timeout" past `seconds`), output and errors of python with `arguments`, on one thread.

    `memory`: bytes of data that it may have; addresses that nothing is written to don't count.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(_paths())}
    try:
        done = subprocess.run(
            [python, *arguments],
            capture_output=True, text=True, timeout=seconds, env=environment, preexec_fn=limit,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "timeout", "", ""
    return done.returncode, done.stdout, done.stderr


def _paths() -> list[str]:
    """Where the benchmark's modules are, and irshap where this process has it from."""
    return [str(BENCH), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]


def measured(file: Path, inputs: Path, seconds: float, memory: int) -> Row:
    """The row of a file."""
    return answered(["-m", "zoo_models.measure", str(file), str(inputs)], seconds, memory)


def answered(arguments: Sequence[str], seconds: float, memory: int) -> Row:
    """The row that a module prints; a process that dies or is ended is a row, too."""
    start = time.perf_counter()
    code, output, errors = limited(arguments, seconds, memory)
    took = {"took_seconds": round(time.perf_counter() - start, 1)}
    if code == 0:
        return json.loads(output.strip().splitlines()[-1]) | took
    if code == "timeout":
        return {"result": "crashed", "kind": "timeout", "message": f"over {seconds:.0f} s"} | took
    last = (errors.strip().splitlines() or [""])[-1][:300]
    memory_gone = "MemoryError" in errors or "bad_alloc" in errors or "Cannot allocate" in errors
    kind = "memory" if memory_gone else f"exit code {code}"
    return {"result": "crashed", "kind": kind, "message": last} | took


class Rows:
    """One JSON object a line, appended as it is found; the last one of a case counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, Row] = {}
        if file.exists():
            for line in file.read_text().splitlines():
                row = json.loads(line)
                self.found[row["case"]] = row

    def add(self, row: Row) -> None:
        self.found[row["case"]] = row
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(told(row), flush=True)


def told(row: Row) -> str:
    """A row in a line, for whoever watches."""
    if "by_inference" in row:
        text = f"{row['error']:.1e}  {row['by_inference']:.1f} x inference"
    elif "error" in row:
        text = f"{row['error']:.1e}"
    else:
        text = f"{row.get('kind', '')} {row.get('message', '')}".strip()[:150]
    return f"{row['case']:60} {row['result']:9} {text}"
