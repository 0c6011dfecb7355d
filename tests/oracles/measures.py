"""Measures of attributions as their authors define them, in plain loops over samples and pixels.

`f` takes samples [n, C, H, W] and gives outputs [n, classes]; `a` is what one sample got, [C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


def reflected(place: int, length: int) -> int:
    """The place inside 0 ... length - 1 that one beyond the edge mirrors, the edge itself not repeated."""
    while not 0 <= place < length:
        place = -place if place < 0 else 2 * (length - 1) - place
    return place


def blurred(x: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """[C, H, W], pixel by pixel over a size x size kernel."""
    half = size // 2
    kernel = np.array(
        [
            [exp(-((u / (2 * sigma)) ** 2)) * exp(-((v / (2 * sigma)) ** 2)) for v in range(-half, half + 1)]
            for u in range(-half, half + 1)
        ]
    )
    kernel /= kernel.sum()
    channels, height, width = x.shape
    rows = [[reflected(i + u, height) for u in range(-half, half + 1)] for i in range(height)]
    columns = [[reflected(j + v, width) for v in range(-half, half + 1)] for j in range(width)]
    found = np.zeros(x.shape)
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                found[c, i, j] = (x[c][np.ix_(rows[i], columns[j])] * kernel).sum()
    return found


def area(shares: list[float], scores: list[float]) -> float:
    return sum(
        (b - a) * (s + t) / 2 for a, b, s, t in zip(shares, shares[1:], scores, scores[1:], strict=False)
    )


def keep_or_remove(
    f: Function,
    x: np.ndarray,
    a: np.ndarray,
    background: np.ndarray,
    target: int,
    label: int,
    kind: str,
) -> float:
    """KPM, KNM, KAM and RAM of one sample: kind is keep-positive, keep-negative, keep- or remove-absolute."""
    flat = a.mean(axis=0).ravel()
    which = kind.split("-")[1]
    p = [max(v, 0) if which == "positive" else max(-v, 0) if which == "negative" else abs(v) for v in flat]
    there = [i for i in range(len(p)) if p[i] > 0]
    # sorted() keeps the order of what is equal
    order = sorted(there, key=lambda i: p[i] if kind.startswith("remove") else -p[i])
    shares = [float(q) for q in np.geomspace(0.01, 1, 16)]
    scores = []
    for q in shares:
        image = background.copy()
        for i in order[: int(min(q * len(p), len(there)))]:
            row, column = divmod(i, x.shape[2])
            image[:, row, column] = x[:, row, column]
        outputs = f(image[None])[0]
        scores.append(float(outputs.argmax() == label) if which == "absolute" else float(outputs[target]))
    return area(shares, scores)


def game(
    f: Function, x: np.ndarray, a: np.ndarray, background: np.ndarray, target: int, *, inserts: bool
) -> float:
    """Insertion or deletion of one sample, pixel by pixel."""
    flat = a.mean(axis=0).ravel()
    order = sorted(range(len(flat)), key=lambda i: -flat[i])
    image, other = (background.copy(), x) if inserts else (x.copy(), background)
    scores = []
    for k in range(len(order) + 1):
        if k:
            row, column = divmod(order[k - 1], x.shape[2])
            image[:, row, column] = other[:, row, column]
        outputs = f(image[None])[0].astype(np.float64)
        scores.append(float(np.exp(outputs[target]) / np.exp(outputs).sum()))
    return area([k / len(order) for k in range(len(order) + 1)], scores)


def gini(a: np.ndarray) -> float:
    """Half the mean difference of two elements, over their mean."""
    flat = np.abs(a.astype(np.float64)).ravel()
    return float(np.abs(flat[:, None] - flat[None]).mean() / (2 * flat.mean()))
