"""`irshap explain`: explains a data set into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.output import echo_json, table
from irshap.errors import CheckFailed, UserError, printable

if TYPE_CHECKING:
    from irshap.datasets import DatasetReport, Pixels
    from irshap.datasets.prepare import Prepared

__all__ = ["explain_command"]

SHOWN = 20
"""How many bad rows are printed."""


@click.command("explain")
@click.argument("explained")
@click.argument("data")
@click.option(
    "--output", "-o", required=True, metavar="OUT", help="The folder to write; its parent is there."
)
@click.option("--format", type=click.Choice(["parquet", "npy"]), default="parquet", show_default=True)
@click.option("--top", type=click.IntRange(min=1), help="Keep the largest attributions only, by magnitude.")
@click.option("--sum-over", metavar="AXES", help="Keep sums over these axes: 1 is the first of a row's.")
@click.option("--dtype", type=click.Choice(["float16", "float32", "float64"]), help="Of attributions.")
@click.option("--columns", is_flag=True, help="In Parquet a column for each feature, instead of lists.")
@click.option("--target", type=int, help="The class to explain, for a model compiled with --target input.")
@click.option("--references", "-r", metavar="REFS", help="For a model that takes them at run time.")
@click.option("--image-scale", metavar="FACTOR", help="What pixels 0..255 are multiplied by: 1/255.")
@click.option("--image-mean", metavar="M,M,M", help="Subtracted from scaled pixels, by channel.")
@click.option("--image-std", metavar="S,S,S", help="What they are then divided by.")
@click.option(
    "--max-error",
    type=click.FloatRange(min=0),
    help="List rows whose completeness error exceeds this times max(1, |f(x) - base|), and exit with 1.",
)
@click.option("--strict", is_flag=True, help="End at the first row with NaN, or beyond --max-error.")
@click.option("--batch", type=click.IntRange(min=1), help="Rows in a run of ONNX Runtime.  [default: chosen]")
@click.option("--shard-rows", type=click.IntRange(min=1), help="Rows in a shard.  [default: chosen]")
@click.option("--workers", type=click.IntRange(min=1), help="Sessions at a time.  [default: as cores]")
@click.option("--threads", type=click.IntRange(min=1), help="Of each session.  [default: 1]")
@click.option("--memory-limit", metavar="SIZE", help="What the process may take, such as 4GiB.")
@click.option("--provider", multiple=True, metavar="NAME", help="ONNX Runtime provider.  [default: CPU]")
@click.option("--engine", default="local", show_default=True, help="What runs the shards: local, or ray.")
@click.option("--address", metavar="HOST:PORT", help="Of Ray.  [default: this machine's, or a new one]")
@click.option("--verify", is_flag=True, help="Check finished shards instead: all digests, and rows of some.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def explain_command(
    explained: str, data: str, output: str, engine: str, verify: bool, as_json: bool, **given: Any
) -> None:
    """Explain all rows of DATA with the compiled model EXPLAINED, into the folder OUT.

    DATA is .npy, .npz, .parquet, .arrow, or a folder of .npy or images.  Run again, it goes on where it was;
    results of another model, of other data or options are never mixed.  Exits with 1 where rows are no good.
    """
    from irshap.cli.progress import RowProgress
    from irshap.datasets import explain_dataset

    options = _options(**given)
    if verify:
        _verify(explained, data, output, options, as_json)
        return

    def started(ready: Prepared) -> None:
        if ready.concern is not None:
            click.echo(f"warning: {ready.concern}", err=True)
        if not as_json and not ready.complete:
            click.echo(_start_line(ready))

    with RowProgress() as progress:
        report = explain_dataset(
            explained, data, output, engine=engine, progress=progress, started=started, **options
        )
    if as_json:
        echo_json({**vars(report), "plan": vars(report.plan)})
    else:
        _print(report)
    if report.bad:
        raise CheckFailed(f"{report.bad} of {report.rows} rows are no good", where=output)


def _options(
    *,
    sum_over: str | None,
    provider: Sequence[str],
    image_scale: str | None,
    image_mean: str | None,
    image_std: str | None,
    **others: Any,
) -> dict[str, Any]:
    """The options of `explain_dataset`; those that weren't given are left out."""
    found = {name: value for name, value in others.items() if value is not None}
    if sum_over is not None:
        found["sum_over"] = tuple(map(int, _numbers("--sum-over", sum_over, whole=True)))
    if provider:
        found["providers"] = list(provider)
    if (pixels := _pixels(image_scale, image_mean, image_std)) is not None:
        found["pixels"] = pixels
    return found


