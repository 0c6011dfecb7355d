"""An explanation in a few lines, of text and of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from irshap.errors import printable
from irshap.runtime.arrays import Array

__all__ = ["ROWS", "as_html", "as_text", "largest_of"]

ROWS = 10
"""How many lines are shown."""


def as_text(shapes: Mapping[str, Sequence[int]], count: int, records: Sequence[Mapping[str, Any]]) -> str:
    """`Explanation of 3 samples` and a line for each of the first.

    Args:
        shapes: the attributed tensors and the shape of one sample's attributions.
        count: of samples.
        records: what is told of each sample, or of each sample and class.
    """
    what = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    lines = [f"Explanation of {count} {'sample' if count == 1 else 'samples'}: {what}"]
    lines += [f"  {_line(record)}" for record in records[:ROWS]]
    if len(records) > ROWS:
        lines.append(f"  ... {len(records) - ROWS} more")
    return "\n".join(lines)


def _line(record: Mapping[str, Any]) -> str:
    parts = [f"{printable(record['label'])}:"]
    if record["target"] is not None:
        parts.append(f"{printable(str(record['target']))},")
    if record["prediction"] is not None and record["base_value"] is not None:
        parts.append(f"{record['prediction']:.6g} = {record['base_value']:.6g} {record['sum']:+.6g}")
        if record["error"] is not None:
            parts.append(f"(error {record['error']:.1e})")
    else:
        parts.append(f"attributions sum to {record['sum']:.6g}")
    return " ".join(parts)


def as_html(
    shapes: Mapping[str, Sequence[int]],
    count: int,
    records: Sequence[Mapping[str, Any]],
    largest: Sequence[Sequence[tuple[str, float]]],
) -> str:
    """The same as a table, with the features of the largest attributions.

    Args:
        largest: for each record features and attributions, largest first.
    """
    what = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    heads = ["sample", "target", "f(x)", "base", "sum", "error", "largest attributions"]
    rows = []
    for record, features in zip(records[:ROWS], largest, strict=False):
        numbers = [_cell(record[key]) for key in ("prediction", "base_value", "sum")]
        error = "" if record["error"] is None else f"{record['error']:.1e}"
        found = ", ".join(f"{escape(name)} {value:+.3g}" for name, value in features)
        target = "" if record["target"] is None else escape(str(record["target"]))
        cells = [escape(record["label"]), target, *numbers, error, found]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    more = f"<p>... {len(records) - ROWS} more</p>" if len(records) > ROWS else ""
    head = "".join(f"<th>{h}</th>" for h in heads)
    caption = f"Explanation of {count} {'sample' if count == 1 else 'samples'}: {escape(what)}"
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return table + more


def largest_of(names: Sequence[str], values: Array, count: int) -> list[tuple[str, float]]:
    """The features of the largest attributions of one sample, by magnitude."""
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    return [(names[i], float(values[i])) for i in order]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
