"""How fast and how exact are explanations on a GPU, and what does the CPU still do there?

    python tests/bench/on_cuda.py --nets FOLDER [--references 20] [--files FOLDER] [NAME ...]
    python tests/bench/on_cuda.py --nets FOLDER --passes "@cuda +max-unpool +fp16" --option prefer_nhwc=1

Needs onnxruntime-gpu and a GPU.  FOLDER holds NAME_torchscript.onnx, as tests/bench/networks.py writes.  A
cell is for float32 / TF32, the CUDA provider's default.  Times are medians, with inputs and outputs on the
device; "over inference" is by plain inference of 1 and of R samples in the same arithmetic.  Attributions
are compared with @naive's on the CPU, by the largest; their sum with f(x) - base.  Exit status 1 when the sum
misses 1e-4 of that in float32, or 2e-2 under the pass fp16.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnxruntime
import torch

import irshap
from irshap.compiler.catalog import parse_pipeline
from irshap.pipeline.text import format_pipeline

PROGRAMS = ("@cuda", "@cuda +fp16", "@default", "@naive")
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
TAIL = (
    "conv-adjoint", "absorb-scales", "max-unpool", "sink-reshapes", "canonicalize", "dce", "order", "fp16",
    "lower",
)  # fmt: skip
"""Where a pass stands that is added behind the one that binds the references."""


def pipeline(program: str) -> str:
    """The passes of "@cuda +max-unpool -absorb-scales": @cuda with one pass more and one less."""
    name, *changes = program.split()
    steps = list(parse_pipeline(name))
    for change in changes:
        (step,) = parse_pipeline(change[1:])
        at = next(i for i, p in enumerate(steps) if p.binds_references)
        tail = [p for p in steps[at + 1 :] if p.name != step.name]
        if change[0] == "+" and step.binds_references:
            steps[at] = step
        elif change[0] == "+":
            tail = sorted([*tail, step], key=lambda p: TAIL.index(p.name))
        steps[at + 1 :] = tail
    return format_pipeline(steps)


def explained(network: Path, program: str, count: int, folder: Path) -> Path:
    """The file of a program, which is compiled unless it is there."""
    file = folder / f"{network.stem} {count} {program}.onnx"
    if not file.exists():
        references = networks.images(count, seed=99).numpy()
        irshap.compile(network, references, passes=pipeline(program)).save(file)
    return file


class Runs:
    """A model on the GPU, run: what it returns, how long it takes, and what it needs.

    Attributes:
        seconds: the median of the runs; `first` is the first one, in which cuDNN looks for its kernels.
        memory: bytes on the device.
        on_cpu: the nodes that ran on the CPU, by kind.
        outputs: by name.
    """

    def __init__(self, model: Path, image: Any, runs: int, settings: Mapping[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        options.enable_profiling = True
        before, _ = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
        with tempfile.TemporaryDirectory() as folder:
            options.profile_file_prefix = f"{folder}/profile"
            session = onnxruntime.InferenceSession(model, options, providers=[(CUDA, dict(settings)), CPU])
            if CUDA not in session.get_providers():
                sys.exit("ONNX Runtime has no CUDA here: needs a GPU, onnxruntime-gpu and CUDA's libraries")
            binding, results = session.io_binding(), {}
            binding.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(image, "cuda"))
            for output in session.get_outputs():
                shape = [d if isinstance(d, int) else len(image) for d in output.shape]
                dtype = np.int64 if output.type == "tensor(int64)" else np.float32
                made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda")
                results[output.name] = made
                binding.bind_ortvalue_output(output.name, made)

            def run() -> float:
                start = time.perf_counter()
                session.run_with_iobinding(binding)
                torch.cuda.synchronize()
                return time.perf_counter() - start

            self.first = run()
            events = json.loads(Path(session.end_profiling()).read_text())
        nodes = [e["args"] for e in events if e.get("cat") == "Node"]
        self.on_cpu = Counter(n["op_name"] for n in nodes if n.get("provider") == CPU)
        warm = [run() for _ in range(2 * runs)][runs:]
        self.seconds = float(np.median(warm))
        self.memory = before - torch.cuda.mem_get_info()[0]
        self.outputs = {name: value.numpy() for name, value in results.items()}


def distances(found: Mapping[str, Any], wanted: irshap.Explanation) -> tuple[float, float]:
    """How far attributions are off, of the largest, and their sum, of f(x) - base."""
    values, base, index = (found[n] for n in ("image_attributions", "base_values", "target_index"))
    output = np.take_along_axis(found["logits"].astype(np.float64), index[:, None], axis=1)[:, 0]
    gap = output - base
    missed = np.abs(gap - values.sum(axis=(1, 2, 3), dtype=np.float64))
    lost = missed / np.maximum(np.abs(gap), 1e-3 * np.abs(output))
    if not np.array_equal(index, wanted.target_index):
        return float("nan"), float(lost.max())
    return float(np.abs(values - wanted.values).max() / np.abs(wanted.values).max()), float(lost.max())


def pair(form: str, values: Sequence[float]) -> str:
    """A cell of the table: what was found in float32 and in TF32."""
    return " / ".join(form.format(v) for v in values)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=networks.NAMES)
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--passes", action="append", help="instead of " + ", ".join(PROGRAMS))
    parser.add_argument("--option", action="append", default=[], help="of the CUDA provider: NAME=VALUE")
    parser.add_argument("--files", type=Path, help="a folder: compiled files stay there for the next time")
    parser.add_argument("--runs", type=int, default=20)
    given = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)  # a search for kernels that tries others is no error
    settings = dict(option.split("=", 1) for option in given.option)
    arithmetics = [
        {"use_tf32": tf32, "arena_extend_strategy": "kSameAsRequested", **settings} for tf32 in "01"
    ]
    x = networks.images(given.samples, seed=5).numpy()
    references = networks.images(given.references, seed=99).numpy()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{device}, ONNX Runtime {onnxruntime.__version__}, CUDA {torch.version.cuda}", *given.option)
    columns = "ms", "over inference", "first run, s", "attributions off", "sum off", "MiB", "on the CPU"
    print(f"| network | program | {' | '.join(columns)} |\n{'| --- ' * (2 + len(columns))}|", flush=True)
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        files = given.files or Path(folder)
        for name in given.names:
            network = given.nets / f"{name}_torchscript.onnx"
            plain = [0.0, 0.0]
            for batch in (x, references):
                runs = [Runs(network, batch, given.runs, a) for a in arithmetics]
                plain = [p + r.seconds for p, r in zip(plain, runs, strict=True)]
                print(row(name, f"inference of {len(batch)}", runs), flush=True)
            wanted = irshap.Explainer(explained(network, "@naive", given.references, files))(x)
            for program in given.passes or PROGRAMS:
                file = explained(network, program, given.references, files)
                runs = [Runs(file, x, given.runs, a) for a in arithmetics]
                over = [r.seconds / p for r, p in zip(runs, plain, strict=True)]
                off, lost = zip(*(distances(r.outputs, wanted) for r in runs), strict=True)
                print(row(name, program, runs, over, off, lost), flush=True)
                passed &= lost[0] <= (2e-2 if "fp16" in pipeline(program) else 1e-4)
    sys.exit(not passed)


def row(name: str, program: str, runs: list[Runs], over: Any = (), off: Any = (), lost: Any = ()) -> str:
    """A line of the table."""
    on_cpu = ", ".join(f"{n} {kind}" for kind, n in runs[0].on_cpu.most_common())
    cells = (
        pair("{:.2f}", [1e3 * r.seconds for r in runs]),
        pair("{:.2f}", over),
        pair("{:.1f}", [r.first for r in runs]),
        pair("{:.1e}", off),
        pair("{:.1e}", lost),
        pair("{:.0f}", [r.memory / 2**20 for r in runs]),
        on_cpu or "nothing",
    )
    return f"| {' | '.join((name, program, *cells))} |"


if __name__ == "__main__":
    main()
