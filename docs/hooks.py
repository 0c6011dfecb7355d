"""Hooks of mkdocs: the pages of docs/ as mkdocs wants them."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`python alone` and `python with ...` are for tests/test_docs.py, which runs the blocks."""
    return re.sub(r"^```python (alone|with .+)$", "```python", markdown, flags=re.MULTILINE)
