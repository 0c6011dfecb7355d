"""Are the attributions of the four networks complete, and the gradients torch's?

    python tests/bench/exact_networks.py --nets FOLDER [--exporter dynamo] [--references 1 5 20] [NAME ...]
                                         [--json ROWS.json] [--write docs/networks.md]

FOLDER holds the models that tests/bench/networks.py exports (missing ones are exported).  For each network,
exporter, number and kind of references it prints the completeness error |f(x) - base - sum| relative to
max(|f(x) - base|, 1e-3 |f(x)|).  It adds the rows to --json, and writes the page with the tables of all to
--write.  Exit status 1 when one is above --tolerance.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import networks
import numpy as np
import onnxruntime
import torch

import irshap
from irshap.ir.evaluator import evaluate
from irshap.ops import pool
from irshap.ops.arithmetic import guarded_quotient
from irshap.ops.program import constant

Row = dict[str, Any]


def explained(path: Path, references: np.ndarray[Any, Any], x: np.ndarray[Any, Any], **options: Any) -> Any:
    """The explanation by the compiled file, loaded from disk as a user would."""
    given = (references,) if len(references) else ()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explained.onnx"
        # not kept: with many references it is as large as what then runs
        irshap.compile(path, *given, **options).save(file)
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


def _quotient_of_shap(share: Any, dx: Any) -> Any:
    return guarded_quotient(share, dx, constant(0.0, dx.dtype), 1e-7)


def against_shap(name: str, x: np.ndarray[Any, Any], count: int = 3) -> Row:
    """The distance to SHAP's attributions in float64, relative to the largest, where SHAP's sum.

    SHAP gives a pooled element whose difference is below 1e-7 no multiplier; irshap only where it is 0,
    because that guard loses a part of the sum.  `error` is measured with SHAP's guard, `own_guard` with
    irshap's.  As with gradients, float32 is no yardstick: positions in pooling turn over (`torch_float32`:
    SHAP's own float32 against its float64 attributions).
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
        distances = []
        for quotient in (_quotient_of_shap, pool.share_quotient):
            with mock.patch.object(pool, "share_quotient", quotient):
                graph = irshap.compile(double, references.numpy().astype(np.float64)).graph
            found = evaluate(graph, {"image": x.astype(np.float64)})["image_attributions"]
            distances.append(float(np.abs(found - expected).max()))
    row = {"network": name, "file": f"{name} in float64", "references": count, "kind": "shap"}
    scale = np.abs(expected).max()
    row["error"], row["own_guard"] = (float(d / scale) for d in distances)
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


PAGE = """# The four networks: completeness, gradients, SHAP

Made by `tests/bench/exact_networks.py` ({date}, torch {torch}, ONNX Runtime {runtime}): torchvision's
networks with random weights and calibrated batch normalization, 224 x 224, from both of torch's
exporters. Compiled by `@default`, saved, and run from the file.

## Completeness in float32

|f(x) - base - sum of attributions| relative to max(|f(x) - base|, 1e-3 |f(x)|), the worst of {samples}
samples and of random and zero references. Asked: at most 1e-4.

| network | exporter | {counts} |
| --- | --- |{rules}
{completeness}

## Gradients, against torch's autograd in float64

Relative to the largest. *torch float32* is torch's own float32 gradient against its float64 one:
rounding turns single relu gates and max-pool positions over, and in float32 nobody has five digits on a
network of this depth.

| network | irshap | torch float32 |
| --- | --- | --- |
{gradients}

## SHAP's DeepExplainer in float64, where SHAP's attributions sum

SHAP gives an element in front of a max-pool no multiplier where it changes by less than 1e-7 (a part of
the sum is lost); irshap only where it doesn't change. With SHAP's guard put into irshap, both agree to
rounding; with each its own they do where no such change occurs.

| network | references | same guard | each with its own | SHAP float32 against SHAP float64 |
| --- | --- | --- | --- | --- |
{shap}
"""


def page(rows: list[Row]) -> str:
    """The rows as a page of Markdown."""
    complete = [r for r in rows if r["kind"] not in ("gradient", "shap")]
    counts = sorted({r["references"] for r in complete})
    worst: dict[tuple[str, str], dict[int, float]] = {}
    for r in complete:
        cells = worst.setdefault((r["network"], r["file"].removesuffix(".onnx").rpartition("_")[2]), {})
        cells[r["references"]] = max(r["error"], cells.get(r["references"], 0.0))

    def table(kind: str, *keys: str) -> str:
        chosen = [r for r in rows if r["kind"] == kind]
        return "\n".join(
            "| " + " | ".join([r["network"], *(_cell(r[k]) for k in keys)]) + " |" for r in chosen
        )

    return PAGE.format(
        date=datetime.date.today(),
        torch=torch.__version__.partition("+")[0],
        runtime=onnxruntime.__version__,
        samples=len(complete) // max(1, len({(r["file"], r["references"], r["kind"]) for r in complete})),
        counts=" | ".join(f"R = {c}" for c in counts),
        rules=" --- |" * len(counts),
        completeness="\n".join(
            f"| {name} | {exporter} | {' | '.join(_cell(cells[c]) for c in counts)} |"
            for (name, exporter), cells in worst.items()
        ),
        gradients=table("gradient", "error", "torch_float32"),
        shap=table("shap", "references", "error", "own_guard", "torch_float32"),
    )


def _cell(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.1e}"


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
    parser.add_argument("--write", type=Path, help="the page with the tables")
    arguments = parser.parse_args()
    x = networks.images(arguments.samples, seed=5).numpy()
    rows: list[Row] = []
    if arguments.json and arguments.json.exists():
        rows = json.loads(arguments.json.read_text())

    def report(row: Row) -> None:
        keys = ("file", "references", "kind", "sample")
        rows[:] = [r for r in rows if any(r.get(k) != row.get(k) for k in keys)]
        rows.append(row)
        limit = 1e-5 if row["kind"] == "gradient" else arguments.tolerance
        row["passed"] = row["error"] <= limit
        beside = {"torch_float32": "torch float32", "own_guard": "with irshap's guard"}
        verdict = "".join(f"   ({text}: {row[key]:.1e})" for key, text in beside.items() if key in row)
        verdict += "" if row["passed"] else "   ABOVE"
        print(
            f"{row['file']:36} R={row['references']:<3} {row['kind']:9} {row['error']:.2e}{verdict}",
            flush=True,
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))

    for name in arguments.names:
        for exporter in arguments.exporter:
            path = arguments.nets / f"{name}_{exporter}.onnx"
            if not path.exists():
                path = networks.export(name, arguments.nets, exporter)
            for count in arguments.references:
                for kind in arguments.kinds:
                    # one sample at a time: memory for R references is what a user of one sample needs
                    for i in range(len(x)):
                        report(completeness(name, path, count, kind, x[i : i + 1]) | {"sample": i})
        if name in arguments.shap:
            report(against_shap(name, x[:1]))
        if not arguments.no_gradient:
            report(gradient(name, x[:1]))
    if arguments.write:
        arguments.write.write_text(page(rows))
    sys.exit(not all(row["passed"] for row in rows))


if __name__ == "__main__":
    main()
