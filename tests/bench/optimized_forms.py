"""Explains the forms that ONNX Runtime's optimizers give to networks, and compares with the plain network.

    PYTHONPATH=.:tests/bench python tests/bench/optimized_forms.py [NETWORK ...]

Needs the bench extra; nothing is downloaded: weights are random.  For each network and exporter it writes the
plain model, what a session saves at ORT_ENABLE_EXTENDED and ORT_ENABLE_ALL (optimized_model_filepath), and
what onnxruntime.transformers.optimizer makes of it.  A line for each form: the largest difference of its
attributions from those of the plain model and its completeness error, both relative to the largest
attribution; and ONNX Runtime's own ops in it.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from zoo_models import exporting, hugging, vision
from zoo_models.case import Case

import irshap
from irshap.errors import UserError

FOLDER = Path("build/optimized")
LEVELS = {
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
NETWORKS: dict[str, tuple[Callable[[str], Any], str]] = {
    "bert": (hugging.make_text, "bert"),
    "distilbert": (hugging.make_text, "bert"),
    "roberta": (hugging.make_text, "bert"),
    "gpt2": (hugging.make_text, "gpt2"),
    "llama": (hugging.make_text, "gpt2"),
    "vit": (hugging.make_images, "vit"),
    "resnet18": (vision.make_torchvision, ""),
    "mobilenet_v2": (vision.make_torchvision, ""),
}
"""How each is made, and as what the optimizer for transformers takes it."""


def forms(plain: Path, kind: str) -> Iterator[tuple[str, Path]]:
    """The optimized files of a model."""
    for name, level in LEVELS.items():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(path := plain.with_suffix(f".{name}.onnx"))
        onnxruntime.InferenceSession(plain, options, providers=["CPUExecutionProvider"])
        yield name, path
    if not kind:
        return
    from onnxruntime.transformers.optimizer import optimize_model

    path = plain.with_suffix(".transformers.onnx")
    try:
        made = optimize_model(str(plain), kind, num_heads=4, hidden_size=32)
    except Exception as error:  # it expects graphs of other exporters
        print(f"  transformers: ONNX Runtime's optimizer ends in {type(error).__name__}: {error}", flush=True)
        return
    made.save_model_to_file(str(path))
    yield "transformers", path


def explained(path: Path, references: dict[str, Any], feeds: dict[str, Any]) -> tuple[list[Any], float]:
    """The attributions of each input, and the completeness error."""
    while True:
        try:
            compiled = irshap.compile(path, references, target=1)
            break
        except irshap.errors.ReferencesError as error:  # held inputs take none
            held = [n for n in references if f"input {n!r} takes no references" in str(error)]
            if not held:
                raise
            references = {n: a for n, a in references.items() if n not in held}
    domains = {o.domain for o in compiled.model.opset_import}
    assert domains == {""}, domains
    explanation = compiled.explainer()(feeds if len(feeds) > 1 else next(iter(feeds.values())))
    values = explanation.values
    found = list(values.values()) if isinstance(values, dict) else [values]
    return found, float(np.abs(explanation.completeness_error).max())


def own_ops(path: Path) -> str:
    """ONNX Runtime's own ops in a file."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    kinds = sorted({n.op_type for n in nodes if n.domain or not onnx.defs.has(n.op_type)})
    return " ".join(kinds) or "-"


def compared(name: str, exporter: str) -> None:
    make, kind = NETWORKS[name]
    model, inputs = make(name)
    if hasattr(getattr(model, "model", None), "set_attn_implementation"):
        model.model.set_attn_implementation("eager")  # the form whose pattern the optimizers know
    plain = FOLDER / f"{name}-{exporter}.onnx"
    exporting.export(Case("", name, exporter, "dynamic", "fixed"), model, inputs, plain)
    feeds, references = dict(inputs.samples), dict(inputs.references)
    expected, gap = explained(plain, references, feeds)
    largest = max(float(np.abs(v).max()) for v in expected)
    print(f"{name}, {exporter}: plain, completeness {gap / largest:.1e}", flush=True)
    for form, path in forms(plain, kind):
        start = time.perf_counter()
        try:
            found, gap = explained(path, references, feeds)
        except UserError as error:
            print(f"  {form}: refused: {error} | {own_ops(path)}", flush=True)
            continue
        off = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        numbers = f"off by {off / largest:.1e}, completeness {gap / largest:.1e}"
        print(f"  {form}: {numbers}, {time.perf_counter() - start:.1f} s | {own_ops(path)}", flush=True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or NETWORKS:
        for exporter in ("torchscript", "dynamo"):
            try:
                compared(name, exporter)
            except UserError as error:
                print(f"{name}, {exporter}: refused: {error}", flush=True)


if __name__ == "__main__":
    main()
