"""Predicted against measured memory of lowered models in ONNX Runtime on a CPU.

    python tests/bench/cost_truth.py --networks FOLDER [--out truth.jsonl] [options]

FOLDER holds NAME_torchscript.onnx files, as tests/bench/networks.py writes them.  A program is a pipeline, or
a strategy (fold, stream, compact, recompute) of @default; with ":data" its weights stand in a data file, and
what is compared is the memory beside mapped files.  Each measurement runs in a fresh process and is the
process's peak less what it was before the session: VmHWM is reset there, and again before each run; memory
beside mapped files is looked at every millisecond.  A cell is left out when the prediction is over what
memory the machine has free.  With --out earlier results are kept, and only missing ones are
measured.  Of several --processes the largest counts: VGG19's loads end in one of two states, 150 MiB apart
(docs/cost.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

GROUPS = {
    "tuned": ("vgg19", "resnet50", "densenet201", "efficientnet_b0"),
    "seen": ("inception_v3", "regnet_y_400mf", "efficientnet_v2_s", "swin_v2_t"),
    "unseen": ("mnasnet0_5", "densenet121", "convnext_tiny", "resnext50_32x4d"),
}
"""Networks by what they were to the model: those it was made with, those that were measured once it was made
and looked into after that, and those that were chosen before that and measured behind it."""
MIB = 1 << 20
DATA = ":data"
SHARE = 0.8
"""Of the free memory, the part that one measurement may take."""


@dataclass(frozen=True)
class Cell:
    network: str
    passes: str
    references: int
    samples: int
    pattern: bool

    @property
    def key(self) -> str:
        # records of when sessions without an arena were measured, too, stay valid
        return json.dumps({**vars(self), "arena": True}, sort_keys=True)

    @property
    def program(self) -> str:
        return self.passes.removesuffix(DATA)

    @property
    def external(self) -> bool:
        return self.passes.endswith(DATA)

    @property
    def compared(self) -> str:
        """What of predicted and measured memory."""
        return "private" if self.external else "peak"


def status(key: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def fresh(model: Path, samples: int, pattern: bool, runs: int) -> dict[str, int]:
    """`measure` in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed; the error's stderr says how.
    """
    command = [sys.executable, __file__, "--child", str(model), str(samples), str(int(pattern)), str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {stage: int(size) for stage, size in json.loads(done.stdout).items()}


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Private:
    """The most memory beside mapped files while it is entered."""

    def __enter__(self) -> Private:
        self.most, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.001):
            self.most = max(self.most, status("RssAnon"))


def measure(model: str, samples: int, pattern: bool, runs: int) -> dict[str, int]:
    """Loads and runs a model in this process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = pattern
    reset_peak()
    before, private_before = status("VmRSS"), status("RssAnon")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = {"load_peak": status("VmHWM") - before, "loaded": status("VmRSS") - before}
    random = np.random.default_rng(1)
    feeds: dict[str, Any] = {}
    for v in session.get_inputs():
        dims = [d if isinstance(d, int) else samples for d in v.shape]
        # labels are the only integers: of the first class
        floats = v.type == "tensor(float)"
        feeds[v.name] = random.standard_normal(dims, np.float32) if floats else np.zeros(dims, np.int64)
    peaks = []
    with Private() as private:
        for _ in range(runs):
            reset_peak()
            session.run(None, feeds)
            peaks.append(status("VmHWM") - before)
    return {
        **found,
        "private": private.most - private_before,
        "first": peaks[0],
        "later": max(peaks[1:], default=0),
        "peak": max(found["load_peak"], *peaks),
    }


def cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    for name in (name for group in arguments.names for name in GROUPS.get(group, (group,))):
        for passes in arguments.passes:
            counts = [0] if passes == "inference" else arguments.references
            batches = arguments.batches if passes == "inference" else [1]
            for references in counts:
                for samples in batches:
                    for pattern in arguments.patterns:
                        yield Cell(name, passes, references, samples, bool(pattern))


def pipeline(program: str) -> str:
    """The passes of a program."""
    from irshap.compiler.request import requested
    from irshap.pipeline.strategies import STRATEGIES
    from irshap.pipeline.text import format_pipeline

    return format_pipeline(requested(strategy=program)) if program in STRATEGIES else program


