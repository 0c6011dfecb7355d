"""The Python blocks of docs/ and README.md run, in order, as one program for each file.

Each file runs in a process of its own, so that an op or a pass which it adds is nowhere else.  Blocks
marked `python alone` run after the others, in another process, where irshap can't be imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

pytestmark = pytest.mark.slow

FENCE = re.compile(r"^ *```(.*)$")
BLOCKED = "import sys; sys.modules['irshap'] = None;"


def program(text: str, kind: str = "python") -> str:
    """The blocks of this kind, each line where the page has it: a traceback points into the page."""
    lines: list[str] = []
    inside: str | None = None
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence:
            inside = fence[1].strip() if inside is None else None
        lines.append(line if inside == kind and not fence else "")
    return "\n".join(lines) + "\n"


def pages() -> list[str]:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [f.relative_to(ROOT).as_posix() for f in files if program(f.read_text(encoding="utf-8")).strip()]


def run(script: Path, text: str, folder: Path) -> None:
    script.write_text(text, encoding="utf-8")
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, script], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize("page", pages())
def test_page_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    folder = tmp_path / "here"  # what a page writes; the repository's files are there as in its root
    (tmp_path / "page").mkdir()
    folder.mkdir()
    for name in ("tests", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    run(tmp_path / "page" / Path(page).name, program(text), folder)
    alone = program(text, "python alone")
    if alone.strip():
        lines = alone.splitlines()
        assert not lines[0]
        run(tmp_path / "page" / f"{Path(page).name} alone", "\n".join([BLOCKED, *lines[1:]]), folder)


def test_contributings_commands_run(tmp_path: Path) -> None:
    """CONTRIBUTING.md's `sh` blocks, in a folder with the repository's files."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in ("irshap", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = ["bash", "-euc", program(page, "sh")]
    done = subprocess.run(
        shell, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {f.name for f in (tmp_path / "build").iterdir()} == {"before.ir", "after.ir", "toy.ir"}
    assert "pullback" in (tmp_path / "build" / "before.ir").read_text()
    assert "pullback" not in (tmp_path / "build" / "after.ir").read_text()
    assert done.stdout.strip() in page  # what the page says is printed


EQUIPPED = re.compile(r"^```(python with (.+))$", re.MULTILINE)


@pytest.mark.parametrize("page", ["docs/from_shap.md", "docs/from_captum.md"])
def test_page_runs_with_other_packages(page: str, tmp_path: Path) -> None:
    """Blocks marked `python with PACKAGES` run where these are installed."""
    text = (ROOT / page).read_text(encoding="utf-8")
    ((kind, packages),) = set(EQUIPPED.findall(text))
    for package in packages.split(", "):
        pytest.importorskip(package)
    run(tmp_path / Path(page).name, program(text, kind), tmp_path)


def test_troubleshooting_quotes_messages() -> None:
    """Each message on the page is one that the sources have; names and numbers in it are three dots."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    terms = [line for line in page.splitlines() if line.startswith("`")]
    files = (file for top in ("irshap", "passes", "lowering") for file in (ROOT / top).rglob("*.py"))
    # a text that is broken over lines is one text
    sources = re.sub(r'"\s*\n\s*f?"', "", "\n".join(f.read_text(encoding="utf-8") for f in files))
    quoted = [
        re.escape(text).replace("…", r"\{.+?\}") for line in terms for text in re.findall(r"`(.+?)`", line)
    ]
    assert len(quoted) > 20
    assert [text for text in quoted if not re.search(text, sources)] == []


GALLERY = sorted((ROOT / "docs" / "examples" / "gallery").glob("*.py"))


@pytest.mark.parametrize("script", GALLERY, ids=lambda path: path.stem)
def test_gallery_runs(script: Path, tmp_path: Path) -> None:
    """Each script asserts what attributions must find, and writes a picture of the size that is committed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), "out.png"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    committed = ROOT / "docs" / "images" / "gallery" / f"{script.stem}.png"
    made, kept = (path.read_bytes()[:24] for path in (tmp_path / "out.png", committed))
    assert made == kept  # PNG's head, with width and height
    assert f"examples/gallery/{script.name}" in (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(f, link) for f in files for link in re.findall(r"\]\(([^)#]+)", f.read_text(encoding="utf-8"))]
    missing = [
        f"{f.name}: {link}" for f, link in links if "://" not in link and not (f.parent / link).exists()
    ]
    assert not missing


def test_a_program_keeps_its_lines() -> None:
    page = "# A page\n```python\na = 1\n```\n```\nno code\n```\n```python\nassert a == 1\n```\n"
    assert program(page).splitlines() == ["", "", "a = 1", "", "", "", "", "", "assert a == 1", ""]
    assert program("```python alone\nb\n```\n", "python alone").splitlines() == ["", "b", ""]
