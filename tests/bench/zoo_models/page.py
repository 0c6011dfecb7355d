"""docs/zoo.md, from the rows."""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from zoo_models.case import PLAIN

__all__ = ["causes", "page"]

Row = dict[str, Any]

PAGE = """# The zoo: which architectures are explained as they are exported

Made by `tests/bench/zoo.py` ({date}; {versions}): {models} models with random weights from a seed, exported
unmodified by both of torch's exporters, with a batch that is dynamic or 1, and where inputs have a length
with one that is fixed or dynamic. Compiled by `@default` with 2 references, run in ONNX Runtime, and compared
with the original model there, optimized or not, whichever is nearer: f(x) of 3 samples, f of the references
with each held input (a mask) at the sample's value.{part}

- **complete**: the sum of attributions misses f(x) - base by at most 1e-3 of the largest |f(x) - base|
- **reported**: the model rounds activations to integers; what that makes of the sum is in completeness_error
- **inexact**: by more; **wrong**: the compiled file's predictions are off
- **refused**: with a reason, before anything is computed; **crashed**: a fault of irshap
- left out: what the exporter can't export or ONNX Runtime can't run

| suite | models | cases | complete | reported | refused | crashed | inexact | wrong | left out |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{summary}

Of those that are complete or inexact: the completeness error, the time of an explanation by that of inferring
1 and R samples, and nodes by the original's.

| suite | error, median | 95 % | worst | at most 1e-4 | time, median | 95 % | nodes | compiled in |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{numbers}

{forms}{peers}## Misses

Each cause with the number of its cases, and where it was seen.

{misses}

## Left out

{left_out}
"""

LEFT_OUT = ("not exported", "unusable")
GOOD = ("complete", "reported")

FORMS = """## Forms

What ONNX Runtime's optimizers and quantizers made of a network: how far its attributions are from those of
the plain file, relative to the largest, where both explain the same class; and of those that round
activations the gap that is reported, relative to the largest |f(x) - base|.

| form | files | off, median | worst | gap, median | worst |
| --- | --- | --- | --- | --- | --- |
{lines}

"""
PEERS = """## SHAP and Captum

`DeepExplainer` and `DeepLiftShap` on the models themselves, unmodified, with the same samples and references:
complete, inexact by more than 1e-3, or failed with an error.

| suite | | models | complete | inexact | failed | error, median |
| --- | --- | --- | --- | --- | --- | --- |
{lines}

{failed}

"""


