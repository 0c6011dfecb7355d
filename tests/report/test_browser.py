"""The page in a browser: Chromium, driven by playwright, with axe-core (the extra `browser`).

Skipped where one of them is missing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import browsing
import numpy as np
import pytest
from browsing import needs_chromium, require_readable
from explained import digits, letters, table, text, two

import irshap
from irshap import demo, report

pytestmark = [
    needs_chromium,
    pytest.mark.slow,
]
PAGES = {"digits": digits, "letters": letters, "table": table, "text": text, "two": two}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pages")
    for name, explanation in PAGES.items():
        page = report.page(explanation(), title=name, card=[("compiled by", "irshap")], most=4)
        (made / f"{name}.html").write_text(page, encoding="utf-8")
    return made


class Opened(browsing.Opened):
    """A page of a report."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        super().__init__(browser, path.as_uri(), scheme)

    def rows(self, column: int) -> list[str]:
        cells = self.page.locator(f"#sortable tbody tr td:nth-child({column + 1})")
        return [str(cell).strip() for cell in cells.all_inner_texts()]

    def sorts(self) -> list[str | None]:
        return [head.get_attribute("aria-sort") for head in self.page.locator("#sortable th").all()]


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_asked_for_and_nothing_goes_wrong(browser: Any, folder: Path, name: str) -> None:
    opened = Opened(browser, folder / f"{name}.html")
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [
        (folder / f"{name}.html").as_uri()
    ]
    broken = "images => images.filter(i => !(i.complete && i.naturalWidth > 0)).length"
    assert opened.page.eval_on_selector_all("img", broken) == 0
    # a style that the policy kept out would leave the page without one
    assert opened.page.eval_on_selector("body", "b => getComputedStyle(b).maxWidth") != "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_anyone_can_read_it(browser: Any, folder: Path, name: str, scheme: str) -> None:
    require_readable(Opened(browser, folder / f"{name}.html", scheme).page, set())


def test_keys_sort_the_table(browser: Any, folder: Path) -> None:
    opened = Opened(browser, folder / "table.html")
    e = table()
    keyboard = opened.page.keyboard
    keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.className") == "skip"
    while opened.page.evaluate("document.activeElement.innerText") != "f(x)":
        keyboard.press("Tab")
    keyboard.press("Enter")
    order = np.argsort(e.target_values, kind="stable")
    assert opened.rows(0) == [str(i) for i in order]
    assert opened.sorts() == [None, None, "ascending", None, None, None, None]
    assert opened.page.locator("#sorted").inner_text() == "sorted by f(x), ascending"
    keyboard.press("Space")
    assert opened.rows(0) == [str(i) for i in order[::-1]]
    assert opened.sorts()[2] == "descending"
    opened.page.get_by_role("button", name="sample").click()
    assert opened.rows(0) == [str(i) for i in range(len(e))]
    opened.page.get_by_role("link", name="3", exact=True).press("Enter")
    assert opened.page.evaluate("location.hash") == "#sample-3"


def test_names_are_sorted_as_people_do(browser: Any, tmp_path: Path) -> None:
    """Neither by their bytes, nor with 10 before 2."""
    names = ("class 10", "class 9", "Class 8", "été", "zoo", "bee", "class 1", "class 2", "ant", "Eel")
    page = report.page(replace(digits("all"), names=irshap.Names(names, {}, {})), most=1)
    (tmp_path / "all.html").write_text(page, encoding="utf-8")
    opened = Opened(browser, tmp_path / "all.html")
    opened.page.get_by_role("button", name="target").click()
    wanted = "ant, bee, class 1, class 2, Class 8, class 9, class 10, Eel, été, zoo"
    assert opened.rows(1) == [name for name in wanted.split(", ") for _ in range(2)]


def test_fifty_digits_open_quickly(browser: Any, tmp_path: Path) -> None:
    explainer = irshap.compile(demo.model_path(), demo.references_path()).explainer()
    page = report.page(explainer(demo.digits()[0][:50]))
    assert len(page.encode()) < 5e6
    (tmp_path / "fifty.html").write_text(page, encoding="utf-8")
    told = "performance.getEntriesByType('navigation')[0].loadEventEnd"
    # the quickest of some, because another process may have had the processor
    assert min(Opened(browser, tmp_path / "fifty.html").page.evaluate(told) for _ in range(4)) < 2000
