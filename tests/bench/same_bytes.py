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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    """A tree on which cases are run."""

    def __init__(self, name: str, view: Path, work: Path) -> None:
        self.name, self.view, self.work = name, view, work

    def run(self, corpus: Corpus, cases: list[Case]) -> dict[str, Any]:
        """What the collector found in a process of its own, by the cases' names."""
        if not cases:
            return {}
        listed, found = corpus.write(f"{self.name}.json", cases), self.work / f"{self.name}.found.json"
        folder = self.work / self.name
        folder.mkdir(exist_ok=True)
        command = [sys.executable, collect.__file__, str(listed), str(found), str(folder)]
        subprocess.run(command, check=True, env=environment(self.view), cwd=self.work)
        results: dict[str, Any] = json.loads(found.read_text())
        return {case.name: {**results[case.name], "arguments": list(case.arguments)} for case in cases}


def known(path: Path | None, cases: list[Case]) -> dict[str, Any]:
    """Of an earlier run's results those of the same commands on the same files."""
    if path is None or not path.exists():
        return {}
    stored = json.loads(path.read_text())
    same = (c for c in cases if stored.get(c.name, {}).get("arguments") == list(c.arguments))
    return {case.name: stored[case.name] for case in same}


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


@contextmanager
def trees(before: str) -> Iterator[tuple[Path, Side, Side]]:
    """The files of the commit before, and the two sides, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="same-bytes-") as name:
        work = Path(name)
        tree = unpack(before, work / "tree")
        sides = [Side(n, view(t, work / f"{n}.view"), work) for n, t in (("before", tree), ("after", ROOT))]
        yield tree, sides[0], sides[1]


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
    with trees(options.before) as (tree, before, after):
        corpus = Corpus(before.work / "cases")
        add_tests(corpus, tree)
        if options.recorded is not None:
            if not options.recorded.exists():
                record(tree, before.view, options.recorded)
            add_recorded(corpus, options.recorded)
        if options.networks is not None:
            add_networks(corpus, options.networks, options.names)
        cases = [c for c in corpus.cases.values() if options.only in c.name]
        old = known(options.before_json, cases)
        new: dict[str, Any] = {}
        # Networks fill the memory, so only one is compiled at a time.
        for large in (False, True):
            part = [c for c in cases if c.group.startswith("networks") is large]
            work = [(before, [c for c in part if c.name not in old]), (after, part)]
            with ThreadPoolExecutor(1 if large else 2) as pool:
                one, other = pool.map(lambda task: task[0].run(corpus, task[1]), work)
            old |= one
            new |= other
            if options.before_json is not None:
                options.before_json.write_text(json.dumps(old))
    result = compare({c.name: c.group for c in cases}, old, new)
    options.out.write_text(json.dumps({"before": old, "after": new}))
    report(result, Console(width=140, soft_wrap=True, markup=False, highlight=False))
    print(f"{len(cases)} cases in {time.monotonic() - started:.0f} s")
    return 1 if result.differences else 0


if __name__ == "__main__":
    sys.exit(main())
