"""`irshap compile`: a model and references in, one explained model out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.options import compiling, explained_arguments
from irshap.cli.output import echo_json, require_apart, require_folder, size_text, warn_incomplete
from irshap.contract import Metadata, metadata_of
from irshap.errors import UserError, printable
from irshap.files import size_on_disk

if TYPE_CHECKING:
    from irshap.compiler.compile import CompiledModel

__all__ = ["compile_command", "read_names"]

VERIFY = click.Choice(["none", "types", "numeric"])


@click.command("compile")
@click.argument("model")
@click.option("--output", "-o", required=True, metavar="OUT.onnx", help="The explained model to write.")
@compiling
@click.option(
    "--names", metavar="FILE.json", help="Names of features, classes and tokens, to store in OUT.onnx."
)
@click.option(
    "--verify", type=VERIFY, default="none", show_default=True, help="What is checked after each pass."
)
@click.option("--print-after", multiple=True, metavar="PASS", help="Print the IR after this pass, or all.")
@click.option("--time-passes", is_flag=True, help="Print the time that each pass took.")
@click.option("--verbose", "-v", is_flag=True, help="Say in a line what each pass does.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def compile_command(
    model: str, output: str, external_data: bool | None, as_json: bool, **options: Any
) -> None:
    """Compile MODEL into one ONNX file with its prediction and its attributions.

    The file has the outputs of MODEL, then INPUT_attributions for each attributed input, base_values and
    target_index.  It runs in ONNX Runtime; --for makes it one for others (docs/runtimes.md tells which).
    """
    start = time.perf_counter()
    require_folder(output)
    read = ("references", "weights", "groups", "names")
    require_apart(output, model, {f"the {what}": options[what] for what in read})
    compiled = _compile(model, **options)
    compiled.save(output, external_data=external_data)
    seconds = time.perf_counter() - start
    report = _report(compiled, output, seconds)
    warn_incomplete(report["metadata"])
    if as_json:
        echo_json(report)
    else:
        _print(report, compiled)


def read_names(file: str | None) -> Any:
    """What a file of names says, or None without one."""
    if file is None:
        return None
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", where=file) from error
    except (ValueError, RecursionError) as error:
        mend = 'write {"features": [...], "classes": [...]}'
        raise UserError(f"is no JSON: {error}", where=file, mend=mend) from error


def _compile(
    model: str, print_after: tuple[str, ...], names: str | None = None, **options: Any
) -> CompiledModel:
    from irshap.cli.progress import PassProgress
    from irshap.compiler.compile import compile as compile_model

    with PassProgress() as progress:
        return compile_model(
            **explained_arguments(
                {
                    **options,
                    "model": model,
                    "print_after": "all" if "all" in print_after else print_after,
                    "instruments": [progress],
                    "names": read_names(names),
                }
            ),
        )


def _report(compiled: CompiledModel, output: str, seconds: float) -> dict[str, Any]:
    from irshap.ir.core import Role

    # The lowered model leaves out the outputs that were only of use between passes.
    published = {o.name for o in compiled.lowered.graph.output}
    values = {o.name: str(o.value.type) for o in compiled.graph.outputs if o.name in published}
    attributed = {o.of: o.name for o in compiled.graph.outputs_of(Role.ATTRIBUTION)}
    return {
        "output": output,
        "bytes": size_on_disk(output),
        "nodes": len(compiled.lowered.graph.node),
        "opset": max((o.version for o in compiled.lowered.opset_import if not o.domain), default=None),
        "inputs": {str(v.name): str(v.type) for v in compiled.graph.inputs},
        "outputs": {o.name: values.get(o.name, "") for o in compiled.lowered.graph.output},
        "attributions": attributed,
        "metadata": metadata_of(compiled.lowered),
        **compiled.report.to_dict(),
        "strategy": None if compiled.choice is None else asdict(compiled.choice),
        "seconds": seconds,
    }


def _print(report: dict[str, Any], compiled: CompiledModel) -> None:
    click.echo(
        f"{report['output']}: {size_text(report['bytes'])}, {report['nodes']} nodes, opset {report['opset']}"
    )
    for kind in ("inputs", "outputs"):
        for name, type in report[kind].items():
            click.echo(printable(f"  {kind[:-1]:<8} {name} : {type}"))
    if Metadata.REFERENCES in report["metadata"]:
        click.echo(f"  against  {report['metadata'][Metadata.REFERENCES]} references")
    if held := report["metadata"].get(Metadata.HELD):
        click.echo(f"  held     at the sample's value: {printable(held)}")
    if compiled.sizes:
        listed = ", ".join(f"{name} = {size}" for name, size in compiled.sizes.items())
        click.echo(f"  fixed    {listed}: the file takes samples of this size alone")
    if uncovered := report["metadata"].get(Metadata.UNCOVERED):
        click.echo(f"  uncovered by any mask: {printable(uncovered)}")
    skipped = [r.verified for r in compiled.report.passes if "skipped" in r.verified]
    for why in dict.fromkeys(skipped):
        click.echo(f"  verified {why} ({skipped.count(why)} of {len(compiled.report.passes)} passes)")
    if memory := report["metadata"].get(Metadata.MEMORY):
        told = json.loads(memory)
        many = f"{told['samples']} sample{'' if told['samples'] == 1 else 's'} at a time"
        click.echo(f"  memory   about {size_text(told['peak'])} at its peak, {many}")
    if compiled.choice is not None:
        click.echo(f"  strategy {compiled.choice.reason}")
    click.echo(f"  passes   {compiled.pipeline}")
    click.echo(f"  time     {report['seconds']:.2f} s")
