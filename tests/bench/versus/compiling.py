"""Compiles in a fresh process: `python -m versus.compiling MODEL REFERENCES.npy COUNT PASSES OUT.onnx`.

Prints one JSON object: seconds (evaluating the references apart), nodes, bytes, and the FLOPs of a run.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import irshap
from irshap.compiler.catalog import parse_pipeline
from irshap.cost import cost, evaluate
from irshap.files import own_data
from irshap.ir.dims import N

__all__ = ["compile_to", "files_of"]


def files_of(path: Path) -> list[Path]:
    """A model's file, and that of its external data."""
    return [p for p in (path, *own_data(path)) if p.exists()]


def compile_to(model: str, references: np.ndarray[Any, Any], passes: str, path: Path) -> dict[str, Any]:
    """Compiles and saves."""
    start = time.perf_counter()
    compiled = irshap.compile(model, references, passes=passes)
    seconds = time.perf_counter() - start
    compiled.save(path)
    saving = time.perf_counter() - start - seconds
    binding = [r.seconds for r in compiled.report.passes if parse_pipeline(r.text)[0].binds_references]
    return {
        "pipeline": compiled.pipeline,
        "seconds": seconds,
        "references_seconds": sum(binding),
        "save_seconds": saving,
        "nodes": len(compiled.model.graph.node),
        "bytes": sum(f.stat().st_size for f in files_of(path)),
        "flops": int(evaluate(cost(compiled.graph).flops(), {N: 1})),
    }


def main() -> None:
    model, references, count, passes, path = sys.argv[1:]
    found = compile_to(model, np.load(references)[: int(count)], passes, Path(path))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
