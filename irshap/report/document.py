"""An explanation as one page of HTML that needs nothing else: no network, no file beside it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from irshap.extras import optional
from irshap.report.drawing import AGAINST, FOR, require_explanation, sample_of
from irshap.report.kinds import Kind, Look, Shown, kinds_of
from irshap.runtime import Explanation
from irshap.runtime.reading import TOLERANCES, yardstick

__all__ = ["EXACT", "page", "share_lost"]

EXACT = TOLERANCES[4]
"""The share of f(x) - base up to which attributions sum up: what `irshap verify` allows in float32."""

_ROWS = 5000
"""How many rows the table has: a browser takes more only slowly."""

_CLASSES = 5
"""Of how many classes a sample's attributions are drawn: those of the largest outputs."""


def page(
    explanation: Explanation,
    *,
    title: str = "Attributions",
    subtitle: str = "",
    card: Sequence[tuple[str, str]] = (),
    kinds: Mapping[str, str] | None = None,
    look: Look | None = None,
    most: int = 50,
) -> str:
    """The page: a table of all samples that can be sorted, pictures of the first, and the model card.

    Names in it, which a model or its user gave, are text: none is read as HTML, and the page's policy lets no
    script run but its own.

    Args:
        title: the page's heading.
        subtitle: what stands below it.
        card: the model card, such as `irshap.report.facts` tells it.
        kinds: how tensors are drawn, by their names, "" for all others: "image", "table", "tokens",
            "sequence", "series" or "bars".  Who isn't named is guessed from shapes.
        look: layout of pictures, letters of sequences, number of bars.
        most: of how many samples attributions are drawn.

    Raises:
        UserError: no such kind or tensor, one that doesn't fit, or a package is missing.
    """
    require_explanation(explanation)
    # what overflows stands on the page as infinite
    with np.errstate(over="ignore", invalid="ignore"):
        return _page(explanation, title, subtitle, card, kinds or {}, look or Look(), most)