def _version(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:  # ONNX Runtime's package for GPUs has another name
        return str(import_module(package).__version__)


def page(rows: Collection[Row], part: str = "") -> str:
    """The page as Markdown; `part` says what was run, where that isn't all."""
    suites: dict[str, list[Row]] = defaultdict(list)
    beside = [r for r in rows if "peer" in r]
    rows = [r for r in rows if "peer" not in r]
    for row in rows:
        suites[row["suite"]].append(row)
    listed = [*suites.items(), ("all", rows)]
    packages = ("torch", "torchvision", "transformers", "timm", "onnxruntime")
    return PAGE.format(
        part=f" {part}" if part else "",
        date=datetime.date.today(),
        versions=", ".join(f"{p} {_version(p)}" for p in packages),
        models=len({(r["suite"], r["model"]) for r in rows}),
        summary="\n".join(_summary(name, found) for name, found in listed),
        numbers="\n".join(filter(None, (_numbers(name, found) for name, found in listed))),
        forms=_forms([r for r in rows if r.get("form", PLAIN) != PLAIN and "error" in r]),
        peers=_peers(beside),
        misses=causes(r for r in rows if r["result"] not in (*GOOD, *LEFT_OUT)),
        left_out=causes(r for r in rows if r["result"] in LEFT_OUT),
    )


def _summary(name: str, rows: list[Row]) -> str:
    count = {k: sum(r["result"] == k for r in rows) for k in {r["result"] for r in rows}}
    tried = sum(r["result"] not in LEFT_OUT for r in rows)
    share = f"{count.get('complete', 0)} ({100 * count.get('complete', 0) / max(tried, 1):.1f} %)"
    others = [str(count.get(k, 0)) for k in ("reported", "refused", "crashed", "inexact", "wrong")]
    cells = [name, str(len({r["model"] for r in rows})), str(tried), share, *others, str(len(rows) - tried)]
    return f"| {' | '.join(cells)} |"


def _numbers(name: str, rows: list[Row]) -> str:
    found = [r for r in rows if r["result"] in (*GOOD, "inexact")]
    if not found:
        return ""
    errors = np.array([r["error"] for r in found])
    errors[np.isnan(errors)] = np.inf
    times = [r["by_inference"] for r in found]
    cells = [f"{np.quantile(errors, q, method='higher'):.1e}" for q in (0.5, 0.95, 1)]
    cells += [f"{100 * np.mean(errors <= 1e-4):.1f} %"]
    cells += [f"{np.quantile(times, q):.1f}" for q in (0.5, 0.95)]
    cells += [f"{np.median([r['explained_nodes'] / r['nodes'] for r in found]):.1f}"]
    cells += [f"{np.median([r['compile_seconds'] for r in found]):.1f} s"]
    return f"| {name} | {' | '.join(cells)} |"


def _forms(rows: list[Row]) -> str:
    lines = []
    for form in dict.fromkeys(r["form"] for r in rows):
        found = [r for r in rows if r["form"] == form]
        cells = [form, str(len(found))]
        for key in ("beside_plain", "gap"):
            numbers = [r[key] for r in found if key in r]
            cells += [f"{np.median(numbers):.1e}", f"{max(numbers):.1e}"] if numbers else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return FORMS.format(lines="\n".join(lines)) if lines else ""


def _peers(rows: list[Row]) -> str:
    lines = []
    for suite, peer in dict.fromkeys((r["suite"], r["peer"]) for r in rows):
        found = [r for r in rows if (r["suite"], r["peer"]) == (suite, peer)]
        counts = [sum(r["result"] == k for r in found) for k in ("complete", "inexact", "failed")]
        errors = [r["error"] for r in found if "error" in r]
        median = f"{np.median(errors):.1e}" if errors else ""
        lines.append(f"| {suite} | {peer} | {len(found)} | {' | '.join(map(str, counts))} | {median} |")
    failed = causes(r for r in rows if r["result"] == "failed")
    return PEERS.format(lines="\n".join(lines), failed=failed) if lines else ""


def causes(rows: Iterable[Row]) -> str:
    """A list of the reasons, the commonest first, each with where it was seen and one message in full."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["result"], _reason(row)].append(row)
    lines = []
    for (result, _), found in sorted(groups.items(), key=lambda item: -len(item[1])):
        smallest = min(found, key=lambda r: r.get("nodes", 0))
        seen = ", ".join(sorted({f"{r['suite']}/{r['model']}" for r in found}))
        at = f" ({smallest['at']})" if smallest.get("at") else ""
        what = f"- **{result}**, {len(found)}: {_message(smallest)}{at}"
        lines.append(f"{what}. Smallest: `{smallest['case']}`. In {seen}")
    return "\n".join(lines) or "None."


def _message(row: Row) -> str:
    if "error" in row and "message" not in row:
        return f"error {row['error']:.1e}, predictions off by {row['prediction_off']:.1e}"
    text = f"{row.get('kind', '')}: {row.get('message', '')}".strip(": ")
    # no link where a message has brackets before parentheses
    return " ".join(text.split()).replace("](", "] (")


def _reason(row: Row) -> str:
    """A message without what differs from model to model: places, names, numbers, shapes."""
    text = _message(row) if "message" in row else ""
    text = re.sub(r"^(\w+): \S+ \((\w+)\): ", r"\1: \2: ", text)  # a node, with its op
    text = re.sub(r"^(\w+): \S*/\S*[^:]*: ", r"\1: ", text)  # a file
    text = re.sub(r"'[^']*'|\"[^\"]*\"|%\w+|\[[^]]*\]|\([^)]*\)|/\S+", "_", text)
    return re.sub(r"\d+(\.\d+)?|\b\w*_\w*\b", "#", text)[:90]
