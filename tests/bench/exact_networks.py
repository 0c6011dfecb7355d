"""Are the attributions of the four networks complete, and the gradients torch's?

    python tests/bench/exact_networks.py --nets FOLDER [--exporter dynamo] [--references 1 5 20] [NAME ...]

FOLDER holds the models that tests/bench/networks.py exports (missing ones are exported).  For each network,
exporter, number and kind of references it prints the completeness error |f(x) - base - sum| relative to
max(|f(x) - base|, 1e-3 |f(x)|), and writes all rows to --json.  Exit status 1 when one is above --tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import networks
import numpy as np
import torch

import irshap
from irshap.evaluator import evaluate

Row = dict[str, Any]


def explained(path: Path, references: np.ndarray[Any, Any], x: np.ndarray[Any, Any], **options: Any) -> Any:
    """The explanation by the compiled file, loaded from disk as a user would."""
    compiled = (
        irshap.compile(path, references, **options) if len(references) else irshap.compile(path, **options)
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explained.onnx"
        compiled.save(file)
        return irshap.Explainer(file)(x)


def completeness(name: str, path: Path, count: int, kind: str, x: np.ndarray[Any, Any]) -> Row:
    """One row: the error of each of the samples `x` (one run each), and the worst."""
    shape = (count, 3, networks.SIZE, networks.SIZE)
    references = networks.images(count, seed=99).numpy() if kind == "random" else np.zeros(shape, np.float32)
    result = explained(path, references, x)
    fx = result.target_values.astype(np.float64)
    base = result.base_values.astype(np.float64)
    total = result.values.astype(np.float64).reshape(len(x), -1).sum(1)
    error = np.abs(fx - base - total) / np.maximum(np.abs(fx - base), 1e-3 * np.abs(fx))
    return {
        "network": name,
        "file": path.name,
        "references": count,
        "kind": kind,
        "error": float(error.max()),
    }


def gradient(name: str, x: np.ndarray[Any, Any]) -> Row:
    """The gradient against torch autograd, both in float64, relative to its largest element.

    In float32 nobody has five digits here: rounding turns single relu gates and max-pool positions over, and
    torch differs from itself by percents (`torch_float32`: its own float32 against its float64 gradient).
    """
    model = networks.build(name)
    single = autograd(model, x, torch.float32)
    expected = autograd(model.double(), x, torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        graph = irshap.compile(exported_double(model, Path(folder)), method="gradient").graph
    found = evaluate(graph, {"image": x.astype(np.float64)})
    scale = np.abs(expected).max()
    row = {"network": name, "file": f"{name} in float64", "references": 0, "kind": "gradient"}
    row["error"] = float(np.abs(found["image_attributions"] - expected).max() / scale)
    row["torch_float32"] = float(np.abs(single - expected).max() / scale)
    return row


def against_shap(name: str, x: np.ndarray[Any, Any], count: int = 3) -> Row:
    """The distance to SHAP's attributions in float64, relative to the largest, where SHAP's sum.

    As with gradients, float32 is no yardstick: positions in pooling turn over (`torch_float32`: SHAP's own
    float32 against its float64 attributions).
    """
    import shap

    model, references, sample = networks.build(name), networks.images(count, seed=99), torch.from_numpy(x)

    def values(dtype: torch.dtype) -> np.ndarray[Any, Any]:
        explainer = shap.DeepExplainer(model.to(dtype), references.to(dtype))
        found, _ = explainer.shap_values(sample.to(dtype), ranked_outputs=1, check_additivity=False)
        return np.asarray(found)[..., 0]

    single, expected = values(torch.float32), values(torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        double = exported_double(model, Path(folder))
        graph = irshap.compile(double, references.numpy().astype(np.float64)).graph
    found = evaluate(graph, {"image": x.astype(np.float64)})["image_attributions"]
    row = {"network": name, "file": f"{name} in float64", "references": count, "kind": "shap"}
    scale = np.abs(expected).max()
    row["error"] = float(np.abs(found - expected).max() / scale)
    row["torch_float32"] = float(np.abs(single - expected).max() / scale)
    return row


def autograd(model: torch.nn.Module, x: np.ndarray[Any, Any], dtype: torch.dtype) -> np.ndarray[Any, Any]:
    """torch's gradient of the largest logit."""
    tensor = torch.from_numpy(x).to(dtype).requires_grad_()
    model(tensor).max(dim=1).values.sum().backward()
    assert tensor.grad is not None
    return tensor.grad.numpy()  # type: ignore[no-any-return]


def exported_double(model: torch.nn.Module, folder: Path) -> Path:
    """The model in float64.  Exported as such: exporters fold batch norm into weights, and round."""
    path = folder / "double.onnx"
    x = torch.zeros(1, 3, networks.SIZE, networks.SIZE, dtype=torch.float64)
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    names = {"input_names": ["image"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=networks.OPSET, **names)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=networks.NAMES)
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--exporter", nargs="+", default=["torchscript", "dynamo"])
    parser.add_argument("--references", nargs="*", type=int, default=[1, 5, 20])
    parser.add_argument("--kinds", nargs="+", default=["random", "zero"])
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--no-gradient", action="store_true")
    parser.add_argument("--shap", nargs="*", default=["vgg19"], help="networks to compare with SHAP")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    x = networks.images(arguments.samples, seed=5).numpy()
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row)
        limit = 1e-5 if row["kind"] == "gradient" else arguments.tolerance
        row["passed"] = row["error"] <= limit
        torch_error = f"   (torch float32: {row['torch_float32']:.1e})" if "torch_float32" in row else ""
        verdict = torch_error + ("" if row["passed"] else "   ABOVE")
        print(
            f"{row['file']:36} R={row['references']:<3} {row['kind']:9} {row['error']:.2e}{verdict}",
            flush=True,
        )

    for name in arguments.names:
        for exporter in arguments.exporter:
            path = arguments.nets / f"{name}_{exporter}.onnx"
            if not path.exists():
                path = networks.export(name, arguments.nets, exporter)
            for count in arguments.references:
                for kind in arguments.kinds:
                    # one sample at a time: memory for R references is what a user of one sample needs
                    for i in range(len(x)):
                        report(completeness(name, path, count, kind, x[i : i + 1]))
        if name in arguments.shap:
            report(against_shap(name, x[:1]))
        if not arguments.no_gradient:
            report(gradient(name, x[:1]))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    sys.exit(not all(row["passed"] for row in rows))


if __name__ == "__main__":
    main()
