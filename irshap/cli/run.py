"""`irshap run`: explains samples with a compiled model."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.labels import LABELS, read_labels
from irshap.cli.output import echo_json, require_folder, table
from irshap.contract import TARGET, free
from irshap.errors import CheckFailed, UserError, near, printable
from irshap.files import write_npz

if TYPE_CHECKING:
    from irshap.runtime import Explanation

__all__ = ["explanation_rows", "given_inputs", "given_references", "run_command"]


@click.command("run")
@click.argument("explained")
@click.argument("samples", metavar="INPUT")
@click.option("--target", type=int, help="The class to explain, for a model compiled with --target input.")
@click.option(
    "--references",
    "-r",
    metavar="REFS",
    help="References, for a model that takes them at run time: .npy, or .npz by input; with --per-sample "
    "[N, R, ...].",
)
@LABELS
@click.option(
    "--output", "-o", metavar="FILE.npz", help="Save everything that the model returns, and labels."
)
@click.option(
    "--provider", multiple=True, metavar="NAME", help="ONNX Runtime provider, by preference.  [default: CPU]"
)
@click.option(
    "--rows", type=click.IntRange(min=0), default=20, show_default=True, help="Rows of the table to print."
)
@click.option(
    "--max-error",
    type=click.FloatRange(min=0),
    help="Exit with 1 if a completeness error exceeds this times max(1, |f(x) - base|).",
)
@click.option(
    "--compare",
    is_flag=True,
    help="Tell how far the runtimes of --with are from ONNX Runtime; exit with 1 beyond 1e-4 of the largest.",
)
@click.option(
    "--with",
    "others",
    multiple=True,
    metavar="openvino|web|node|reference",
    help="A runtime to compare with; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON.")
def run_command(
    explained: str,
    samples: str,
    target: int | None,
    references: str | None,
    labels: str | None,
    output: str | None,
    provider: tuple[str, ...],
    rows: int,
    max_error: float | None,
    compare: bool,
    others: tuple[str, ...],
    as_json: bool,
) -> None:
    """Explain the samples in INPUT (.npy [N, ...], or .npz by input) with the compiled model EXPLAINED."""
    from irshap.runtime import Explainer

    require_folder(output)
    if compare != bool(others):
        mend = "write --compare --with openvino, web, node or reference"
        raise UserError("--compare and --with belong together", mend=mend)
    called = read_labels(labels)
    explainer = Explainer(explained, list(provider) or None)
    given, named = given_inputs(samples, target, explainer.tensors.target or TARGET)
    if references is not None:
        named |= given_references(references, explainer.tensors.references)
    start = time.perf_counter()
    explanation = explainer(given, **named).with_labels(called)
    seconds = time.perf_counter() - start
    if output is not None:
        write_npz(output, explanation.raw | _told_labels(explanation))
    records = explanation_rows(explanation)
    told = compared(explained, others, explainer.feeds(given, **named)) if compare else []
    if as_json:
        report = {"samples": len(explanation), "seconds": seconds, "rows": records, "output": output}
        echo_json(report | ({"compared": told} if compare else {}))
    else:
        _print(records[:rows], len(records))
        click.echo(
            f"{len(explanation)} samples in {seconds * 1e3:.1f} ms"
            + (f", saved in {output}" if output else "")
        )
        _print_compared(told)
    if max_error is not None:
        _check(records, max_error)
    _require_near(told)


WITHIN = 1e-4
"""How far a runtime's output may be from ONNX Runtime's, by the largest number of that output."""


def compared(model: str, engines: Sequence[str], feeds: Sequence[Any]) -> list[dict[str, Any]]:
    """How far each output of each engine is from ONNX Runtime's, on a CPU; the worst of all feeds.

    Raises:
        UserError: no such engine, or it isn't installed, or doesn't run the model.
    """
    from irshap.engines import ENGINES, distances, own_results

    for name in engines:
        if name not in ENGINES:
            raise UserError(f"no runtime is called {name!r}", mend=near(name, ENGINES))
    wanted = own_results(Path(model), feeds)
    listed = []
    for name in engines:
        engine = ENGINES[name]()
        found, version = engine.run(Path(model), feeds), engine.version()
        each = [d for ours, theirs in zip(wanted, found, strict=True) for d in distances(theirs, ours)]
        for output in wanted[0]:
            worst = max((d for d in each if d.name == output), key=lambda d: (d.strange, d.relative))
            told = {"runtime": name, "version": version, "output": output, "strange": worst.strange}
            listed.append({**told, "distance": worst.relative if math.isfinite(worst.relative) else None})
    return listed


def _print_compared(listed: list[dict[str, Any]]) -> None:
    if not listed:
        return
    rows = []
    for told in listed:
        far = "differs" if told["distance"] is None else f"{told['distance']:.1e}"
        far = f"{told['strange']} are NaN or infinite" if told["strange"] else far
        rows.append([f"{told['runtime']} {told['version']}", printable(told["output"]), far])
    table(["runtime", "output", "from ONNX Runtime, by the largest"], rows)


def _require_near(listed: list[dict[str, Any]]) -> None:
    far = [t for t in listed if t["distance"] is None or t["distance"] > WITHIN]
    if far:
        names = ", ".join(dict.fromkeys(f"{t['runtime']} ({printable(t['output'])})" for t in far))
        what = f"more than {WITHIN:g} of the largest from ONNX Runtime: {names}"
        raise CheckFailed(what, mend="compile for the runtime: irshap compile --for openvino, web or any")


def given_inputs(samples: str, target: int | None, name: str) -> tuple[Any, dict[str, Any]]:
    """What `Explainer` is called with: samples, and by `name` the class to explain, where one is given."""
    if target is None:
        return samples, {}
    import numpy as np

    from irshap.runtime.arrays import as_arrays

    # One class for all samples: as many as the input has rows.
    arrays = as_arrays(samples, ["input"], UserError, "input")
    count = next((len(a) for a in arrays.values() if a.ndim), 0)
    given = arrays["input"] if set(arrays) == {"input"} else arrays
    return given, {name: np.full(count, target, dtype=np.int64)}


def given_references(file: str, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The arrays of a file for the inputs of references, by the model's inputs that they are for."""
    from irshap.runtime.arrays import as_arrays, unknown_names

    if not inputs:
        raise UserError("takes no references at run time", where="explained model", mend="leave -r out")
    arrays = as_arrays(file, list(inputs), UserError, "references")
    unknown_names(arrays, list(inputs), UserError, "references")
    return {inputs[name]: array for name, array in arrays.items()}


