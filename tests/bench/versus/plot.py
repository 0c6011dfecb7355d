"""Time and memory over the number of references, as a PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from versus.record import Record
from versus.systems import SYSTEMS

__all__ = ["draw"]

STYLES = {
    "default": {"color": "#1b6ca8", "marker": "o", "linewidth": 2.2},
    "naive": {"color": "#74a9cf", "marker": "s"},
    "opt-torch": {"color": "#31a354", "marker": "^"},
    "shap": {"color": "#d95f0e", "marker": "D"},
    "captum": {"color": "#c51b8a", "marker": "v"},
}
MIB = 1 << 20


def draw(record: Record, path: Path, title: Callable[[str], str]) -> None:
    """Two rows of panels, a column for each network: time by inference, and memory beyond the model."""
    mpl.use("Agg")
    from matplotlib import pyplot

    names = record.networks()
    figure, axes = pyplot.subplots(
        2, len(names), figsize=(3.4 * len(names) + 0.8, 6.4), sharex=True, squeeze=False
    )
    for column, name in enumerate(names):
        top, bottom = axes[0][column], axes[1][column]
        top.set_title(title(name))
        _lines(top, record, name, record.relative)
        _lines(bottom, record, name, record.beyond, scale=MIB)
        bottom.set_xlabel("references R")
    axes[0][0].set_ylabel("time / inference of 1 and R")
    axes[1][0].set_ylabel("peak memory beyond the model, MiB")
    handles, labels = axes[0][0].get_legend_handles_labels()
    columns = min(len(STYLES), max(2, 2 * len(names)))
    figure.legend(handles, labels, loc="lower center", ncols=columns, frameon=False)
    figure.tight_layout(rect=(0, 0.04 * -(-len(STYLES) // columns), 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _lines(
    panel: Any,
    record: Record,
    network: str,
    value: Callable[[str, int, str], float | None],
    scale: float = 1.0,
) -> None:
    for system, style in STYLES.items():
        found = [(c, v / scale) for c in record.counts(network) if (v := value(network, c, system))]
        label = SYSTEMS[system].title.replace("`", "")
        panel.plot([c for c, _ in found], [v for _, v in found], label=label, markersize=4, **style)
    panel.set_yscale("log")
    panel.set_xticks(record.counts(network))
    panel.grid(True, which="both", alpha=0.25)
