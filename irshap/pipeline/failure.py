"""The report of a failed pass: where it stood, and how to run it again from the program that it was given."""

from __future__ import annotations

import os
import shlex
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from irshap.errors import IrshapError, PassError
from irshap.ir.core import Graph, Node
from irshap.pipeline.base import Pass
from irshap.pipeline.text import pass_text
from irshap.text.printer import Printer, print_graph

__all__ = ["explain_failure"]

_AROUND = 2
_WIDTH = 160


def explain_failure(
    error: BaseException, instance: Pass, position: str, before: Any, after: Any = None
) -> PassError:
    """The error to raise instead of `error`, which the pass raised or which its verification found.

    Args:
        position: "3 of 8".
        before: what the pass was given; a graph is written to a file for the rerun.
        after: what it returned, if it got so far.
    """
    kind = "" if isinstance(error, IrshapError) else f"{type(error).__name__}: "
    verb = "failed" if after is None else "broke a promise"
    lines = [f"pass {instance.name} ({position}) {verb}: {kind}{error}"]
    graphs = [g for g in (after, before) if isinstance(g, Graph)]
    if (found := _locate(error, graphs)) is not None:
        graph, node = found
        lines += [
            f"  op      {node.op.mnemonic}",
            f"  types   ({', '.join(str(v.type) for v in node.operands)}) -> "
            f"({', '.join(map(str, node.types))})",
            f"  origin  {', '.join(node.origin) or 'none: made by a pass'}",
            f"  around  in the graph {'after' if graph is after else 'before'} the pass",
            *_statements(graph, node),
        ]
    dump = _dump(before) if isinstance(before, Graph) else None
    if dump is not None:
        lines.append(
            f"  rerun   irshap opt {shlex.quote(str(dump))} --passes {shlex.quote(pass_text(instance))}"
        )
    elif instance.takes == "model":
        lines.append(f"  rerun   irshap print MODEL --passes {shlex.quote(pass_text(instance))}")
    return PassError("\n".join(lines))


def _locate(error: BaseException, graphs: list[Graph]) -> tuple[Graph, Node] | None:
    """The node at which it failed: the one that the innermost frame was working on.

    Only a guess for the reader's eye; nothing depends on it.
    """
    home = {node: graph for graph in graphs for node in (*graph.nodes, *(v.node for v in graph.inputs))}
    frames = []
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            if isinstance(value, Node) and value in home:
                return home[value], value
    where = getattr(error, "where", None)
    for node, graph in home.items():
        if where and where in (", ".join(node.origin), node.label):
            return graph, node
    return None


def _statements(graph: Graph, node: Node) -> list[str]:
    with suppress(Exception):  # a graph that breaks the IR's invariants may not print
        printer = Printer(graph, elide=True)
        nodes = [*(v.node for v in graph.inputs), *graph.nodes]
        at = nodes.index(node)
        start = max(0, at - _AROUND)
        lines = [printer.statement(n) for n in nodes[start : at + _AROUND + 1]]
        return [f"    {'>' if start + i == at else ' '} {line[:_WIDTH]}" for i, line in enumerate(lines)]
    return ["      (the graph doesn't print)"]


def _dump(graph: Graph) -> Path | None:
    # A report must not fail itself: a full disk, or a graph too broken to print, only costs the rerun.
    with suppress(Exception):
        text = print_graph(graph)
        handle, name = tempfile.mkstemp(prefix="irshap-crash-", suffix=".ir")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        return Path(name)
    return None
