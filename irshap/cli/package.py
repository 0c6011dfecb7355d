"""`irshap package`: a folder that a server takes."""

from __future__ import annotations

from dataclasses import asdict

import click

from irshap.cli.output import echo_json
from irshap.errors import printable

__all__ = ["package_command"]

KINDS = ("triton", "kserve", "mlflow", "docker")
"""As irshap.serving has them, which is imported when it is needed."""


@click.command("package")
@click.argument("explained")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="The server that takes it.")
@click.option("--output", "-o", required=True, metavar="DIR", help="A new or an empty folder.")
@click.option("--name", metavar="NAME", help="Of the served model.  [default: the file's]")
@click.option(
    "--max-batch",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Triton joins so many samples.",
)
@click.option(
    "--instances", type=click.IntRange(min=1), default=1, show_default=True, help="How often Triton loads it."
)
@click.option("--gpu", is_flag=True, help="Triton runs it on a GPU.")
@click.option("--uri", metavar="URI", help="Where KServe finds the folder.  [default: pvc://models/NAME]")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def package_command(
    explained: str,
    kind: str,
    output: str,
    name: str | None,
    max_batch: int,
    instances: int,
    gpu: bool,
    uri: str | None,
    as_json: bool,
) -> None:
    """Write the folder that a server takes, with the compiled model EXPLAINED in it."""
    from irshap.serving import package

    made = package(explained, kind, output, name=name, batch=max_batch, instances=instances, gpu=gpu, uri=uri)
    if as_json:
        echo_json({**asdict(made), "folder": str(made.folder)})
        return
    click.echo(f"{made.folder}: {made.name}")
    for file in made.files:
        click.echo(f"  {printable(file)}")
    click.echo(f"start it: {made.start}")
