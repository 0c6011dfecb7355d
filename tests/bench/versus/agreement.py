"""The attributions in float64: `python -m versus.agreement MODEL SAMPLE.npy REFERENCES.npy COUNT OUT.npy`.

In float32, rounding that differs turns relu gates and pooling positions over, and chords of tiny differences
are ratios of rounding errors: no two programs agree better than each agrees with the truth.  So both
pipelines are evaluated in float64, slowly; what is left between them is what they mean.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

import irshap
from irshap.compiler.catalog import PassManager
from irshap.ir.evaluator import evaluate
from irshap.pipeline.named import PIPELINES


def wide(model: str, sample: np.ndarray[Any, Any], references: np.ndarray[Any, Any], name: str) -> Any:
    """A pipeline's attributions, computed in float64."""
    passes = PassManager.from_text(PIPELINES[name]).text.replace("lift,", "lift,widen,", 1)
    graph = irshap.compile(model, references.astype(np.float64), passes=passes).graph
    found = evaluate(graph, {str(v.name): sample.astype(np.float64) for v in graph.inputs})
    (values,) = (array for output, array in found.items() if output.endswith("_attributions"))
    return values


def main() -> None:
    model, sample, references, count, out = sys.argv[1:]
    x, x0 = np.load(sample), np.load(references)[: int(count)]
    naive, default = (wide(model, x, x0, name) for name in ("naive", "default"))
    np.save(out, naive)
    print(json.dumps({"apart": float(np.abs(naive - default).max() / np.abs(naive).max())}))


if __name__ == "__main__":
    main()
