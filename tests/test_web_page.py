"""docs/examples/web in Chromium: strokes of a mouse and keys are read and explained as ONNX Runtime does.

Skipped where playwright, axe-core, a Chromium or the npm package onnxruntime-web is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing
import numpy as np
import pytest
from browsing import needs_chromium, require_readable
from drawn import STROKES, build, modules, served, stroke
from places import DOCS, ROOT

import irshap
from irshap.runtime import Explanation

PACKAGES = modules()
pytestmark = [
    needs_chromium,
    pytest.mark.skipif(PACKAGES is None, reason="npm's onnxruntime-web isn't in NODE_PATH or ./node_modules"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web")
    assert PACKAGES is not None
    build(made, PACKAGES)
    return made


class Opened(browsing.Opened):
    """The page, with what it shows."""

    def __init__(self, browser: Any, address: str, scheme: str = "light") -> None:
        super().__init__(browser, address, scheme)
        self.settle()

    def settle(self) -> None:
        self.page.locator("#map[data-seen][aria-busy=false]").wait_for()

    @property
    def state(self) -> str:
        return str(self.page.locator("#state").inner_text())

    @property
    def image(self) -> np.ndarray:
        """What the network saw, [1, 1, 8, 8]."""
        seen = self.page.locator("#map").get_attribute("data-seen").split(",")
        return np.array(seen, dtype=np.float32).reshape(1, 1, 8, 8)

    def number(self, place: str) -> float:
        return float(self.page.locator(place).inner_text().replace("−", "-").split()[0])

    @property
    def values(self) -> np.ndarray:
        """What the page has of the attributions of the explained class, [8, 8]."""
        held = self.page.locator("#map").get_attribute("data-values").split(",")
        return np.array(held, dtype=np.float32).reshape(8, 8)

    def colours(self) -> np.ndarray:
        """Each cell's colour in a corner, where no dot is, int [8, 8, 3]."""
        script = "map => [...map.getContext('2d').getImageData(0, 0, 288, 288).data]"
        drawn = np.array(self.page.eval_on_selector("#map", script)).reshape(288, 288, 4)
        return drawn[2::36, 2::36, :3]


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Opened]:
    with served(folder) as address:
        found = Opened(browser, address)
        yield found
        # one of Chromium's own, about reading pixels as this test does
        assert [text for text in found.complaints if "getImageData" not in text] == []
        assert {url.removeprefix(address) for url in found.requests} == {
            "", "page.css", "page.js", "samples.json", "digits.onnx", "ort/ort.wasm.min.mjs",
            "ort/ort-wasm-simd-threaded.mjs", "ort/ort-wasm-simd-threaded.wasm",
        }  # fmt: skip
        found.page.context.close()


def by_onnx_runtime(folder: Path, image: np.ndarray) -> Explanation:
    return irshap.Explainer(folder / "digits.onnx")(image)


def agrees(opened: Opened, folder: Path, target: int) -> None:
    """What the page holds and shows is what ONNX Runtime gives for the same pixels."""
    exact = by_onnx_runtime(folder, opened.image)
    wanted = exact.values[0, target, 0]
    largest = np.abs(exact.values).max()
    np.testing.assert_allclose(opened.values, wanted, atol=1e-4 * largest, rtol=0)
    assert opened.number("#fx") == pytest.approx(exact.outputs["logits"][0, target], abs=1e-3)
    assert opened.number("#base") == pytest.approx(exact.base_values[0, target], abs=1e-3)
    assert opened.number("#total") == pytest.approx(wanted.sum(), abs=1e-3)
    assert abs(opened.number("#error")) < 1e-4
    assert "exact" in str(opened.page.locator("#error").get_attribute("class"))
    assert opened.number("#high") == -opened.number("#low") == pytest.approx(largest, abs=6e-3)
    # one symmetric scale: white is 0, red and blue the largest
    share = np.abs(wanted / largest)[..., None]
    ends = np.where(wanted[..., None] > 0, [211, 18, 31], [23, 70, 200])
    assert np.abs(opened.colours() - (255 + (ends - 255) * share)).max() <= 1.5