def explanation_rows(explanation: Explanation) -> list[dict[str, Any]]:
    """One record for each sample, or for each sample and class when several are explained."""
    import numpy as np

    total = explanation.total()
    columns = {
        "target": explanation.target_index,
        "prediction": explanation.target_values,
        "base_value": explanation.base_values,
        "sum_of_attributions": total,
        "completeness_error": explanation.completeness_error,
    }
    records = []
    for position in np.ndindex(total.shape):
        values = {name: None if a is None else a[position].item() for name, a in columns.items()}
        label = {} if explanation.labels is None else {"label": explanation.sample_names[position[0]]}
        records.append({"sample": position[0], **label, **values})
    return records


def _told_labels(explanation: Explanation) -> dict[str, Any]:
    """The labels of the samples, by a name that no output has."""
    labels = explanation.labels
    return {} if labels is None else {free("labels", explanation.raw): labels}


def _print(records: list[dict[str, Any]], count: int) -> None:
    heads = ["sample", "target", "prediction", "base value", "sum of attributions", "completeness error"]
    rows = [[_cell(k, v) for k, v in r.items() if k != "label"] for r in records]
    called = any("label" in r for r in records)
    if called:
        rows = [[printable(r["label"]), *row[1:]] for r, row in zip(records, rows, strict=True)]
    table(heads, rows, numeric=range(int(called), len(heads)))
    if count > len(records):
        click.echo(f"... {count - len(records)} more rows (--rows {count}, or --json)")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.1e}" if name == "completeness_error" else f"{value:.6g}"


def _check(records: list[dict[str, Any]], limit: float) -> None:
    from irshap.runtime.reading import relative_error

    errors = [r for r in records if r["completeness_error"] is not None]
    if not errors:
        mend = "leave --max-error out, or compile with a method that sums up: irshap methods"
        raise CheckFailed("no completeness error can be derived from this model's outputs", mend=mend)

    told = ("completeness_error", "prediction", "base_value")
    # `not <=`, so that NaN fails.
    bad = [r for r in errors if not relative_error(*(r[key] for key in told)) <= limit]
    if bad:
        what = f"{len(bad)} of {len(errors)} completeness errors exceed {limit:g}"
        worst = max(bad, key=lambda r: abs(r["completeness_error"]))
        raise CheckFailed(
            f"{what}, the largest is {worst['completeness_error']:.3g} in sample {worst['sample']}",
            mend="irshap verify MODEL -r REFS -i INPUT names the op that loses it",
        )