def _pixels(scale: str | None, mean: str | None, std: str | None) -> Pixels | None:
    from irshap.datasets import Pixels

    if scale is None:
        if mean is not None or std is not None:
            raise UserError("--image-mean and --image-std come with a scale", mend="add --image-scale 1/255")
        return None
    over, _, under = scale.partition("/")
    (factor,), (divisor,) = _numbers("--image-scale", over), _numbers("--image-scale", under or "1")
    if not divisor:
        raise UserError("divides by 0", where="--image-scale")
    by_channel = {"mean": mean, "std": std}
    numbers = {n: tuple(_numbers(f"--image-{n}", text)) for n, text in by_channel.items() if text is not None}
    return Pixels(factor / divisor, **numbers)


def _numbers(option: str, text: str, *, whole: bool = False) -> list[float]:
    try:
        return [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError:
        kind = "whole numbers" if whole else "numbers"
        raise UserError(f"{text!r} are no {kind}", where=option, mend="separate them by commas") from None


def _start_line(ready: Prepared) -> str:
    plan, rows = ready.job.plan, ready.job.source.rows
    sessions = f"{plan.workers} {'session' if plan.workers == 1 else 'sessions'}"
    threads = f"{plan.threads} {'thread' if plan.threads == 1 else 'threads'}"
    line = f"{'rows' if rows is None else f'{rows} rows'} in batches of {plan.batch}, {sessions} of {threads}"
    if ready.rate is not None and rows is not None:
        line += f", about {_time_text(rows / ready.rate)} at {ready.rate:.0f} rows a second"
    return line


def _print(report: DatasetReport) -> None:
    from irshap.datasets.manifest import NAME

    done = report.rows - report.found
    line = f"{printable(report.output)}: {report.rows} rows in {report.shards} shards"
    if report.found:
        line += f", {report.found} of them from before"
    if done:
        line += f"; {done} rows in {_time_text(report.seconds)} ({done / report.seconds:.0f} a second)"
    click.echo(line)
    if report.bad_rows:
        rows = [[str(r["row"]), str(r["why"]), _error(r)] for r in report.bad_rows[:SHOWN]]
        table(["row", "why", "error"], rows, numeric=(0, 2))
        if report.bad > SHOWN:
            click.echo(f"... {report.bad - SHOWN} more ({printable(str(Path(report.output, NAME)))})")


def _error(told: Mapping[str, Any]) -> str:
    return "-" if told["error"] is None else f"{told['error']:.1e}"


def _time_text(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _verify(explained: str, data: str, output: str, options: dict[str, Any], as_json: bool) -> None:
    from irshap.datasets import verify_dataset

    report = verify_dataset(explained, data, output, **options)
    if as_json:
        echo_json(vars(report))
    else:
        equal = "to the bit" if report.equal else "up to rounding"
        click.echo(
            f"{printable(output)}: {report.shards} shards compared with their digests, {report.rows} rows"
        )
        click.echo(f"computed again and equal {equal}" if not report.problems else "computed again")
        for problem in report.problems:
            click.echo(printable(problem))
    if report.problems:
        what = f"{len(report.problems)} of {report.shards} shards are damaged"
        raise CheckFailed(what, where=output, mend="run it again without --verify, which makes them anew")
