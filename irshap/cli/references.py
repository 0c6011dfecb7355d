"""`irshap references`: makes references of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irshap.cli.output import require_folder
from irshap.errors import UserError
from irshap.files import atomic, write_npz

__all__ = ["references_command"]

KINDS = ("kmeans", "sample", "mean", "zeros", "blur", "shuffle", "dinucleotide-shuffle", "padding")
"""As irshap.compiler.making has them, which is imported when it is needed."""


@click.command("references")
@click.argument("data")
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    required=True,
    help="Centres of clusters with weights, rows, their mean, zeros, blurred or shuffled rows, or padding.",
)
@click.option("--count", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option(
    "--output", "-o", required=True, metavar="REFS", help="REFS.npy, or for several inputs REFS.npz."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@click.option("--pad", type=int, default=0, show_default=True, metavar="ID", help="The token of padding.")
@click.option("--sigma", type=float, help="Of the blur, in pixels.  [default: an eighth of the larger side]")
@click.option(
    "--per-sample",
    is_flag=True,
    help="COUNT references of each row [N, COUNT, ...], of a kind that changes rows: for `irshap run -r`.",
)
@click.option("--inputs", "-i", metavar="X", help="Samples that will be explained: warn of those among them.")
def references_command(
    data: str,
    kind: str,
    count: int,
    output: str,
    seed: int,
    pad: int,
    sigma: float | None,
    per_sample: bool,
    inputs: str | None,
) -> None:
    """Make references of DATA (.npy [N, ...], or .npz by input).

    With kmeans the weights of the clusters go to REFS.weights.npy, for `irshap compile --weights`.
    """
    import numpy as np

    from irshap.compiler.making import concerns, make_references

    require_folder(output)
    made = make_references(data, kind, count, seed=seed, pad=pad, sigma=sigma, per_sample=per_sample)
    wanted = ".npy" if set(made.arrays) == {""} else ".npz"
    if Path(output).suffix != wanted:
        raise UserError(
            f"these references go to a {wanted} file", where=output, mend=f"name it so: -o REFS{wanted}"
        )
    if wanted == ".npy":
        with atomic(output) as file:
            np.save(file, made.arrays[""], allow_pickle=False)
    else:
        write_npz(output, made.arrays)
    for name, array in made.arrays.items():
        click.echo(f"{output}: {f'{name} ' if name else ''}{array.dtype} {list(array.shape)}, {kind}")
    if per_sample:
        click.echo(
            "use them: irshap compile MODEL --per-sample --output EXPLAINED.onnx, then "
            f"irshap run EXPLAINED.onnx {data} --references {output}"
        )
        return
    use: list[Any] = ["--references", output]
    if made.weights is not None:
        weights = str(Path(output).with_suffix(".weights.npy"))
        with atomic(weights) as file:
            np.save(file, made.weights, allow_pickle=False)
        click.echo(f"{weights}: weights from {made.weights.min():.3g} to {made.weights.max():.3g}")
        use += ["--weights", weights]
    click.echo(f"use them: irshap compile MODEL {' '.join(use)} --output EXPLAINED.onnx")
    for concern in concerns(made, data, inputs):
        click.echo(f"warning: {concern}", err=True)
