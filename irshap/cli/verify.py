"""`irshap verify`: do a model's attributions sum to f(x) - base, and if not, which op loses it?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.options import explained_arguments, explaining
from irshap.cli.output import echo_json, table
from irshap.errors import CheckFailed, printable

if TYPE_CHECKING:
    from irshap.metrics.completeness import Completeness

__all__ = ["verify_command"]


@click.command("verify")
@click.argument("model")
@click.option(
    "--method", default="deeplift", show_default=True, help="One that sums to f(x) - base, options in {}."
)
@click.option("--groups", metavar="G.npy", help="As in `irshap compile`.")
@explaining
@click.option(
    "--inputs", "-i", required=True, metavar="X", help="Samples to explain: .npy [N, ...], or .npz by input."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Error allowed, relative to max(|f(x) - base|, |f(x)|/1000).  [default: 1e-4, in float64 1e-9]",
)
@click.option(
    "--rows", type=click.IntRange(min=0), default=20, show_default=True, help="Rows of the table to print."
)
@click.option("--json", "as_json", is_flag=True, help="Print all rows as JSON.")
def verify_command(
    model: str,
    inputs: str,
    tolerance: float | None,
    rows: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile MODEL, explain the samples X, and check that attributions sum to f(x) - base.

    Of methods that sum up but for a quadrature or chance, such as integrated-gradients, what is left falls
    with their steps or samples: --tolerance says how much of it is allowed.  Where sums of others are beyond
    tolerance, every op's share of the difference is compared with what it was given, and the ops that lose
    most are named.  Exits with 1 then.
    """
    from irshap.cli.progress import PassProgress
    from irshap.metrics.completeness import check_completeness

    with PassProgress() as progress:
        arguments = explained_arguments({**options, "model": model, "instruments": [progress]})
        found = check_completeness(inputs=inputs, tolerance=tolerance, **arguments)
    if as_json:
        echo_json(_report(found))
    else:
        _print(found, rows)
    if not found.ok:
        count, size = int((~found.within).sum()), found.within.size
        raise CheckFailed(f"{count} of {size} completeness errors are beyond tolerance: {found.cause}")


def _records(found: Completeness) -> list[dict[str, Any]]:
    import numpy as np

    columns = {
        "target": found.target_index,
        "prediction": found.prediction,
        "base_value": found.base_values,
        "sum_of_attributions": found.total,
        "completeness_error": found.error,
        "allowed": found.allowed,
        "within": found.within,
    }
    return [
        {
            "sample": position[0],
            **{name: None if a is None else a[position].item() for name, a in columns.items()},
        }
        for position in np.ndindex(found.error.shape)
    ]


def _report(found: Completeness) -> dict[str, Any]:
    return {
        "ok": found.ok,
        "largest_error": float(abs(found.error).max()),
        "worst_sample": found.worst[0],
        "tolerance": found.tolerance,
        "runtime": found.runtime,
        "cause": found.cause,
        "losses": [asdict(loss) for loss in found.losses],
        "left_out": [{"where": gap.where, "reason": gap.reason} for gap in found.gaps],
        "held": found.held,
        "rows": _records(found),
    }


def _print(found: Completeness, rows: int) -> None:
    records = _records(found)
    heads = ["sample", "target", "prediction", "base value", "sum of attributions", "error", "allowed", ""]
    cells = [
        [
            str(r["sample"]),
            "-" if r["target"] is None else str(r["target"]),
            *(f"{r[k]:.6g}" for k in ("prediction", "base_value", "sum_of_attributions")),
            *(f"{r[k]:.1e}" for k in ("completeness_error", "allowed")),
            "ok" if r["within"] else "BEYOND",
        ]
        for r in records[:rows]
    ]
    table(heads, cells, numeric=range(len(heads) - 1))
    if len(records) > rows:
        click.echo(f"... {len(records) - rows} more rows (--rows {len(records)}, or --json)")
    worst, allowed = abs(found.error[found.worst]), found.allowed[found.worst]
    # the largest by what is allowed, which isn't the largest in the table
    told = f"worst error {worst:.1e} of {allowed:.1e} allowed, in sample {found.worst[0]}"
    click.echo(f"{told}; ran in {found.runtime}")
    if found.losses:
        click.echo("ops that lose most, in float64 (sum of m * (x - r) against g * (y - y0)):")
        lost = [[loss.where, f"{loss.gap:.2e}", f"{loss.flow:.2e}"] for loss in found.losses]
        table(["op", "lost", "of"], lost, numeric=(1, 2))
    if found.held:
        click.echo(f"held at the sample's value in both worlds: {printable(found.held)}")
    for gap in found.gaps:
        click.echo(f"left out on request: {gap.where}: {gap.reason}")