class Bench:
    """Compiles each model once, and remembers what was measured."""

    def __init__(self, folder: Path, out: Path | None, scratch: Path) -> None:
        self.folder, self.out, self.scratch = folder, out, scratch
        self.known: dict[str, dict[str, int]] = {}
        if out is not None and out.exists():
            for line in out.read_text().splitlines():
                entry = json.loads(line)
                self.known[entry["cell"]] = entry["measured"]
        self.sessions: dict[tuple[str, str, int], Any] = {}
        self.lowered: tuple[tuple[str, str, int], Path] | None = None

    def source(self, cell: Cell) -> Path:
        return self.folder / f"{cell.network}_torchscript.onnx"

    def predict(self, cell: Cell, runs: int, cuts: bool) -> Any:
        from irshap.cost import SessionModel, Settings, stages
        from irshap.ir.dims import N, R

        key = (cell.network, cell.passes, cell.references)
        if key not in self.sessions:
            passes = pipeline("lift,canonicalize" if cell.passes == "inference" else cell.program)
            last = stages(self.source(cell), passes, expected=cell.references, exact=True)[-1]
            self.sessions[key] = SessionModel.of(last.graph, stored=last.stored)
        settings = Settings(cell.pattern, runs, cuts=cuts)
        if cell.external:
            settings = replace(settings, external_over=0)
        return self.sessions[key].predict({N: cell.samples, R: cell.references}, settings)

    def model(self, cell: Cell) -> Path:
        """The file to run; only the latest is kept, since they are large."""
        if cell.passes == "inference":
            return self.source(cell)
        key = (cell.network, cell.passes, cell.references)
        if self.lowered is None or self.lowered[0] != key:
            import irshap

            for old in self.scratch.iterdir():
                old.unlink()
            path = self.scratch / "model.onnx"
            shape = (cell.references, 3, 224, 224)
            references = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            compiled = irshap.compile(self.source(cell), references, passes=pipeline(cell.program))
            compiled.save(path, external_data=cell.external)
            self.lowered = (key, path)
        return self.lowered[1]

    def truth(self, cell: Cell, runs: int, predicted: int, processes: int = 1) -> dict[str, int] | None:
        if cell.key not in self.known:
            if predicted > SHARE * available():
                return None
            model = self.model(cell)
            try:
                found = [fresh(model, cell.samples, cell.pattern, runs) for _ in range(processes)]
            except subprocess.CalledProcessError as failure:
                print(f"{cell}: exit code {failure.returncode}: {failure.stderr[-300:]}", file=sys.stderr)
                return None
            self.known[cell.key] = {stage: max(f[stage] for f in found) for stage in found[0]}
            if self.out is not None:
                with self.out.open("a") as stream:
                    stream.write(json.dumps({"cell": cell.key, "measured": self.known[cell.key]}) + "\n")
        return self.known[cell.key]


def available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        model, *numbers = sys.argv[2:]
        samples, pattern, runs = map(int, numbers)
        print(json.dumps(measure(model, samples, bool(pattern), runs)))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--names", nargs="+", default=["tuned"], help=f"networks, or {', '.join(GROUPS)}")
    parser.add_argument("--passes", nargs="+", default=["inference", "@naive", "@default"])
    parser.add_argument("--references", nargs="+", type=int, default=[1, 5, 20])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument(
        "--patterns",
        nargs="+",
        type=int,
        choices=(1, 0),
        default=[1, 0],
        help="enable_mem_pattern, 1 or 0: 0 is what irshap.Explainer makes",
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1, help="that measure a cell one after another")
    parser.add_argument(
        "--cuts", action=argparse.BooleanOptionalAction, default=True, help="see irshap.cost.Settings"
    )
    parser.add_argument("--known", action="store_true", help="measure nothing, show what --out has")
    parser.add_argument("--stages", action="store_true", help="a line for each cell, with all stages")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments.networks, arguments.out, Path(scratch))
        found = []
        for cell in cells(arguments):
            predicted = bench.predict(cell, arguments.runs, arguments.cuts)
            measured = bench.known.get(cell.key)
            if measured is None and not arguments.known:
                limit = getattr(predicted, cell.compared)
                measured = bench.truth(cell, arguments.runs, limit, arguments.processes)
            found.append((cell, predicted, measured))
            if arguments.stages:
                print_stages(cell, predicted, measured)
    if not arguments.stages:
        print_table(found)
    errors = [getattr(p, c.compared) / m[c.compared] - 1 for c, p, m in found if m]
    if errors:
        sizes = np.abs(errors)
        print(
            f"\n{len(errors)} cells: mean error {sizes.mean():.1%}, worst {max(errors, key=abs):+.1%}, "
            f"{(sizes <= 0.1).mean():.0%} within 10 %, {(sizes <= 0.05).mean():.0%} within 5 %"
        )


def print_stages(cell: Cell, predicted: Any, measured: dict[str, int] | None) -> None:
    """One line: each stage predicted / measured in MiB."""
    stages = ("load_peak", "loaded", "first", "later", "peak")
    numbers = [
        f"{stage} {getattr(predicted, stage) / MIB:.0f} / {measured[stage] / MIB:.0f}" if measured else "-"
        for stage in stages
    ]
    print(*vars(cell).values(), " | ".join(numbers), flush=True)


def print_table(found: list[tuple[Cell, Any, dict[str, int] | None]]) -> None:
    """A row for each program, a column for each way to make a session."""
    columns = dict.fromkeys("pattern" if cell.pattern else "no pattern" for cell, *_ in found)
    print("| network | program | R | N | " + " | ".join(columns) + " |")
    print("| --- " * (4 + len(columns)) + "|")
    rows: dict[tuple[Any, ...], list[str]] = {}
    for cell, predicted, measured in found:
        row = rows.setdefault((cell.network, cell.passes, cell.references or "", cell.samples), [])
        expected = getattr(predicted, cell.compared)
        text = f"{expected / MIB:.0f}"
        if measured:
            real = measured[cell.compared]
            text += f" / {real / MIB:.0f} ({expected / real - 1:+.0%})"
        row.append(text)
    for key, row in rows.items():
        print("| " + " | ".join(map(str, (*key, *row))) + " |")


if __name__ == "__main__":
    main()
