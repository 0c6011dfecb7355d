"""`irshap print` and `irshap opt`: the IR as text, out of a model and through passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irshap.cli.compile import VERIFY
from irshap.cli.output import require_folder
from irshap.errors import PipelineError, UserError
from irshap.files import atomic

__all__ = ["opt_command", "print_command"]


@click.command("print")
@click.argument("model")
@click.option("--passes", default="lift", show_default=True, metavar="PIPELINE", help="Passes to run before.")
@click.option(
    "--full", is_flag=True, help="Print large constants too; without it the text can't be read back."
)
@click.option("--output", "-o", metavar="FILE.ir", help="Write to this file.")
@click.option("--graph", metavar="OUT.svg", help="Draw it instead: .svg, .png or .pdf; needs graphviz.")
def print_command(model: str, passes: str, full: bool, output: str | None, graph: str | None) -> None:
    """Print MODEL in irshap's IR, or draw it."""
    from irshap.cli.programs import read_program
    from irshap.text import print_graph
    from irshap.text.drawing import FORMATS, draw_graph

    require_folder(output)
    require_folder(graph)
    if graph is not None and output is not None:
        raise UserError("--graph draws instead of printing", mend="leave --output out")
    kind = Path(graph or "").suffix.removeprefix(".").lower()
    if graph is not None and kind not in FORMATS:
        raise UserError("names no kind of drawing", where=graph, mend=f"end it with .{', .'.join(FORMATS)}")
    program = read_program(model, passes)
    if graph is None:
        _emit(print_graph(program, elide=not full), output)
        return
    drawing = draw_graph(program, kind)
    with atomic(graph) as file:
        file.write(drawing)


@click.command("opt")
@click.argument("file", metavar="FILE.ir")
@click.option("--passes", required=True, metavar="PIPELINE", help="The passes to run.")
@click.option(
    "--references", "-r", metavar="REFS", help="References for bind-references: .npy, or .npz by input."
)
@click.option("--weights", metavar="W.npy", help="A weight for each reference.")
@click.option(
    "--verify", type=VERIFY, default="types", show_default=True, help="What is checked after each pass."
)
@click.option("--print-after", multiple=True, metavar="PASS", help="Print the IR after this pass, or all.")
@click.option("--time-passes", is_flag=True, help="Print the time that each pass took.")
@click.option("--elide", is_flag=True, help="Show large constants by their type alone.")
@click.option("--output", "-o", metavar="FILE", help="Write to this file; needed for a model.")
def opt_command(
    file: str,
    passes: str,
    references: str | None,
    weights: str | None,
    verify: Any,
    print_after: tuple[str, ...],
    time_passes: bool,
    elide: bool,
    output: str | None,
) -> None:
    """Run passes on IR text (- for standard input) and print the result."""
    from irshap.checks.instruments import watching
    from irshap.cli.programs import parse_program, read_text
    from irshap.compiler.catalog import PassManager
    from irshap.compiler.references import check_weights
    from irshap.ir.core import Graph
    from irshap.pipeline.base import Context
    from irshap.text import print_graph

    require_folder(output)
    names: Any = "all" if "all" in print_after else print_after
    from irshap.cli.progress import PassProgress

    progress = PassProgress()
    watched = watching(verify=verify, print_after=names, time_passes=time_passes)
    manager = PassManager.from_text(passes, [*watched, progress])
    if manager.passes[-1].gives != "graph" and output is None:
        raise PipelineError(f"pass {manager.passes[-1].name} gives a model", mend="give --output for it")
    graph = parse_program(read_text(file))
    context = Context(references=_references(references, graph))
    count = next((len(array) for array in context.references.values()), 0)
    context.weights = check_weights(weights, count)
    with progress:
        result = manager.run(graph, context)
    if isinstance(result, Graph):
        _emit(print_graph(result, elide=elide), output)
    elif output is not None:
        from irshap.lowering.files.save import save_model

        save_model(result, output)


def _references(source: str | None, graph: Any) -> dict[str, Any]:
    if source is None:
        return {}
    from irshap.compiler.references import check_references
    from irshap.ops.program import Input

    inputs = {}
    for value in graph.inputs:
        op = value.node.op
        if isinstance(op, Input) and op.kind in ("model", "references"):
            inputs[op.of or op.name] = value.tensor
    wanted = {
        v.node.op.of for v in graph.inputs if isinstance(v.node.op, Input) and v.node.op.kind == "references"
    }
    return check_references(source, inputs, {w for w in wanted if w})


def _emit(text: str, output: str | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    with atomic(output) as file:
        file.write(text.encode())
