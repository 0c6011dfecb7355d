"""Pages in Chromium, driven by playwright and checked by axe-core (the extra `browser`)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["Opened", "browser", "needs_chromium", "require_readable"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # no sandbox: tests may run as root in a container
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page, what it complained of and asked for."""

    def __init__(self, browser: Any, address: str, scheme: str = "light") -> None:
        self.page = browser.new_context(color_scheme=scheme).new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address, wait_until="load")


def require_readable(page: Any, rules: set[str]) -> None:
    """Asserts that anyone can read a page, by axe-core's rules of WCAG; these had something to look at."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response
    assert [(v["id"], [n["html"][:80] for n in v["nodes"]]) for v in found["violations"]] == []
    assert {"color-contrast", "button-name", *rules} <= {rule["id"] for rule in found["passes"]}
