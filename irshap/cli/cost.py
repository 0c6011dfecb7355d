"""`irshap cost`: what explaining a model costs, and how many references fit, before anything is run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.options import compiling, explained_arguments
from irshap.cli.output import echo_json, require_folder, size_text, table
from irshap.errors import UserError
from irshap.files import atomic

if TYPE_CHECKING:
    from irshap.compiler.model import Model
    from irshap.compiler.references import References
    from irshap.cost.report import Report
    from irshap.pipeline.base import Pass
    from irshap.runtime.arrays import Arrays

__all__ = ["cost_command"]

_ROWS = 25
"""Layers that a table shows."""


_REFERENCES = click.option(
    "--references",
    "-r",
    default="10",
    show_default=True,
    metavar="R|REFS",
    help="How many, or a file of them.",
)


@click.command("cost")
@click.argument("model")
@partial(compiling, references=_REFERENCES)
@click.option(
    "--samples",
    "-n",
    type=click.IntRange(1),
    help="Samples a run.  [default: what --batch fixes, or 1]",
)
@click.option(
    "--device",
    "hardware",
    metavar="NAME",
    help="Estimate times on a device: V100-16GB, T4, A100-80GB, cpu:8x16GiB, ...",
)
@click.option("--each-pass", is_flag=True, help="Cost the program after each pass, too.")
@click.option("--single-run", is_flag=True, help="The session runs once: later runs may take more memory.")
@click.option("--layers", is_flag=True, help="Print a table by layer, too.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--html", metavar="FILE", help="Write a page with charts and tables.")
@click.option("--plot", metavar="PNG", help="Draw memory and work over R (needs matplotlib).")
def cost_command(
    references: str,
    samples: int | None,
    memory_limit: str | None,
    hardware: str | None,
    each_pass: bool,
    session: str,
    external_data: bool | None,
    single_run: bool,
    layers: bool,
    as_json: bool,
    html: str | None,
    plot: str | None,
    **said: Any,
) -> None:
    """Predict FLOPs, memory and the largest number of references of an explanation of MODEL.

    Compares the model alone, the unoptimized program (@naive; for methods that compare with references) and
    the pipeline's.  Memory is that of a process with ONNX Runtime on a CPU, beside what it was before; with a
    GPU as --device a rough figure for that device.  Options of `irshap compile` mean what they mean there.
    A training step (`irshap train-step`) is costed as it is, for so many samples and references.
    """
    from irshap.cost import Settings
    from irshap.cost.devices import device as named
    from irshap.cost.report import Query, report, report_of_step
    from irshap.runtime.sizes import parse_size

    for path in (html, plot):
        if path is not None:
            require_folder(path)
    on = None if hardware is None else named(hardware)
    limit = parse_size(memory_limit) if memory_limit is not None else None if on is None else on.memory
    settings = replace(Settings.of(session), device=on is not None and not on.name.lower().startswith("cpu"))
    if external_data:
        settings = replace(settings, external_over=0)
    if single_run:
        settings = replace(settings, runs=1)
    count = int(references) if references.isdecimal() else 0
    if not count and not Path(references).is_file():
        what = f"{references!r} is neither a number of references nor a file of them"
        raise UserError(what, mend="give how many there will be, or the path of a .npy or .npz file")
    if _is_step(said["model"]):
        _refuse_said({**said, "each_pass": each_pass})
        if not count:
            raise UserError("of a training step --references is how many", where=references)
        query = Query(count, samples or 1, limit, settings, on)
        found = report_of_step(said["model"], query, ",".join(said["dim"] or ()))
        _tell(said["model"], found, {"model": said["model"], **found.to_dict()}, layers, as_json, html, plot)
        return
    arguments = explained_arguments({**said, "references": None if count else references})
    given, fixed = arguments["references"], arguments["model"].fixed_batch
    if None not in (samples, fixed) and samples != fixed:
        raise UserError(f"--samples {samples} contradicts --batch {fixed}", mend="leave one of the two out")
    query = Query(count or given.count, samples or fixed or 1, limit, settings, on, each_pass)
    model, main, pipelines, groups = _asked(**arguments)
    found = report(model, query, pipelines, given.arrays, given.per_sample, groups)
    data = {"model": model, "pipeline": main, **found.to_dict()}
    _tell(model, found, data, layers, as_json, html, plot)


def _is_step(model: Any) -> bool:
    """Whether a file is a training step."""
    from irshap.contract import Metadata, metadata_of
    from irshap.lowering.files.load import load_model

    return Path(model).suffix == ".onnx" and Metadata.TRAINING in metadata_of(load_model(model))


def _refuse_said(options: dict[str, Any]) -> None:
    """Refuses what was asked for an explanation, where a training step is costed."""
    source = click.get_current_context().get_parameter_source
    for name in options.keys() - {"model", "dim"}:
        if source(name) is click.core.ParameterSource.COMMANDLINE:
            what = f"--{name.replace('_', '-')} is for an explanation, and the file is a training step"
            raise UserError(what, mend="leave it out, or cost the model that the step was made of")


def _tell(
    model: str,
    found: Report,
    data: dict[str, Any],
    layers: bool,
    as_json: bool,
    html: str | None,
    plot: str | None,
) -> None:
    if html is not None:
        _write_html(html, model, found, data)
    if plot is not None:
        from irshap.cost.chart import curves, png

        image = png(curves(found), Path(model).name)
        with atomic(plot) as file:
            file.write(image)
    if as_json:
        echo_json(data)
    else:
        _print(data, layers)


def _asked(
    model: Model, references: References, groups: str | None, **options: Any
) -> tuple[str, str, dict[str, tuple[Pass, ...]], Arrays]:
    """The model's file, the main pipeline's text, the passes of all by their texts, and groups of cells."""
    from irshap.compiler.references import read_groups
    from irshap.compiler.request import requested
    from irshap.pipeline.named import for_method

    method, passes = options["method"], options.pop("passes")
    given = {"per_sample": references.per_sample, "grouped": groups is not None}
    of_all: dict[str, Any] = {"reading": model.reading, **given}
    of_all |= {"weighted": references.weights is not None, "batch": model.fixed_batch}
    of_all |= {name: options.pop(name) for name in ("target", "method", "quantized")}
    options.pop("instruments")
    main = passes or for_method(method.points, options["device"])
    pipelines = {"@naive": requested(passes="@naive", **of_all)} if method.points.references else {}
    return (
        model.source,
        main,
        pipelines | {main: requested(passes=passes, **of_all, **options)},
        read_groups(groups),
    )


def _print(data: dict[str, Any], layers: bool) -> None:
    for heading, columns, rows in _tables(data, _ROWS):
        if heading.startswith("By layer") and not layers:
            continue
        click.echo(heading)
        table(columns, rows, numeric=range(1, len(columns)))
    for entry in data["uncosted"]:
        click.echo(f"not costed: {entry['node']}: {entry['reason']}")
    for note in data["notes"]:
        click.echo(f"note: {note}")
    if data["device"] is not None:
        click.echo(
            f"Times are lower bounds from the data sheet of {data['device']['name']}, not measurements."
        )


def _tables(data: dict[str, Any], most: int) -> list[tuple[str, list[str], list[list[str]]]]:
    n, r = data["samples"], data["references"]
    programs = data["programs"]
    columns = ["program", "nodes", "FLOP", "x inference", "moved", "file", "load", "peak memory"]
    rows = []
    for entry in programs:
        memory, times = entry["memory"], entry["times_inference"]
        row = [entry["name"], str(entry["nodes"]), flop_text(entry["flops"])]
        row += ["-" if times is None else f"{times:.2f}", size_text(entry["moved_bytes"])]
        row += [size_text(entry[k]) for k in ("file_bytes",)]
        row += [size_text(memory["load_peak"]), size_text(memory["peak"])]
        if data["memory_limit"] is not None:
            row += [size_text(entry["needed_bytes"]), _most(entry)]
        if data["device"] is not None:
            row.append(f"{1000 * entry['seconds_estimate']:.3g} ms")
        rows.append(row)
    if data["memory_limit"] is not None:
        columns += ["needs", f"most R in {size_text(data['memory_limit'])}"]
    if data["device"] is not None:
        columns.append("time, at least")
    tables = [(f"N = {n} samples, R = {r} references", columns, rows)]
    if data["strategies"]:
        tables.append(("Strategies", *_strategies(data)))
    formulas = [[p["name"], p["flops_formula"], p["file_bytes_formula"]] for p in programs]
    tables.append(("As formulas", ["program", "FLOP", "file, bytes"], formulas))
    where = [
        [p["name"], size_text(p["memory"]["live"]), size_text(p["stored_bytes"]), str(p["memory"]["at"])]
        for p in programs
    ]
    tables.append(
        ("Most bytes of tensors alive at once", ["program", "alive", "stored in the file", "at"], where)
    )
    for kind, key in (("By op", "by_op"), ("By layer", "by_layer")):
        groups = data[key]
        rows = [
            [g["name"], str(g["nodes"]), flop_text(g["flops"]), size_text(g["moved_bytes"])]
            for g in groups[:most]
        ]
        if len(groups) > most:
            rows.append([f"{len(groups) - most} more", "", "", ""])
        tables.append((f"{kind} ({programs[-1]['name']})", ["name", "nodes", "FLOP", "moved"], rows))
    return tables


def _strategies(data: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns = ["strategy", "file", "load", "peak memory", "beside mapped files"]
    rows = []
    for entry in data["strategies"]:
        memory = entry["memory"]
        row = [entry["name"], size_text(entry["file_bytes"])]
        row += [size_text(memory[key]) for key in ("load_peak", "peak", "private")]
        if data["memory_limit"] is not None:
            row += [size_text(entry["needed_bytes"]), _most(entry)]
        rows.append(row)
    if data["memory_limit"] is not None:
        columns += ["needs", f"most R in {size_text(data['memory_limit'])}"]
    return columns, rows


def _most(entry: dict[str, Any]) -> str:
    """The largest number of references within the limit; any where memory doesn't grow with it."""
    if "largest_references" not in entry:
        return "-"
    return "any" if entry["more_fit"] else str(entry["largest_references"] or "none")


def flop_text(count: int) -> str:
    """`8.21 G`."""
    size, unit = float(count), ""
    for larger in ("k", "M", "G", "T", "P"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}".strip()


def _write_html(path: str, model: str, found: Report, data: dict[str, Any]) -> None:
    from irshap.cost.chart import html_page

    page = html_page(f"Cost of explaining {Path(model).name}", found, _tables(data, 100))
    with atomic(path) as file:
        file.write(page.encode())
