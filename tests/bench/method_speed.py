"""Methods against Captum and against what they can't do without: times, memory, and what a quadrature misses.

    python tests/bench/method_speed.py --torch-python PYTHON --write docs/benchmarks.md [options]

One ResNet50 (random weights, 224 x 224 images), one sample.  Every system has a process of its own, and all
run in turn, round after round: times are compared within a round.  Beside seconds by the clock there are
those of the processors, which other work on the machine moves less.  Memory is the process's peak over its
first run less what it was before it loaded anything, in a fresh process.  The last table is of the small
networks in tests/fixtures/families.  --names measures some parts again; results are added to --out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cost_truth import available
from versus.machine import describe
from versus.page import put_section, table
from versus.record import Record
from versus.systems import System
from versus.workers import Failed, Worker, child

import irshap
from irshap import demo
from irshap.compiler.request import as_method

ROOT = Path(__file__).parents[2]
NETWORK = "resnet50"
SIDE, WINDOW, STEPS = 224, 16, 50
PATCHES = (SIDE // WINDOW) ** 2
ATTEMPTS, ENOUGH = 5, 6 << 30
"""How often a group is tried that doesn't fit into the machine's memory, and the bytes it waits for."""
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20
ONNX, TORCH = "versus.methods_onnx", "versus.methods_torch"


@dataclass(frozen=True)
class Part:
    """What one process runs: `count` steps, gradients or images; `method` is what its file is compiled by."""

    title: str
    make: str
    count: int = 1
    method: str = ""

    @property
    def system(self) -> System:
        return System(self.title, self.title, self.make, "torch" if TORCH in self.make else "onnx")


IG = f"integrated-gradients{{steps={STEPS}}}"
PARTS = {
    "gradients": Part(f"{STEPS} gradients, one by one", f"{ONNX}:Gradients", STEPS, "gradient"),
    "gradients of 10": Part(
        f"{STEPS} gradients, 10 at a time", f"{ONNX}:BatchedGradients", STEPS, "gradient"
    ),
    "ig": Part(f"irshap `{IG}`", f"{ONNX}:Method", method=IG),
    "captum ig": Part(f"Captum IntegratedGradients, {STEPS} at once", f"{TORCH}:IntegratedGradients", STEPS),
    "captum ig of 10": Part(
        f"Captum IntegratedGradients, {STEPS}, 10 at a time", f"{TORCH}:ChunkedIntegratedGradients", STEPS
    ),
    "saliency": Part("irshap `saliency`", f"{ONNX}:Method", method="saliency"),
    "captum saliency": Part("Captum Saliency", f"{TORCH}:Saliency"),
    "twice": Part("two inferences of one image", f"{ONNX}:ManyInference", 1),
    "images": Part(f"inference of {PATCHES} + 1 images, 25 at a time", f"{ONNX}:ManyInference", PATCHES),
    "occlusion": Part(
        "irshap `occlusion`, 16 x 16", f"{ONNX}:Method", method="occlusion{window=(16,16),step=(16,16)}"
    ),
    "captum occlusion": Part("Captum Occlusion, 25 at a time", f"{TORCH}:Occlusion"),
}
GROUPS = (
    ("gradients", "gradients of 10", "ig", "captum ig", "captum ig of 10"),
    ("saliency", "captum saliency", "twice"),
    ("images", "occlusion", "captum occlusion"),
)
"""Compared with each other."""
PEERS = {"ig": "captum ig", "saliency": "captum saliency", "occlusion": "captum occlusion"}
"""Whose attributions are compared."""
PROMISES = (
    (f"integrated gradients, faster than Captum with {STEPS} at once", "captum ig", "ig", ">=", 3.0),
    ("integrated gradients, faster than Captum with 10 at a time", "captum ig of 10", "ig", ">=", 3.0),
    (f"integrated gradients by {STEPS} gradients", ("ig",), ("gradients", "gradients of 10"), "<=", 1.3),
    ("saliency, faster than Captum", ("captum saliency",), "saliency", ">=", 3.0),
    ("two inferences, faster than Captum's saliency", ("captum saliency",), ("twice",), ">=", 3.0),
    ("occlusion by inference of as many images", ("occlusion",), ("images",), "<=", 1.1),
)
"""What by what, of several the fastest in its round."""
GROWING = ("integrated-gradients{steps=K}", "smooth-grad{samples=K}", "expected-gradients{samples=K}")
LEAST = 3.0
"""Seconds for which a part runs in a round, at least once."""
FEW, MANY, FLAT = 20, 200, 1.2
SMALL = {"vgg": "VGG", "resnet": "ResNet", "densenet": "DenseNet", "efficientnet": "EfficientNet"}
RULES = ("gauss-legendre", "right", "trapezoid")
COUNTS = (10, 20, 50, 100, 200, 400)
METHODS = (
    "gradient",
    "saliency",
    "input-x-gradient",
    "guided-backprop",
    "smooth-grad",
    "epsilon-lrp",
    "integrated-gradients",
    "deeplift",
)
EVALUATED, PATIENCE = 200, 60.0
"""Digits that `irshap evaluate` is timed on, and the most seconds it may take."""


INTRODUCTION = """\
Written by `{command}`, {ended}: ResNet50 as above, one sample, {processor}, {cores} cores.
Every system has a process of its own, and those that are compared run in turn: numbers are medians of up to
{count} rounds (of long runs fewer), ratios medians of those within a round. The load of the machine was up to
{load} with other work: **processors** are seconds of all cores that a process used, which such work moves
less than the clock. Gradients of so deep a network with random weights move by per cents with float32's
rounding, which decides about ReLUs near 0: the last column is that, and not a rule. A gradient's
convolutions do the work of two inferences: where these aren't three times faster than Captum's saliency,
no gradient in this runtime is.
"""
QUADRATURE = """\
|f(x) - base - sum| by |f(x) - base| of `integrated-gradients` on the small networks in
tests/fixtures/families, in float32, mean of 4 samples against 5 references, by the number of points.
EfficientNet (SiLU) is smooth: Gauss-Legendre's error falls exponentially, to rounding at 20 points, the
trapezoid's as 1/steps², the right rule's as 1/steps. ReLU and max-pooling have kinks, where the gradient on
the path jumps: every rule then falls about as 1/steps, and 50 points leave per cents, whoever computes them.
DeepLIFT's error there is rounding.
"""


class Bench:
    """Compiles and measures; what is in the record already isn't measured again."""

    def __init__(self, work: Path, torch_python: str, record: Record) -> None:
        self.work, self.record = work, record
        self.pythons = {"onnx": sys.executable, "torch": torch_python}
        self.folder, self.nets = work / NETWORK, work / "nets"
        self.values = work / "values.npy"
        self.net = self.nets / f"{NETWORK}_torchscript.onnx"
        if not (self.net.exists() and (self.folder / "sample.npy").exists()):
            command = [torch_python, "-m", "versus.torch_side", NETWORK, str(self.folder), str(self.nets)]
            if child(command).wait():
                raise SystemExit("the network could not be made")

    def compiled(self, method: str) -> Path:
        """The file of a method, against zeros where it compares."""
        path = self.work / f"{''.join(c if c.isalnum() else '_' for c in method)}.onnx"
        sample = np.load(self.folder / "sample.npy")
        given = np.zeros_like(sample) if as_method(method).points.references else None
        irshap.compile(self.net, given, method=method).save(path)
        return path

    def worker(self, part: Part) -> Worker:
        say(f"starts {part.title}")
        files = {
            "onnx": str(self.net),
            "torch": str(self.folder / f"{NETWORK}.pt"),
            "sample": str(self.folder / "sample.npy"),
            "references": str(self.folder / "references.npy"),
            "count": part.count,
            "compiled": str(self.compiled(part.method)) if part.method else "",
            "values": str(self.values),
        }
        log = self.work / "worker.log"
        return Worker(self.pythons[part.system.runtime], part.system, files, log)

    def times(self, names: list[str], rounds: int) -> None:
        """Parts that are compared run in turn; a group at a time, so that they fit into memory together."""
        for group in ([name for name in parts if name in names] for parts in GROUPS):
            for _ in range(ATTEMPTS if group else 0):
                wait_for_memory()
                try:
                    self.group(group, rounds)
                    break
                except Failed as error:
                    say(f"{', '.join(group)}: {error}")

    def group(self, names: Sequence[str], rounds: int) -> None:
        """Starts some parts, and runs them in turn."""
        with ExitStack() as stack:
            workers, values = dict[str, Worker](), dict[str, Any]()
            for name in names:
                workers[name] = stack.enter_context(self.worker(PARTS[name]))
                versions = self.record.data["about"].setdefault("versions", {})
                versions[PARTS[name].system.runtime] = workers[name].first["versions"]
                if self.values.exists():
                    values[name] = np.load(self.values)
                    self.values.unlink()
            for name, peer in PEERS.items():
                if name in values and peer in values:
                    apart = np.abs(values[name] - values[peer]).max() / np.abs(values[peer]).max()
                    self.record.data.setdefault("apart", {})[name] = float(apart)
            for _ in range(rounds):
                found = {name: self.once(worker) for name, worker in workers.items()}
                self.record.data.setdefault("rounds", []).append(found)
                self.record.save()

    def once(self, worker: Worker) -> dict[str, float]:
        """Seconds of one run, by the clock and of all processors."""
        before = spent(worker.process.pid)
        seconds = worker.run(LEAST)["seconds"]
        used = (spent(worker.process.pid) - before) / len(seconds)
        say(f"{worker.system.title}: {seconds[0]:.3g} s, {used:.3g} s of processors")
        return {"clock": statistics.median(seconds), "processors": used}

    def memory(self) -> None:
        """The peak of few and many steps or samples, each in a fresh process."""
        for text in GROWING:
            for count in (FEW, MANY):
                wait_for_memory()
                part = Part(text, f"{ONNX}:Method", method=text.replace("K", str(count)))
                with self.worker(part) as worker:
                    peak = worker.first["peak"] - worker.first["before"]
                self.record.data.setdefault("memory", {}).setdefault(text, {})[str(count)] = peak
                self.record.save()

    def evaluate(self) -> None:
        """Seconds of `irshap evaluate` with all measures, on the demo's digits, in a process of its own."""
        folder = self.work / "evaluate"
        folder.mkdir(exist_ok=True)
        digits, labels = demo.digits()
        np.save(folder / "x.npy", digits[:EVALUATED])
        np.save(folder / "y.npy", labels[:EVALUATED])
        files = []
        for method in METHODS:
            given = np.zeros_like(digits[:1]) if as_method(method).points.references else None
            files.append(folder / f"{method}.onnx")
            irshap.compile(demo.model_path(), given, method=method).save(files[-1])
        command = [sys.executable, "-m", "irshap", "evaluate", *map(str, files)]
        command += ["--inputs", str(folder / "x.npy"), "--labels", str(folder / "y.npy"), "--json"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self.record.data["evaluate"] = time.perf_counter() - start
        self.record.save()

    def quadrature(self) -> None:
        """What integrated gradients miss of f(x) - base on the small networks."""
        fixtures = ROOT / "tests" / "fixtures" / "families"
        for name in SMALL:
            data = np.load(fixtures / f"{name}.npz")
            for rule in RULES:
                for steps in COUNTS:
                    method = f"integrated-gradients{{steps={steps},rule={rule},emit=completeness_error}}"
                    model = fixtures / f"{name}_torchscript.onnx"
                    explainer = irshap.compile(model, data["references.input"], method=method).explainer()
                    found = explainer(data["inputs.input"])
                    assert found.completeness_error is not None and found.target_values is not None
                    left = np.abs(found.completeness_error / (found.target_values - found.base_values))
                    key = (
                        self.record.data.setdefault("quadrature", {})
                        .setdefault(name, {})
                        .setdefault(rule, {})
                    )
                    key[str(steps)] = [float(left.mean()), float(left.max())]
            self.record.save()


def spent(process: int) -> float:
    """Seconds of all processors that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_for_memory() -> None:
    """Until other work on the machine leaves enough of it."""
    while available() < ENOUGH:
        time.sleep(5)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def ratio(found: dict[str, Any], over: Any, under: Any, unit: str) -> float | None:
    """The fastest of `over` by the fastest of `under` in a round."""
    sides = [[side] if isinstance(side, str) else side for side in (over, under)]
    times = [[found[name][unit] for name in side if name in found] for side in sides]
    return float(min(times[0]) / min(times[1])) if all(times) else None


def page(record: Record) -> Iterator[str]:
    """The section of the page."""
    data = record.data
    about, rounds = data["about"], data.get("rounds", [])
    most = max((sum(name in r for r in rounds) for name in PARTS), default=0)
    about_it = INTRODUCTION.format(count=most, **about, **about["machine"])
    yield from about_it.splitlines()
    yield ""
    rows: list[tuple[object, ...]] = []
    for name, part in PARTS.items():
        each = [r[name] for r in rounds if name in r]
        if each:
            clock, used = (statistics.median(e[unit] for e in each) for unit in ("clock", "processors"))
            apart = data.get("apart", {}).get(name)
            rows.append((part.title, f"{clock:.3g}", f"{used:.3g}", "" if apart is None else f"{apart:.1e}"))
    yield from table(("system", "seconds", "processors, s", "from Captum, by the largest"), rows)
    rows = []
    for promise, over, under, sense, limit in PROMISES:
        cells: list[str] = []
        for unit in ("clock", "processors"):
            found = [r for each in rounds if (r := ratio(each, over, under, unit)) is not None]
            cells.append(f"{statistics.median(found):.2f}" if found else "")
        holds = "" if not cells[0] else _verdict(float(cells[0]), sense, limit)
        rows.append((promise, f"{sense} {limit} x", *cells, holds))
    for text, found in data.get("memory", {}).items():
        few, many = found[str(FEW)], found[str(MANY)]
        what = f"peak of `{text}`, K = {MANY} by {FEW} ({few / MIB:.0f} MiB)"
        rows.append((what, f"<= {FLAT} x", f"{many / few:.2f}", "", _verdict(many / few, "<=", FLAT)))
    if seconds := data.get("evaluate"):
        what = f"`irshap evaluate`, {EVALUATED} digits x {len(METHODS)} methods, all measures"
        rows.append((what, f"<= {PATIENCE:g} s", f"{seconds:.1f} s", "", _verdict(seconds, "<=", PATIENCE)))
    yield from table(("promise", "limit", "by the clock", "by processors", "holds"), rows)
    yield "### What a quadrature misses"
    yield ""
    yield from QUADRATURE.splitlines()
    yield ""
    rows = [
        (SMALL[name], rule, *(f"{by_steps[str(c)][0]:.1e}" for c in COUNTS))
        for name, rules in data.get("quadrature", {}).items()
        for rule, by_steps in rules.items()
    ]
    yield from table(("network", "rule", *map(str, COUNTS)), rows)


def _verdict(found: float, sense: str, limit: float) -> str:
    return "yes" if (found >= limit if sense == ">=" else found <= limit) else "**no**"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="folder (build/bench)")
    parser.add_argument("--out", type=Path, help="results (WORK/methods.json)")
    parser.add_argument("--write", type=Path, metavar="PAGE.md", help="writes a section of the page")
    parser.add_argument("--torch-python", default=sys.executable, help="the Python with torch and Captum")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--names", nargs="+", default=list(PARTS), choices=PARTS)
    everything = ["times", "memory", "evaluate", "quadrature"]
    parser.add_argument("--only", nargs="+", default=everything, metavar="WHAT")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    record = Record(given.out or given.work / "methods.json", "methods")
    if given.only != ["page"]:
        describe(
            record, f"python tests/bench/method_speed.py --rounds {given.rounds} --write docs/benchmarks.md"
        )
        bench = Bench(given.work, given.torch_python, record)
        if "times" in given.only:
            bench.times(given.names, given.rounds)
        if "memory" in given.only:
            bench.memory()
        if "evaluate" in given.only:
            bench.evaluate()
        if "quadrature" in given.only:
            bench.quadrature()
    if given.write is not None:
        put_section(given.write, page(record))


if __name__ == "__main__":
    main()
