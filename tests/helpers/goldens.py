"""Golden files: a pipeline, the graph that it runs on, and the graph that it gives::

    // RUN: canonicalize,dce
    graph @g
    ...
    // ----
    graph @g
    ...

`pytest --refresh-golden` writes what the pipeline gives now below the separator.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from places import GOLDEN

from irshap.checks.instruments import VerifyTypes
from irshap.errors import UserError
from irshap.pipeline.base import Context
from irshap.pipeline.manager import PassManager
from irshap.text import parse_graph, print_graph

__all__ = ["FOLDER", "check_golden", "run_golden"]

FOLDER = GOLDEN
RUN, SEPARATOR, ERROR = "// RUN:", "// ----", "// ERROR:"


def run_golden(text: str, context: Context | None = None) -> tuple[str, str, str]:
    """Runs a golden file: its part up to the separator, what it expects below, and what comes now.

    A pipeline that refuses its input (an error of the user's) gives `// ERROR:` and the message.
    """
    head, _, expected = text.partition(f"\n{SEPARATOR}\n")
    runs = [line.removeprefix(RUN).strip() for line in head.splitlines() if line.startswith(RUN)]
    if len(runs) != 1:
        raise ValueError(f"a golden file has one line '{RUN} <pipeline>', found {len(runs)}")
    # outside of the `try`: a text that doesn't parse is a mistake in the file, not an outcome
    graph = parse_graph(head)
    try:
        found = print_graph(PassManager.from_text(runs[0], [VerifyTypes()]).run(graph, context))
    except UserError as error:
        found = f"{ERROR} {error}\n"
    return head, expected, found


def check_golden(file: Path, *, refresh: bool, context: Context | None = None) -> str | None:
    """None when `file` is right, or made right by `refresh`; otherwise the difference."""
    head, expected, found = run_golden(file.read_text(), context)
    if found == expected:
        return None
    if refresh:
        file.write_text(f"{head}\n{SEPARATOR}\n{found}")
        return None
    lines = difflib.unified_diff(
        expected.splitlines(), found.splitlines(), "expected", "found", lineterm="", n=2
    )
    return f"{file.name}: the pipeline gives another text (--refresh-golden accepts it):\n" + "\n".join(lines)
