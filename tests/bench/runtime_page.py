"""The rows of tests/bench/runtimes.py as docs/runtimes.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["page"]

Row = Mapping[str, Any]

WITHIN = 1e-4
"""How far a right output may be, by the largest number that it should have."""

TITLES = {
    "onnxruntime": "ONNX Runtime",
    "node": "onnxruntime-node",
    "web": "onnxruntime-web in Node.js",
    "chromium": "onnxruntime-web in Chromium",
    "openvino": "OpenVINO",
    "reference": "ONNX reference evaluator",
}

PROFILE_OF = {
    "onnxruntime": "cpu",
    "node": "cpu",
    "web": "web",
    "chromium": "web",
    "openvino": "openvino",
    "reference": "any",
}
"""What one compiles for where a file is to run in a runtime."""

HEAD = """# Which runtime runs which file

`tests/bench/runtimes.py` wrote this page, with {versions}. Each
explained file ran in each runtime, on a CPU, in float32, with one sample, with three, and with one of which a
part is as in a reference (where differences are 0).

A number is the largest distance of any output (prediction, attributions, base, target) from what ONNX Runtime
gives on a CPU for the file of `--for cpu`, by the largest number of that output; at most 1e-4 is right. In
brackets: what the sum of attributions misses, |f(x) - base - sum| by |f(x) - base|. **Bold** is wrong.

Of twelve random images ResNet18 gets those three whose windows of max-pooling are decided most clearly. Where
two elements are equal up to rounding, runtimes that round differently choose different ones, and what one
pixel is attributed goes to its neighbour.

`--for` of each runtime: {profiles}. {claim}

"""

AVOIDED = {
    "`MaxUnpool`": (
        "OpenVINO has no converter.  What goes to distinct places is set by `ScatterElements` without "
        "reduction"
    ),
    "`ScatterElements` with a reduction": (
        "It came with opset 16.  What overlapping windows of max-pooling add is set in parts, of windows "
        "that never meet, and the parts are added (`part-scatters`)"
    ),
    "loops over references (`Scan`)": (
        "OpenVINO reads no body that captures a tensor.  All references are taken at once, and loops that a "
        "method needs carry what they read (`close-loops`)"
    ),
    "guards by addition": (
        "OpenVINO folds (x - r) + t into x + (t - r), which is 0 where x = r: 0/0.  They are choices "
        "(`firm-guards`); in ONNX Runtime a difference, its guard and a division then take 1.7 to 2.5 times "
        "as long (`tests/bench/guards.py`, 2 and 10 times 64 planes of 112 x 112), so they are sums elsewhere"
    ),
    "one array read in two layouts": (
        "OpenVINO reorders weights once for each address and shape.  Of square ones the second reader gets "
        "what was laid out for the first, in silence: they are stored twice (`own-weights`)"
    ),
}
"""What `--for openvino` and `--for any` leave out, and why."""

FOOT = """
OpenVINO needs the hint `INFERENCE_PRECISION_HINT: f32`: on processors with bfloat16 it takes that otherwise.

[Other runtimes](using.md#other-runtimes) tells what each `--for` is for, and how to see on your machine
how far a runtime is from ONNX Runtime.
"""


def page(rows: Sequence[Row], versions: Mapping[str, str]) -> str:
    """The whole page."""
    told = ", ".join(f"{TITLES[name]} {version}" for name, version in versions.items())
    profiles = ", ".join(f"{TITLES[name]} `{PROFILE_OF[name]}`" for name in versions)
    parts = [HEAD.format(versions=told, profiles=profiles, claim=_claim(rows))]
    networks = list(dict.fromkeys(row["network"] for row in rows))
    reasons: dict[str, int] = {}
    for network in networks:
        parts.append(f"## {network}\n\n")
        parts.append("| compiled | " + " | ".join(TITLES[name] for name in versions) + " |\n")
        parts.append("|---|" + "---|" * len(versions) + "\n")
        forms = list(dict.fromkeys((r["profile"], r["batch"]) for r in rows if r["network"] == network))
        for profile, batch in forms:
            cells = {
                r["runtime"]: _cell(r, reasons)
                for r in rows
                if (r["network"], r["profile"], r["batch"]) == (network, profile, batch)
            }
            name = ", ".join(f"`--for {device}`" for device in profile.split())
            name += f" `--batch {batch}`" if batch != "auto" else ""
            parts.append(f"| {name} | " + " | ".join(cells.get(v, "") for v in versions) + " |\n")
        parts.append("\n")
    if reasons:
        parts.append("Refused:\n\n")
        parts += [f"{number}. `{reason.replace('`', '')}`\n" for reason, number in reasons.items()]
    parts.append("\n## What `--for openvino` and `--for any` avoid\n\n| | why |\n|---|---|\n")
    parts += [f"| {what} | {why} |\n" for what, why in AVOIDED.items()]
    parts.append(FOOT)
    return "".join(parts)


def right(row: Row) -> bool:
    """Whether every output was near enough, for every kind of samples that was tried."""
    kinds = [row[kind] for kind in ("1", "3", "part") if kind in row]
    return bool(kinds) and all(told["far"] is not None and told["far"] <= WITHIN for told in kinds)


def _cell(row: Row, reasons: dict[str, int]) -> str:
    if "refused" in row:
        return f"refused [{reasons.setdefault(row['refused'], len(reasons) + 1)}]"
    kinds = [row[kind] for kind in ("1", "3", "part") if kind in row]
    far = [told["far"] for told in kinds]
    worst = "NaN" if None in far else f"{max(far):.0e}" if any(far) else "0"
    missed = max(told["incomplete"] for told in kinds)
    text = f"{worst} ({missed:.0e})" if missed == missed else worst
    text += "" if "part" in row else ", one sample"
    return text if right(row) else f"**{text}**"


def _claim(rows: Sequence[Row]) -> str:
    own = [r for r in rows if PROFILE_OF[r["runtime"]] in r["profile"].split()]
    portable = [r for r in rows if "any" in r["profile"].split()]
    good = sum(map(right, own))
    refused = sum("refused" in r for r in portable)
    wrong = sum("refused" not in r and not right(r) for r in portable)
    return (
        f"With it {good} of {len(own)} cells are right; of {len(portable)} with `--for any` "
        f"{len(portable) - refused - wrong} are right, {refused} refused, {wrong} silently wrong."
    )
