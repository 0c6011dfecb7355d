"""Programs as commands read them: out of ONNX models, or of IR text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from irshap.errors import ParseError, PipelineError

if TYPE_CHECKING:
    from irshap.ir.core import Graph

__all__ = ["parse_program", "read_program", "read_text"]


def read_program(file: str, passes: str | None) -> Graph:
    """A program out of an ONNX model, or of IR text, after these passes; None: `lift`, or none.

    Raises:
        UserError: the file can't be read, or passes that give no program.
    """
    from irshap.cli.progress import PassProgress
    from irshap.compiler.catalog import PassManager
    from irshap.ir.core import Graph

    given: Graph | str = file
    if Path(file).suffix == ".ir" or file == "-":
        given = parse_program(read_text(file))
        if passes is None:
            return given
    progress = PassProgress()
    manager = PassManager.from_text(passes or "lift", [progress])
    if manager.passes[-1].gives != "graph":
        what = f"pass {manager.passes[-1].name} gives a model, which has no text"
        raise PipelineError(what, mend="leave it out, or use irshap compile")
    with progress:
        made = manager.run(given)
    assert isinstance(made, Graph)
    return made


def parse_program(text: str) -> Graph:
    """The program that a text from outside prints: passes may trust a graph only once it is checked.

    Raises:
        ParseError: it doesn't parse, or says what isn't so.
    """
    from irshap.checks.verifier import verify
    from irshap.errors import IRError
    from irshap.lowering.computed import MOST_COMPUTED, require_bounded
    from irshap.text import parse_graph

    graph = parse_graph(text)
    try:
        verify(graph)
    except IRError as error:
        raise ParseError(error.what, where=error.where, mend=error.mend) from None
    require_bounded(graph, MOST_COMPUTED, "Write the constants out: as large ones they raise the limit")
    return graph


def read_text(file: str) -> str:
    """IR text of a file, or of standard input ("-").

    Raises:
        ParseError: it can't be read, or is no text.
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ParseError(
            "is no text", where=file, mend="IR text comes from irshap print MODEL --full"
        ) from None
    except OSError as error:
        raise ParseError(f"can't be read: {error.strerror}", where=file) from None
