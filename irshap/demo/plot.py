"""Draws digits beside their attributions.  Needs matplotlib (the extra `plot`)."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from irshap.demo import DemoResult

__all__ = ["draw"]

_MUTED, _WRONG = "#555555", "#b00020"


def draw(result: DemoResult, file: IO[bytes]) -> None:
    """Writes a PNG with a row for each digit: the image, then what each pixel adds to the predicted class.

    All rows share one symmetric scale: red pixels speak for the prediction, blue ones against it.
    """
    explanation = result.explanation
    assert not isinstance(explanation.values, dict)
    assert not isinstance(explanation.data, dict)
    assert explanation.target_index is not None
    assert explanation.target_values is not None
    assert explanation.base_values is not None
    images, values = explanation.data[:, 0], explanation.values[:, 0].astype(np.float64)
    count = len(images)
    scale = float(np.max(np.abs(values))) or 1.0

    # Inches; a figure of its own, without pyplot: no display is needed and no global state is touched.
    side, gap, margin, head, foot = 1.22, 0.14, 0.32, 1.02, 0.72
    width, height = 4.75, head + count * (side + gap) + foot
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)

    def text(x: float, y: float, what: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, what, va="center", **style)

    def box(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return x / width, 1 - (y + h) / height, w / width, h / height

    text(margin, 0.32, "Why this digit?", fontsize=14, weight="bold")
    against = f"{result.references} references"
    text(margin, 0.58, f"DeepLIFT against {against}, run by ONNX Runtime", fontsize=8.5, color=_MUTED)
    second, third = margin + side + gap, margin + 2 * (side + gap) + 0.06
    for x, heading in ((margin, "digit"), (second, "attributions")):
        text(x + side / 2, head - 0.12, heading, fontsize=8.5, color=_MUTED, ha="center")
    colors = LinearSegmentedColormap.from_list("attributions", ["#1746c8", "white", "#d3121f"])
    picture = None
    for i in range(count):
        y = head + i * (side + gap)
        digit, heat = figure.add_axes(box(margin, y, side, side)), figure.add_axes(box(second, y, side, side))
        digit.imshow(images[i], cmap="gray_r", vmin=0, vmax=1)
        picture = heat.imshow(values[i], cmap=colors, vmin=-scale, vmax=scale)
        for axes in (digit, heat):
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(edgecolor="#c8c8c8", linewidth=0.8)
        predicted, label = int(explanation.target_index[i]), int(result.labels[i])
        wrong = "" if predicted == label else f"  (is a {label})"
        color = _WRONG if wrong else "black"
        text(third, y + 0.3, f"predicted {predicted}{wrong}", fontsize=10, weight="bold", color=color)
        numbers = (
            f"f(x) {explanation.target_values[i]:>7.2f}\n"
            f"base {explanation.base_values[i]:>7.2f}\n"
            f"sum  {values[i].sum():>+7.2f}"
        )
        text(third, y + 0.78, numbers, fontsize=8.5, color=_MUTED, family="monospace", linespacing=1.35)
    assert picture is not None
    bar = figure.add_axes(box(margin, height - foot + 0.1, 2 * side + gap, 0.1))
    figure.colorbar(picture, cax=bar, orientation="horizontal", ticks=[-scale, 0, scale])
    bar.set_xticks([-scale, 0, scale], [f"{-scale:.2f}", "0", f"+{scale:.2f}"])
    bar.tick_params(labelsize=7.5, colors=_MUTED, length=2)
    meaning = "blue: against the prediction, red: for it (logits)"
    text(margin + side + gap / 2, height - 0.2, meaning, fontsize=7.5, color=_MUTED, ha="center")
    figure.savefig(file, format="png", metadata={"Software": "irshap"})
