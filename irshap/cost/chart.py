"""Memory and work over the number of references: SVG in a page, or with matplotlib a PNG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Any

from irshap.cost.report import Report, curve
from irshap.extras import optional

__all__ = ["Series", "counts_for", "curves", "html_page", "png", "svg"]

GIB = 2**30
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")
WIDTH, HEIGHT, MARGIN = 460, 300, 52


@dataclass(frozen=True)
class Series:
    """One program's curve: (R, peak bytes, FLOPs)."""

    name: str
    rows: list[tuple[int, int, int]]


def counts_for(report: Report) -> list[int]:
    """Numbers of references to draw: up to twice what was asked for."""
    most = max(2 * report.query.references, 20)
    return sorted({1, *(round(most * i / 12) or 1 for i in range(1, 13))})


def curves(report: Report) -> list[Series]:
    """The curves of all programs that explain."""
    counts = counts_for(report)
    return [Series(p.name, curve(p, report.query, counts)) for p in report.programs[1:]]


def svg(
    title: str, unit: str, series: Sequence[Series], value: Callable[[tuple[int, int, int]], float]
) -> str:
    """A line chart as SVG text: axes from zero, a legend, no script."""
    right = max(row[0] for s in series for row in s.rows)
    top = max(value(row) for s in series for row in s.rows) * 1.05 or 1.0

    def x(count: float) -> float:
        return MARGIN + (WIDTH - MARGIN - 12) * count / right

    def y(number: float) -> float:
        return HEIGHT - MARGIN + (2 * MARGIN - 24 - HEIGHT) * number / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
        f' role="img" aria-label="{escape(title)}" font-family="sans-serif" font-size="11">',
        f'<text x="{WIDTH / 2}" y="14" text-anchor="middle" font-size="13">{escape(title)}</text>',
    ]
    for i in range(5):
        number, count = top * i / 4, right * i / 4
        parts += [
            f'<path d="M{MARGIN} {y(number):.1f}H{WIDTH - 12}" stroke="#ddd"/>',
            f'<text x="{MARGIN - 5}" y="{y(number) + 4:.1f}" text-anchor="end">{number:.3g}</text>',
            f'<text x="{x(count):.1f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{count:.0f}</text>',
        ]
    parts.append(f'<text x="{MARGIN - 40}" y="20">{escape(unit)}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 18}" text-anchor="middle">references R</text>')
    for i, one in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        points = " ".join(f"{x(row[0]):.1f},{y(value(row)):.1f}" for row in one.rows)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{MARGIN + 8}" y="{34 + 14 * i}" fill="{colour}">{escape(one.name)}</text>')
    return "\n".join([*parts, "</svg>"])


def png(series: Sequence[Series], title: str) -> bytes:
    """Memory and TFLOPs, drawn side by side.

    Raises:
        UserError: matplotlib isn't installed.
    """
    figures = optional("matplotlib.figure", "matplotlib", "plot", "drawing")
    figure = figures.Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for one in series:
        counts = [row[0] for row in one.rows]
        left.plot(counts, [row[1] / GIB for row in one.rows], label=one.name)
        right.plot(counts, [row[2] / 1e12 for row in one.rows], label=one.name)
    for axes, label in ((left, "peak memory, GiB"), (right, "work, TFLOP")):
        axes.set(xlabel="references R", ylabel=label, xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


_STYLE = """body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 1000px; color: #222; }
table { border-collapse: collapse; margin: .6em 0 1.6em; } th, td { padding: .2em .8em; text-align: right; }
th:first-child, td:first-child { text-align: left; } tr { border-bottom: 1px solid #ddd; }
code { font-size: 90%; } .charts { display: flex; flex-wrap: wrap; gap: 1em; }"""


def html_page(title: str, report: Report, tables: Sequence[tuple[str, Sequence[str], Sequence[Any]]]) -> str:
    """A page that stands alone: charts, then tables of (heading, columns, rows)."""
    series = curves(report)
    parts = [f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style>"]
    parts += [f"<h1>{escape(title)}</h1>", *(f"<p>Note: {escape(note)}.</p>" for note in report.notes)]
    parts.append('<div class="charts">')
    parts.append(svg("Peak memory", "GiB", series, lambda row: row[1] / GIB))
    parts.append(svg("Work", "TFLOP", series, lambda row: row[2] / 1e12))
    parts.append("</div>")
    for heading, columns, rows in tables:
        parts.append(f"<h2>{escape(heading)}</h2><table><tr>")
        parts += [f"<th>{escape(c)}</th>" for c in columns]
        for row in rows:
            parts.append("</tr><tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row))
        parts.append("</tr></table>")
    return "\n".join(parts)
