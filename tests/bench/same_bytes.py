"""Proves that a change of the house changes no lowered byte: compiles the same on a commit before and now.

    python tests/bench/same_bytes.py [--before fa9637b] [--networks FOLDER] [--recorded FOLDER]

Compares model files but for irshap's version (and shows where the pipeline's text differs), the IR's text,
and predictions of `irshap cost`. Cases: all fixture models and golden files, the oracle's models of one op,
and random models, each from the tests of the commit before, under the pipelines and options of the command
line. --networks adds the four of the benchmark (networks.py makes them), --recorded all that the tests of the
commit before compile and the graphs that they run passes on. Ends with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from sameness import collect
from sameness.cases import Case, Corpus, add_networks, add_recorded, add_tests
from sameness.compare import VERDICTS, Comparison, compare

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("efficientnet_b0", "resnet50", "densenet201", "vgg19")
SHOWN = 40


def unpack(commit: str, folder: Path) -> Path:
    """The files of a commit, without touching the repository's worktrees."""
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def view(tree: Path, folder: Path) -> Path:
    """A folder to import `tree` from: passes/ and lowering/ stand inside irshap/, as when installed."""
    package = folder / "irshap"
    package.mkdir(parents=True)
    for source in (*(tree / "irshap").iterdir(), tree / "passes", tree / "lowering"):
        if source.name != "__pycache__":
            (package / source.name).symlink_to(source)
    return folder


def environment(view: Path, *others: Path) -> dict[str, str]:
    """One thread, so that sums have one order; and nothing that depends on hashes of strings."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join(map(str, (view, *others)))
    return {**os.environ, **threads, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"}


def record(tree: Path, view: Path, folder: Path) -> None:
    """Runs the tree's tests, to write down what they compile.  How they end isn't asked here."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "sameness.recording", f"--recorded={folder}"]
    # Models of whole seeds are among the cases anyway, and the other two start processes that aren't seen.
    command += [f"--ignore=tests/test_{name}.py" for name in ("fuzz", "packaging", "cost_memory")]
    subprocess.run(command, cwd=tree, env=environment(view, Path(__file__).parent), check=False)


class Side:
    """A tree on which cases are run, and the file of lines that keeps what they gave."""

    def __init__(self, name: str, tree: Path, work: Path, found: Path | None = None) -> None:
        self.name, self.view, self.work = name, view(tree, work / f"{name}.view"), work
        self.found = work / f"{name}.lines" if found is None else found.resolve()

    def run(self, corpus: Corpus, cases: Sequence[Case]) -> None:
        """Runs what isn't known yet, in a process of its own."""
        known = self.results(cases)
        listed = corpus.write(f"{self.name}.json", [c for c in cases if c.name not in known])
        folder = self.work / self.name
        folder.mkdir(exist_ok=True)
        command = [sys.executable, collect.__file__, str(listed), str(self.found), str(folder)]
        subprocess.run(command, check=True, env=environment(self.view), cwd=self.work)

    def results(self, cases: Sequence[Case]) -> dict[str, Any]:
        """By the cases' names, what they gave: the same command on the same files, this time or earlier."""
        wanted = {case.name: list(case.arguments) for case in cases}
        found = {}
        for line in self.found.read_text().splitlines() if self.found.exists() else ():
            with suppress(json.JSONDecodeError):  # the end of a run that was killed
                result = json.loads(line)
                if result["arguments"] == wanted.get(result["name"]):
                    found[result["name"]] = result
        return found


def report(result: Comparison, console: Console) -> None:
    """The table, and below it what differs."""
    grid = Table("cases", *VERDICTS, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in grid.columns[1:]:
        column.justify = "right"
    for group, counts in result.verdicts.items():
        grid.add_row(group, *(str(counts[v] or "-") for v in VERDICTS))
    totals = [sum(counts[v] for counts in result.verdicts.values()) for v in VERDICTS]
    grid.add_row("all", *map(str, totals), style="bold")
    console.print(grid)
    for (old, new), count in result.renamed.items():
        console.print(f"pipeline, {count} cases:\n  - {old}\n  + {new}")
    for heading, found in (("differs", result.differences), ("other words", result.reworded)):
        for name, where in list(found.items())[:SHOWN]:
            console.print(f"{heading}: {name}\n    {where}")
        if len(found) > SHOWN:
            console.print(f"... {len(found) - SHOWN} more: see --out")


def main() -> int:
    """Collect on both sides, compare, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="fa9637b", metavar="COMMIT", help="compared with [%(default)s]")
    parser.add_argument("--before-json", type=Path, metavar="FILE", help="keeps what the commit before gave")
    parser.add_argument("--networks", type=Path, metavar="FOLDER", help="with NAME_torchscript.onnx files")
    parser.add_argument("--names", nargs="+", default=NETWORKS, choices=NETWORKS, help="of networks")
    parser.add_argument("--recorded", type=Path, metavar="FOLDER", help="made by the tests if it isn't there")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their name")
    parser.add_argument("--out", type=Path, default=ROOT / "build/same_bytes.json", metavar="FILE")
    options = parser.parse_args()
    started = time.monotonic()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        work = Path(name)
        tree = unpack(options.before, work / "tree")
        before, after = Side("before", tree, work, options.before_json), Side("after", ROOT, work)
        corpus = Corpus(work / "cases")
        add_tests(corpus, tree)
        if options.recorded is not None:
            if not options.recorded.exists():
                record(tree, before.view, options.recorded)
            add_recorded(corpus, options.recorded)
        if options.networks is not None:
            add_networks(corpus, options.networks, options.names)
        cases = [c for c in corpus.cases.values() if options.only in c.name]
        # Networks fill the memory, so only one is compiled at a time.
        for large in (False, True):
            part = [c for c in cases if c.group.startswith("networks") is large]
            with ThreadPoolExecutor(1 if large else 2) as pool:
                list(pool.map(lambda side, part=part: side.run(corpus, part), (before, after)))
        old, new = before.results(cases), after.results(cases)
    result = compare({c.name: c.group for c in cases}, old, new)
    options.out.write_text(json.dumps({"before": old, "after": new}))
    report(result, Console(width=140, soft_wrap=True, markup=False, highlight=False))
    spent = sum(r["seconds"] for r in new.values())
    print(f"{len(cases)} cases in {time.monotonic() - started:.0f} s, {spent:.0f} s of one core on a side")
    return 1 if result.differences else 0


if __name__ == "__main__":
    sys.exit(main())
