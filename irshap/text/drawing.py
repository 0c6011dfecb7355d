"""A program as a drawing, by graphviz (the extra `graph`)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from irshap.errors import UserError
from irshap.ir.core import Graph, Node, Role, Value
from irshap.ir.walks import ancestors
from irshap.ops.program import Constant
from irshap.text.printer import Printer, print_op

__all__ = ["FORMATS", "draw_graph"]

FORMATS = ("svg", "png", "pdf")
"""What a drawing can be written as."""

_LONG = 60
_MEND = 'install both: pip install "irshap[graph]", and graphviz itself (its program dot) from your system'


def draw_graph(graph: Graph, kind: str = "svg") -> bytes:
    """The drawing of a program: ops from top to bottom with the types of what flows between them.

    What the model's own outputs need stands in one frame, what explains them in another.  Constants are told
    in the ops that read them.

    Args:
        kind: one of `FORMATS`.

    Raises:
        UserError: graphviz is missing, or fails.
    """
    try:
        graphviz = import_module("graphviz")
    except ImportError:
        raise UserError("drawing a graph needs graphviz", mend=_MEND) from None
    drawing = _drawn(graphviz, graph)
    try:
        return bytes(drawing.pipe(format=kind))
    except graphviz.ExecutableNotFound:
        raise UserError("graphviz's program dot is missing", mend=_MEND) from None
    except graphviz.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        mend = "print a smaller part of the model, or the text"
        raise UserError(f"dot failed: {said[0] if said else error}", mend=mend) from error


def _drawn(graphviz: Any, graph: Graph) -> Any:
    font = {"fontname": "Helvetica,Arial,sans-serif", "fontsize": "11"}
    boxes = {"shape": "box", "style": "rounded", **font}
    lines = {"color": "#777777", **font, "fontsize": "9"}
    drawing = graphviz.Digraph("program", graph_attr=font, node_attr=boxes, edge_attr=lines)
    printer = Printer(graph, elide=True)
    returned = {o.value for o in graph.outputs}
    inside = {v for n in graph.nodes if isinstance(n.op, Constant) for v in n.results if v not in returned}
    nodes = [n for n in (*(v.node for v in graph.inputs), *graph.nodes) if inside.isdisjoint(n.results)]
    places = {v: f"n{i}" for i, node in enumerate(nodes) for v in node.results}
    own = ancestors(o.value for o in graph.outputs if o.role is Role.MODEL)
    for part, of_model in (("forward", True), ("explain", False)):
        members = [n for n in nodes if of_model is not own.isdisjoint(n.results)]
        with drawing.subgraph(name=f"cluster_{part}") as frame:
            frame.attr(label=part if members else "", color="#bbbbbb", style="rounded")
            for node in members:
                _box(frame, node, places[node.results[0]], printer, inside, graphviz.escape)
    for node in nodes:
        for value in dict.fromkeys(node.operands):
            if value not in inside:
                drawing.edge(places[value], places[node.results[0]], graphviz.escape(str(value.type)))
    for i, output in enumerate(graph.outputs):
        drawing.node(f"o{i}", graphviz.escape(f"{output.name}\n{output.role.value}"), shape="ellipse")
        drawing.edge(places[output.value], f"o{i}", graphviz.escape(str(output.value.type)))
    return drawing


def _box(
    frame: Any, node: Node, place: str, printer: Printer, inside: set[Value], escape: Callable[[str], str]
) -> None:
    if node.op.is_input:
        lines, shape = [printer.value(node.results[0]), str(node.types[0])], "ellipse"
    else:
        told = (f"constant {v.type}" for v in dict.fromkeys(node.operands) if v in inside)
        lines, shape = [print_op(node.op, elide=True).splitlines()[0], *told], "box"
    text = "\n".join(line if len(line) <= _LONG else f"{line[: _LONG - 1]}…" for line in lines)
    # names come from a model: escaped, so that graphviz reads no markup in them
    frame.node(place, escape(text), shape=shape, tooltip=escape(printer.statement(node)))
