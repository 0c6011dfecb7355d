"""The picture of docs/examples/web for the docs: a three, drawn by a mouse in Chromium.

    python tests/bench/web_page.py docs/images/web.png

Needs the extra `browser`, a Chromium of the system, and onnxruntime-web (NODE_PATH or ./node_modules).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import chromium
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from drawn import STROKES, build, modules, served, stroke


def main() -> None:
    packages = modules()
    if packages is None:
        sys.exit("onnxruntime-web isn't installed: npm install onnxruntime-web")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        build(Path(name), packages)
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        with served(Path(name)) as address:
            page = browser.new_page(viewport={"width": 1100, "height": 780})
            page.goto(address)
            page.locator("#map[data-seen]").wait_for()
            for line in STROKES[3]:
                stroke(page, line)
            page.screenshot(path=sys.argv[1])
        browser.close()


if __name__ == "__main__":
    main()
