"""Hooks of mkdocs: the pages of docs/ as mkdocs wants them."""

from __future__ import annotations

from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`python alone` is for tests/test_docs.py, which runs the blocks; readers see Python."""
    return markdown.replace("```python alone\n", "```python\n")
