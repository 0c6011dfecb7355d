"""The Python blocks of docs/ and README.md run, in order, as one program for each file.

Each file runs in a process of its own, so that an op or a pass which it adds is nowhere else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^( *)```(.*)$")


def program(text: str) -> str:
    """The python blocks of a page, each line where the page has it: a traceback points into the page."""
    lines, language = [], None
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence:
            language = fence[2].strip() if language is None else None
        lines.append(line if language == "python" and not fence else "")
    return "\n".join(lines) + "\n"


def pages() -> list[str]:
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [f.relative_to(ROOT).as_posix() for f in files if program(f.read_text(encoding="utf-8")).strip()]


@pytest.mark.parametrize("page", pages())
def test_page_runs(page: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    script = tmp_path / page
    script.write_text(program((ROOT / page).read_text(encoding="utf-8")), encoding="utf-8")
    # Pages write files where they run; what they read of the repository they name from its root.
    for entry in ("irshap", "passes", "lowering", "tests", "pyproject.toml"):
        (tmp_path / entry).symlink_to(ROOT / entry)
    env = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_a_program_keeps_its_lines() -> None:
    page = "# A page\n```python\na = 1\n```\n```\nno code\n```\n```python\nassert a == 1\n```\n"
    assert program(page).splitlines() == ["", "", "a = 1", "", "", "", "", "", "assert a == 1", ""]