def draw(opened: Opened, digit: int) -> None:
    for line in STROKES[digit]:
        stroke(opened.page, line)
    assert opened.state.startswith(f"The network reads {digit}.")
    assert opened.page.locator("#ranks :checked").get_attribute("value") == str(digit)


def test_strokes_are_read_and_explained(opened: Opened, folder: Path) -> None:
    assert opened.state.startswith("Nothing is drawn yet")
    for digit in STROKES:
        draw(opened, digit)
        assert 11 < opened.image.sum() < 24  # ink as the data has it: 19.6 on average
        agrees(opened, folder, digit)
        opened.page.get_by_role("button", name="Clear").click()
        opened.settle()


def test_any_class_is_explained(opened: Opened, folder: Path) -> None:
    draw(opened, 4)
    opened.page.get_by_role("radio", name="8").check()
    assert opened.state.startswith("The network reads 4; 8 is explained.")
    agrees(opened, folder, 8)
    opened.page.get_by_role("button", name="Explain the likeliest").click()
    agrees(opened, folder, 4)
    for _ in STROKES[4]:
        opened.page.get_by_role("button", name="Undo stroke").click()
    opened.settle()
    assert opened.state.startswith("Nothing is drawn yet")


def test_size_and_place_of_a_drawing_do_not_count(opened: Opened) -> None:
    (line,) = STROKES[3]
    stroke(opened.page, line)
    large = opened.image
    opened.page.get_by_role("button", name="Clear").click()
    stroke(opened.page, [(0.1 + x / 2, 0.4 + y / 2) for x, y in line])
    assert np.abs(opened.image - large).mean() < 0.02
    assert opened.state.startswith("The network reads 3.")


def test_keys_draw(opened: Opened, folder: Path) -> None:
    """A one: the pen goes up, is put down, and comes down again."""
    keyboard = opened.page.keyboard
    keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.id") == "pad"
    for _ in range(8):
        keyboard.press("ArrowUp")
    assert opened.state.startswith("Nothing is drawn yet")
    keyboard.press("Space")
    for _ in range(16):
        keyboard.press("ArrowDown")
    opened.settle()
    assert opened.state.startswith("The network reads 1.")
    agrees(opened, folder, 1)
    keyboard.press("Escape")
    opened.settle()
    assert opened.state.startswith("Nothing is drawn yet")
    # all else is reached, in order
    reached = []
    for _ in range(14):
        keyboard.press("Tab")
        focused = "document.activeElement"
        reached.append(opened.page.evaluate(f"{focused}.id || {focused}.textContent"))
    assert reached == ["undo", "clear", *map(str, range(10)), "", "follow"]
    opened.page.get_by_role("button", name="a written 5").press("Enter")
    opened.settle()
    assert opened.state.startswith("The network reads 5.")
    opened.page.locator("#ranks :checked").press("ArrowDown")
    assert "6 is explained" in opened.state
    agrees(opened, folder, 6)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anyone_can_read_it(browser: Any, folder: Path, scheme: str) -> None:
    with served(folder) as address:
        opened = Opened(browser, address, scheme)
        stroke(opened.page, STROKES[3][0])
        require_readable(opened.page, {"label"})
        opened.page.context.close()


@pytest.mark.parametrize("missing", ["digits.onnx", "ort", "samples.json"])
def test_what_is_missing_is_said(browser: Any, folder: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(folder, tmp_path / "web", ignore=shutil.ignore_patterns(missing))
    with served(tmp_path / "web") as address:
        page = browser.new_page()
        page.goto(address)
        page.locator("#state", has_text="couldn't be loaded").wait_for()
        page.close()


def test_what_is_missing_to_build_is_said(tmp_path: Path) -> None:
    command = [sys.executable, str(DOCS / "examples" / "web" / "build.py"), "out", "--modules", "none"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.search(r"npm install --prefix FOLDER onnxruntime-web", done.stderr)
    assert list(tmp_path.iterdir()) == []
