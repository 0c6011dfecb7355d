"""The page of docs/examples/web, built, served on loopback, and drawn on by a mouse."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from places import DOCS, ROOT

__all__ = ["STROKES", "build", "modules", "served", "stroke"]

_DRAWN = {
    0: ["50 10, 30 30, 28 60, 50 90, 70 60, 70 30, 50 10"],
    1: ["40 25, 55 10, 55 90"],
    2: ["30 25, 50 10, 70 25, 60 50, 30 88, 75 88"],
    3: ["30 20, 50 10, 65 20, 60 40, 45 48, 65 55, 70 75, 50 90, 30 82"],
    4: ["50 10, 25 55, 80 55", "60 35, 55 92"],
    5: ["70 12, 38 12, 34 45, 60 45, 68 65, 55 88, 30 85"],
    6: ["60 10, 38 40, 33 70, 50 90, 66 75, 55 58, 35 68"],
    7: ["25 15, 75 15, 45 90"],
    8: ["50 48, 32 30, 50 10, 66 30, 50 48, 32 70, 50 90, 68 70, 50 48"],
    9: ["65 35, 50 50, 36 35, 50 12, 65 30, 64 60, 50 90, 35 88"],
}
STROKES: dict[int, list[list[tuple[float, float]]]] = {
    digit: [[(int(x) / 100, int(y) / 100) for x, y in map(str.split, line.split(", "))] for line in lines]
    for digit, lines in _DRAWN.items()
}
"""Digits as lines: points (x, y) of the place to draw, from 0 to 1."""


def modules() -> Path | None:
    """Where npm put onnxruntime-web: in a folder of NODE_PATH, or here."""
    places = (*os.environ.get("NODE_PATH", "").split(os.pathsep), str(ROOT / "node_modules"))
    return next((Path(place) for place in places if place and Path(place, "onnxruntime-web").is_dir()), None)


def build(folder: Path, packages: Path) -> None:
    """Runs build.py, as the page's documentation says."""
    script = DOCS / "examples" / "web" / "build.py"
    command = [sys.executable, str(script), str(folder), "--modules", str(packages)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=env, check=True, capture_output=True, text=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of what `python -m http.server --directory folder` offers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def stroke(page: Any, points: list[tuple[float, float]]) -> None:
    """Draws a line by the mouse, and waits until it is explained."""
    box = page.locator("#pad").bounding_box()
    for place, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if not place:
            page.mouse.down()
    page.mouse.up()
    page.locator("#map[aria-busy=false]").wait_for()