def _page(
    explanation: Explanation,
    title: str,
    subtitle: str,
    card: Sequence[tuple[str, str]],
    kinds: Mapping[str, str],
    look: Look,
    most: int,
) -> str:
    chosen = kinds_of(explanation, kinds, look)
    drawn = range(min(most, len(explanation)))
    ends = {name: _end(explanation, kind, name, drawn, look) for name, kind in chosen.items()}
    records = explanation.records()
    samples = [_sample(explanation, place, chosen, look, ends) for place in drawn]
    shades = _shades(samples)
    folder = Path(__file__).parent
    text, style, script = (
        (folder / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    style = "".join([style, *(f".{c}{{background:{s};color:{ink}}}\n" for s, (c, ink) in shades.items())])
    return str(
        _template(text).render(
            title=title,
            subtitle=subtitle,
            style=style,
            script=script,
            policy=_policy(style, script),
            tiles=_tiles(explanation, records),
            scales=[_scale(name, kind, ends[name]) for name, kind in chosen.items()],
            several=len(chosen) > 1,
            rows=[_row(record, len(drawn)) for record in records[:_ROWS]],
            records=len(records),
            classes=explanation.several,
            together=_together(explanation, chosen, look),
            samples=samples,
            shades={shade: name for shade, (name, _) in shades.items()},
            total=len(explanation),
            most=_CLASSES,
            card=card,
        )
    )


def share_lost(record: Mapping[str, Any]) -> float | None:
    """The completeness error as a share of |f(x) - base| (`yardstick`).

    Args:
        record: one of `Explanation.records()`.

    Returns:
        None where attributions have no such sum.
    """
    if record["error"] is None or record["base_value"] is None or record["prediction"] is None:
        return None
    prediction, base, error = (float(record[key]) for key in ("prediction", "base_value", "error"))
    size = float(yardstick(prediction, base))
    return abs(error) / size if size else abs(error)


def _template(text: str) -> Any:
    jinja2 = optional("jinja2", "jinja2", "report", "a page")
    options = {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(autoescape=True, **options).from_string(text)


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which nothing is fetched, and no style or script runs but these."""
    own = (b64encode(sha256(part.encode()).digest()).decode() for part in (style, script))
    allowed = (
        f"{what} 'sha256-{digest}'" for what, digest in zip(("style-src", "script-src"), own, strict=True)
    )
    return "; ".join(
        ["default-src 'none'", "img-src data:", *allowed, "base-uri 'none'", "form-action 'none'"]
    )


@dataclass(frozen=True)
class _Panel:
    """What is drawn of a sample: for a class (or the sample itself), with its numbers as text."""

    title: str
    told: str
    alt: str
    shown: Shown

    @property
    def words(self) -> bool:
        return isinstance(self.shown, tuple)

    @property
    def largest(self) -> list[str]:
        words = self.shown if isinstance(self.shown, tuple) else ()
        order = sorted(words, key=lambda word: -abs(word.value))[:5]
        return [f"{word.text} {word.value:+.3g}".replace("-", "−") for word in order]


def _sample(
    e: Explanation, place: int, chosen: Mapping[str, Kind], look: Look, ends: Mapping[str, float]
) -> dict[str, Any]:
    ranks = _ranks(e, place)
    called = f"Sample {place}" if e.labels is None else e[place].sample_names[0]
    groups = []
    for name, kind in chosen.items():
        found = [(rank, sample_of(e, place, rank, name)) for rank in ranks]
        panels = []
        shown = kind.input(found[0][1], look)
        if shown is not None:
            panels.append(_Panel("input", "", f"{called}, input {name}", shown))
        for rank, sample in found:
            told = _sum_of(sample.prediction, sample.base, e.total()[(place, rank) if e.several else place])
            about = f"{name} for {sample.target}" if sample.target is not None else name
            alt = f"{kind.name}: attributions of {called} to {about}, sum {sample.values.sum():+.4g}"
            panels.append(
                _Panel(
                    (sample.target or "explained output") if e.several else "attributions",
                    told if e.several else "",
                    alt,
                    kind.draw(e, place, rank, name, look, ends[name]),
                )
            )
        groups.append((name, panels))
    record = next(r for r in e[place].records())
    return {
        "place": place,
        "called": called,
        "target": None if e.several else record["target"],
        "told": "" if e.several else _sum_of(record["prediction"], record["base_value"], record["sum"]),
        "state": _state([share_lost(r) for r in e[place].records()]),
        "left": (e.total().shape[1] if e.several else 1) - len(ranks),
        "groups": groups,
    }


def _shades(samples: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """A class of the page's style for each colour of words, and the ink on it: the policy allows no other."""
    panels = (panel for sample in samples for _, found in sample["groups"] for panel in found)
    words = (word for panel in panels if isinstance(panel.shown, tuple) for word in panel.shown)
    inks = {word.shade: word.ink for word in words}
    return {shade: (f"w{i}", ink) for i, (shade, ink) in enumerate(sorted(inks.items()))}


def _ranks(e: Explanation, place: int) -> list[int]:
    """Which of a sample's classes are drawn, those of the largest outputs where there are many."""
    if not e.several:
        return [0]
    count = e.total().shape[1]
    if count <= _CLASSES or e.target_values is None:
        return list(range(min(count, _CLASSES)))
    return [int(rank) for rank in np.argsort(-e.target_values[place], kind="stable")[:_CLASSES]]


def _end(e: Explanation, kind: Kind, name: str, drawn: range, look: Look) -> float:
    """Where the page's colour scale for one tensor ends."""
    found = [
        kind.magnitude(sample_of(e, place, rank, name), look) for place in drawn for rank in _ranks(e, place)
    ]
    return max(found, default=0.0) or 1.0


def _together(e: Explanation, chosen: Mapping[str, Kind], look: Look) -> list[tuple[str, Shown]]:
    """Pictures of all samples, where one class is explained for each."""
    if e.several:
        return []
    return [
        (f"{head}: {name}" if len(chosen) > 1 else head, shown)
        for name, kind in chosen.items()
        for head, shown in kind.together(e, 0, name, look)
    ]


def _sum_of(prediction: Any, base: Any, total: Any) -> str:
    if prediction is None or base is None:
        return f"attributions sum to {_number(total)}"
    sign = "−" if total < 0 else "+"
    return f"{_number(prediction)} = {_number(base)} {sign} {_number(abs(total))}"


def _number(value: Any) -> str:
    return f"{float(value):.5g}".replace("-", "−")


def _state(shares: Sequence[float | None]) -> tuple[str, str]:
    """How exactly a sample's attributions sum up: a class of the page's style, and words."""
    told = [share for share in shares if share is not None]
    if not told:
        return "none", "no sum to check"
    # numpy's largest is NaN where one is, which is no exact sum
    most = float(np.max(told))
    return ("exact", "sums up") if most <= EXACT else ("off", f"sum off by {100 * most:.2g} %")


def _row(record: Mapping[str, Any], drawn: int) -> dict[str, Any]:
    share = share_lost(record)
    numbers = [(record[key], f"{{:.{digits}}}") for key, digits in _COLUMNS]
    cells = [_cell(value, form) for value, form in [*numbers, (share, "{:.1e}")]]
    return {
        "sample": record["sample"],
        "label": record["label"],
        "drawn": record["sample"] < drawn,
        "target": record["target"],
        "cells": cells,
        "state": _state([share])[0],
    }


_COLUMNS = (("prediction", "6g"), ("base_value", "6g"), ("sum", "6g"), ("error", "1e"))


def _cell(value: Any, form: str) -> tuple[str, str]:
    """A number to sort by, and how it is shown."""
    if value is None:
        return "", "–"
    return repr(float(value)).replace("inf", "Infinity"), form.format(float(value)).replace("-", "−")


def _tiles(e: Explanation, records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    shares = [share for share in map(share_lost, records) if share is not None]
    found = [("samples", str(len(e)))]
    if (names := e.target_names) is not None:
        distinct = sorted(set(map(str, names.ravel())))
        few = len(distinct) <= 3 and sum(map(len, distinct)) <= 24
        found.append(("explained", ", ".join(distinct) if few else f"{len(distinct)} classes"))
    if shares:
        within = sum(share <= EXACT for share in shares)
        found.append(("sum up to f(x) − base", f"{within} of {len(shares)}"))
        found.append(("largest error, of f(x) − base", f"{np.max(shares):.1e}".replace("-", "−")))
    return found


def _scale(name: str, kind: Kind, end: float) -> dict[str, Any]:
    return {
        "name": name,
        "legend": kind.legend,
        "end": f"{end:.3g}" if kind.scaled else None,
        "against": AGAINST,
        "for": FOR,
    }
