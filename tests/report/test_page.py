"""The page of an explanation: what stands in it, that it needs nothing else, that no name is HTML."""

from __future__ import annotations

import json
import re
import sys
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explained import FEATURES, HOT, digits, letters, table, text, two
from shells import Shell

import irshap
from irshap import report
from irshap.errors import UserError
from irshap.report.card import facts
from irshap.report.document import share_lost
from irshap.report.kinds import KINDS, kinds_of

VOID = {"meta", "img", "br", "link", "input"}


class Document(HTMLParser):
    """A page's elements with their attributes, its text by element, and whether tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data)

    def count(self, tag: str, **attributes: str) -> int:
        asked = attributes.items()
        return sum(t == tag and all(a.get(k) == v for k, v in asked) for t, a in self.elements)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for t, attributes in self.elements if t == tag]


def test_a_page_of_digits() -> None:
    e = digits("argmax")
    page = report.page(e, title="Digits", subtitle="two of them", card=[("compiled by", "irshap")])
    document = Document(page)
    assert document.texts["h1"] == ["Digits"] and document.texts["title"] == ["Digits"]
    assert document.count("article") == len(e) == 2
    assert document.count("img") == 4  # each digit, and its map
    assert all(i["src"].startswith("data:image/png;base64,") and i["alt"] for i in document.all("img"))
    records = e.records()
    values = [a["data-value"] for a in document.all("td") if "data-value" in a]
    for place, record in enumerate(records):
        row = values[6 * place : 6 * place + 6]
        told = [record["sample"], record["prediction"], record["base_value"], record["sum"], record["error"]]
        np.testing.assert_allclose(np.array(row, np.float64), [*told, share_lost(record)], rtol=1e-6)
    assert page.count("sums up") == 2
    assert {"compiled by", "irshap"} <= {*document.texts["dt"], *document.texts["dd"]}
    assert document.count("a", href="#sample-1") == 1 and document.count("article", id="sample-1") == 1


def test_nothing_is_fetched_and_nothing_else_runs() -> None:
    page = report.page(text())
    document = Document(page)
    (policy,) = (a["content"] for a in document.all("meta") if "http-equiv" in a)
    assert policy is not None
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = b64encode(sha256(content.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"data:image[^\"]*", "", page))
    for tag, attributes in document.elements:
        assert "style" not in attributes and not [a for a in attributes if a.startswith("on")], tag
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")


RISKY = '"><script>alert(1)</script><img src=x onerror=alert(2)>&amp;'


@pytest.mark.parametrize("make", [table, digits, letters, two, text], ids=lambda f: f.__name__)
def test_names_are_text(make: Any) -> None:
    e = make()
    renamed = RISKY if len(e.inputs) == 1 else None
    names = irshap.Names((RISKY,) * 20, {}, {})
    if renamed:
        features = {renamed: (RISKY,) * e._values[e.inputs[0]].shape[-1]}
        tokens = {renamed: (RISKY,) * 300}
        e = replace(e, inputs=(renamed,), names=irshap.Names((RISKY,) * 20, features, tokens))
    else:
        e = replace(e, names=names)
    page = report.page(e, most=2, title=RISKY, subtitle=RISKY, card=[(RISKY, RISKY)])
    document = Document(page)
    assert Counter(t for t, _ in document.elements)["script"] == 1
    assert "<script>alert" not in page and "<img src=x" not in page
    assert {tag for tag, a in document.elements if "onerror" in a} == set()
    assert document.texts["h1"] == [RISKY]
    for picture in document.all("img"):
        kind, _, content = (picture["src"] or "").partition(";base64,")
        if kind == "data:image/svg+xml":
            svg = Document(b64decode(content).decode())
            assert not {"script", "img", "foreignObject"} & {t for t, _ in svg.elements}


def test_each_kind_is_guessed_and_can_be_said() -> None:
    for e, expected in (
        (table(), {"x": "table"}),
        (digits(), {"image": "image"}),
        (letters(), {"x": "sequence"}),
        (text(), {"tokens": "tokens"}),
        (two(), {"image": "image", "features": "table"}),
    ):
        assert {n: k.name for n, k in kinds_of(e, {}, report.Look()).items()} == expected
    series = replace(letters(), data=HOT + 0.5)
    assert kinds_of(series, {}, report.Look())["x"].name == "series"
    deep = replace(table()[:2], values=np.zeros((2, 2, 2, 2, 2)), data=np.zeros((2, 2, 2, 2, 2)))
    assert kinds_of(deep, {}, report.Look())["x"].name == "bars"
    for kind in KINDS:
        assert kinds_of(two(), {"": kind, "features": "bars"}, report.Look()) == {
            "image": KINDS[kind],
            "features": KINDS["bars"],
        }
    with pytest.raises(UserError, match=r"no kind of input is called 'pictures'. known: bars, image"):
        report.page(digits(), kinds={"": "pictures"})
    with pytest.raises(UserError, match=r"no attributed tensor 'imag'. did you mean image\?"):
        report.page(digits(), kinds={"imag": "image"})
    with pytest.raises(UserError, match=r"samples of shape \[5\] are no pictures"):
        report.page(table(), kinds={"": "image"})


def shades(page: str) -> dict[str, str]:
    return dict(re.findall(r"\.(w\d+)\{background:(#\w+);", page))


def test_colours_of_words_share_a_scale() -> None:
    e = text()
    document = Document(report.page(e))
    colours = shades(report.page(e))
    spans = [a for a in document.all("span") if a.get("title") is not None]
    assert len(spans) == e.values.size
    strongest = int(np.abs(e.values).argmax())
    assert colours[spans[strongest]["class"] or ""] in (report.drawing.FOR, report.drawing.AGAINST)
    for span, value in zip(spans, e.values.ravel(), strict=True):
        assert span["title"] == f"{value:+.4g}"
        red, blue = (int(colours[span["class"] or ""][i : i + 2], 16) for i in (1, 5))
        assert abs(value) < 0.02 * np.abs(e.values).max() or (red > blue) == (value > 0)


def test_what_does_not_sum_up_is_said() -> None:
    e = table()
    lost = replace(e, completeness_error=np.where(np.arange(len(e)) == 3, 0.1, e.completeness_error))
    page = report.page(lost, most=5)
    assert page.count("sum off by") == 1
    broken = replace(e, completeness_error=np.where(np.arange(len(e)) == 3, np.nan, e.completeness_error))
    assert report.page(broken, most=5).count("sum off by") == 1
    assert "no sum to check" in report.page(table("gradient"), most=2)


def test_many_samples_and_classes() -> None:
    page = report.page(table(), most=4)
    document = Document(page)
    assert document.count("article") == 4 and document.count("tr") == 31
    assert "The first 4 of 30" in page
    every = digits("all")
    document = Document(report.page(every))
    assert document.count("img") == 2 * (1 + 5)
    assert "5 more classes are in the table" in report.page(every)
    drawn = [t for t in document.texts["b"] if t != "input"]
    names = every.target_names[0][np.argsort(-every.target_values[0])[:5]]
    assert drawn[:5] == list(names)
    assert document.count("tr") == 1 + 20


def test_a_long_table_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irshap.report.document._ROWS", 7)
    page = report.page(digits("all"), most=1)
    assert Document(page).count("tr") == 1 + 7 and "The first 7 of 20 rows." in page
    assert "3 of 3 rows" not in report.page(letters(), most=1)


def test_the_same_page_for_the_same_explanation() -> None:
    for e in (table(), two()):
        assert report.page(e, most=2) == report.page(e, most=2)


def test_the_card_says_what_the_file_says(tmp_path: Path) -> None:
    compiled = irshap.compile(irshap.demo.model_path(), irshap.demo.references_path())
    compiled.save(tmp_path / "e.onnx")
    explainer = irshap.Explainer(tmp_path / "e.onnx")
    found = dict(facts(explainer, tmp_path / "e.onnx", samples=4, seconds=0.5))
    assert found["passes"] == compiled.pipeline
    assert found["references"] == "100"
    assert found["source model, SHA-256"] == explainer.metadata["irshap.model_sha256"]
    assert found["cost of this run"] == "125 ms a sample, 4 at once"
    assert found["file"].startswith("e.onnx, 2.")
    assert "CPUExecutionProvider" in found["run by"]
    assert "cost of this run" not in dict(facts(explainer))
    peak = json.loads(explainer.metadata["irshap.memory"])["peak"]
    said = f"{peak / 2**20:.1f} MiB for 1 sample at a time, by a session of ONNX Runtime on a CPU"
    assert found["peak memory, predicted"] == said
    # whatever else a file says there is left out
    for strange in ("", "no JSON", "[1]", '{"peak": "much", "samples": 1}'):
        explainer.metadata["irshap.memory"] = strange
        assert "peak memory, predicted" not in dict(facts(explainer))


def test_the_command(shell: Shell) -> None:
    model = irshap.demo.model_path()
    irshap.compile(model, irshap.demo.references_path(), target="top-3").save("e.onnx")
    np.save("x.npy", irshap.demo.digits()[0][:50])
    assert "out.html: " in shell.ok("report", "e.onnx", "x.npy", "--html", "out.html", "--title", "Fifty")
    content = Path("out.html").read_text(encoding="utf-8")
    assert len(content) < 5e6 and Document(content).count("article") == 50
    assert "<h1>Fifty</h1>" in content and "against 100 references" in content
    printed = shell.ok("report", "e.onnx", "x.npy", "-n", "2")
    assert "largest attributions" in printed and "image[0, " in printed and "... 48 more samples" in printed
    assert "source model, SHA-256" in printed
    for wrong, message in (
        (["--kind", "pictures", "--html", "o.html"], "no kind of input is called 'pictures'"),
        (["--kind", "image=bars", "--kind", "image=table"], "the same input has two kinds"),
        (["--kind", "image"], "--kind: says how a page is drawn. give --html OUT.html, too"),
        (["--title", "Ten"], "--title: says how a page is drawn"),
        (["--html", "none/o.html"], "its folder doesn't exist"),
        (["--names", "none.json"], "none.json: can't be read"),
    ):
        assert message in shell.refused("report", "e.onnx", "x.npy", *wrong)


def test_labels_stand_where_numbers_did(shell: Shell) -> None:
    e = digits("argmax").with_labels(["cat.png", "<dog>"])
    document = Document(report.page(e))
    heads = [text.strip() for text in document.texts["h3"]]
    assert heads == ["cat.png", "<dog>"] and document.texts["a"][1:] == heads
    alts = [image["alt"] or "" for image in document.all("img")]
    assert alts[0] == "cat.png, input image" and "of <dog> to image for" in alts[-1]
    assert [a["data-value"] for a in document.all("td") if "data-value" in a][::6] == ["0", "1"]
    irshap.compile(irshap.demo.model_path(), method="gradient").save("e.onnx")
    np.save("x.npy", irshap.demo.digits()[0][:2])
    Path("l.txt").write_text("cat.png\n<dog>\n", encoding="utf-8-sig")
    Path("l.json").write_text('["cat.png", "<dog>"]', encoding="utf-8")
    np.save("l.npy", ["cat.png", "<dog>"])
    for file in ("l.txt", "l.json", "l.npy"):
        printed = shell.ok("report", "e.onnx", "x.npy", "--labels", file)
        assert "\n cat.png " in printed and "\n <dog> " in printed
    shell.ok("report", "e.onnx", "x.npy", "--labels", "l.txt", "--html", "out.html")
    assert "&lt;dog&gt;" in Path("out.html").read_text(encoding="utf-8")
    Path("one.txt").write_text("cat.png", encoding="utf-8")
    Path("bad.json").write_text("[", encoding="utf-8")
    Path("bad.txt").write_bytes(b"\xff\xfe")
    Path("none.json").write_text("null", encoding="utf-8")
    for file, message in (
        ("one.txt", "1 labels for 2 samples. give one for each sample"),
        ("bad.json", "bad.json: is no JSON"),
        ("none.json", "none.json: is no list. write ["),
        ("bad.txt", "bad.txt: is no text. write a line for each sample, in UTF-8"),
        ("none.txt", "none.txt: can't be read: No such file"),
        ("none.npy", "labels none.npy: no such file"),
    ):
        assert message in shell.refused("report", "e.onnx", "x.npy", "--labels", file)


def test_without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match=r'a page needs jinja2. install it: pip install "irshap\[report\]"'):
        report.page(table(), most=1)


def test_names_of_features_reach_the_bars() -> None:
    images = Document(report.page(table(), most=3)).all("img")
    pictures = [b64decode((a["src"] or "").partition(",")[2]).decode() for a in images]
    assert all(name in picture for picture in pictures[2:] for name in FEATURES)
