"""Pages of `irshap report` in Chromium: bytes, time until they are open; and the picture for the docs.

    python tests/bench/report_pages.py [--resnet MODEL.onnx] [--picture docs/images/report.png]

Needs the extras `report` and `browser`, and a Chromium of the system.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from architectures import images
from browser import chromium
from playwright.sync_api import sync_playwright

import irshap
from irshap import demo, report

LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def pages(resnet: str | None) -> dict[str, str]:
    compiled = irshap.compile(demo.model_path(), demo.references_path())
    explainer = compiled.explainer()
    digits = explainer(demo.digits()[0][:50])
    told = {"title": "Digits", "subtitle": "50 samples explained, against 100 references"}
    found = {"50 digits": report.page(digits, card=report.facts(explainer), **told)}
    if resnet is not None:
        several = irshap.compile(resnet, images(3, 0), target="top-3").explainer()
        found["a picture, top 3 of ResNet18"] = report.page(several(images(1, 1)), title="ResNet18")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resnet")
    parser.add_argument("--picture")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        print("| page | size | opens in |\n|---|---|---|")
        for name, text in pages(asked.resnet).items():
            path = Path(folder, "page.html")
            path.write_text(text, encoding="utf-8")
            times = []
            for _ in range(5):
                page = browser.new_context(viewport={"width": 1180, "height": 1180}).new_page()
                page.goto(path.as_uri(), wait_until="load")
                times.append(page.evaluate(LOADED))
            print(f"| {name} | {len(text.encode()) / 1024:.0f} KiB | {median(times):.0f} ms |")
            if asked.picture and name == "50 digits":
                page.set_viewport_size({"width": 1180, "height": 1480})
                page.screenshot(path=asked.picture)
        browser.close()


if __name__ == "__main__":
    main()
