"""`irshap diff`: what differs between two programs, or between what passes make of one."""

from __future__ import annotations

import click

from irshap.errors import PipelineError, UserError, printable

__all__ = ["diff_command"]


@click.command("diff")
@click.argument("a", metavar="A")
@click.argument("b", metavar="[B]", required=False)
@click.option(
    "--passes",
    multiple=True,
    metavar="PIPELINE",
    help="Passes to run before; a second one is for B.  [default: lift, or none for IR text]",
)
@click.option(
    "--context",
    "-U",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Equal statements around it.",
)
def diff_command(a: str, b: str | None, passes: tuple[str, ...], context: int) -> int:
    """Print what differs between the programs A and B, which are ONNX models or IR text (FILE.ir).

    Values are matched by what computes them, whatever their names are.  With A alone and --passes twice, what
    the second pipeline does beyond the first.  Exits with 1 where the programs differ.
    """
    from irshap.cli.programs import read_program
    from irshap.text.difference import difference

    if len(passes) > 2:
        raise PipelineError(f"{len(passes)} pipelines for two programs", mend="give --passes once or twice")
    if b is None and len(passes) < 2:
        mend = "give B, or --passes twice: irshap diff MODEL --passes lift --passes lift,canonicalize"
        raise PipelineError("there is one program to compare", mend=mend)
    if a == b == "-":
        raise UserError("standard input is one program", where="-", mend="give a file for the other")
    first, second = (passes[0], passes[-1]) if passes else (None, None)
    before, after = read_program(a, first), read_program(a if b is None else b, second)
    found = difference(before, after, context=context)
    for line in found.lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[0])
        click.secho(printable(line), fg=colour)
    if found.ops:
        told = ", ".join(f"{op} {before} to {after}" for op, (before, after) in found.ops.items())
        click.echo(f"ops: {told}")
    return 1 if found.lines else 0
