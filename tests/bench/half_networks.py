"""How far off are the four networks' attributions under the pass fp16, and how small are the files?

    PYTHONPATH=tests python tests/bench/half_networks.py --nets FOLDER [--for cuda] [--fp16 forward=half]

FOLDER holds the models that tests/bench/networks.py exports.  Two rows for each network: the file as ONNX
Runtime's CPU runs it, which has few float16 kernels and rounds only where a value leaves a chain of others;
and the same program with every float16 op rounding its result and adding up in float32, as GPUs do.  Exit
status 1 when attributions are off by more than 2 % of the largest, or miss more than 2 % of f(x) - base.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import networks
import numpy as np
from rounding import rounding

import irshap
from irshap.compiler.compile import CompiledModel
from irshap.compiler.request import requested
from irshap.lowering import lower
from irshap.lowering.files.save import save_model
from irshap.pipeline.text import format_pipeline

LIMIT = 0.02


def explained(compiled: CompiledModel, x: np.ndarray[Any, Any], rounded: bool) -> tuple[Any, int]:
    """The explanation by the file, and its size."""
    model = compiled.model
    if rounded:
        model = lower(rounding(compiled.graph), metadata={p.key: p.value for p in model.metadata_props})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explained.onnx"
        save_model(model, file)
        explainer = irshap.Explainer(file)
        size = sum(f.stat().st_size for f in Path(folder).iterdir())
        return [explainer(row[None]) for row in x], size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=networks.NAMES)
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--exporter", default="torchscript")
    parser.add_argument("--references", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--for", dest="device", default="cpu")
    parser.add_argument("--fp16", default="", help="options of the pass")
    arguments = parser.parse_args()
    references = networks.images(arguments.references, seed=99).numpy()
    x = networks.images(arguments.samples, seed=5).numpy()
    steps = format_pipeline(requested(device=arguments.device, fp16=False))
    halved = f"{steps.removesuffix(',lower')},fp16{{{arguments.fp16}}},lower"
    passed = True
    for name in arguments.names:
        path = arguments.nets / f"{name}_{arguments.exporter}.onnx"
        wanted, whole = explained(irshap.compile(path, references, passes=steps), x, False)
        compiled = irshap.compile(path, references, passes=halved)
        for kind in ("ONNX Runtime", "rounding"):
            found, size = explained(compiled, x, kind == "rounding")
            for a, b in zip(wanted, found, strict=True):
                largest = np.abs(a.values).max()
                off = np.abs(a.values - b.values).max() / largest
                gap = (b.target_values.astype(np.float64) - b.base_values)[0]
                lost = abs(b.completeness_error[0] / gap)
                passed &= bool(off <= LIMIT and lost <= LIMIT)
                print(
                    f"{name:16} {kind:13} attributions {off:.1e}  completeness {lost:.1e}"
                    f"  f - base {gap:7.3f}  largest {largest:.1e}"
                    f"  file {size / 2**20:.0f} MiB, {size / whole:.2f} of float32's",
                    flush=True,
                )
    sys.exit(not passed)


if __name__ == "__main__":
    main()
