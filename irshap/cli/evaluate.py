"""`irshap evaluate`: how good attributions are, of one method or of several side by side."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.options import LAYOUT
from irshap.cli.output import echo_json, require_folder, table
from irshap.errors import UserError, printable
from irshap.files import atomic

if TYPE_CHECKING:
    from irshap.metrics.evaluate import Evaluation

__all__ = ["evaluate_command"]


@click.command("evaluate")
@click.argument("explained", nargs=-1, metavar="[NAME=]EXPLAINED...")
@click.option("--inputs", "-i", metavar="X", help="Samples: .npy [N, ...], or .npz by input.")
@click.option("--labels", "-l", metavar="Y.npy", help="The true class of each sample [N].")
@click.option(
    "--measures",
    "-m",
    metavar="TEXT",
    help="Such as 'keep-positive,insertion{steps=20}'.  [default: all that can be taken]",
)
@click.option(
    "--model",
    metavar="MODEL",
    help="What attributions from elsewhere (.npy, .npz) are of: the model, or an explained file of it.",
)
@click.option(
    "--target",
    type=click.Choice(["argmax", "label"]),
    default="argmax",
    show_default=True,
    help="The class that such attributions explain, and files that take it at run time.",
)
@click.option(
    "--baseline",
    metavar="TEXT",
    help="What hidden cells hold: blur{size=51,sigma=41}, mean, reference or constant{value=0}.  [default: "
    "each measure's own]",
)
@click.option("--references", "-r", metavar="REFS", help="For the baselines mean and reference.")
@LAYOUT
@click.option(
    "--batch", type=click.IntRange(min=1), default=64, show_default=True, help="The most samples in one run."
)
@click.option("--plot", metavar="FILE.png", help="Draw the curves of the measures that have one.")
@click.option("--list", "listing", is_flag=True, help="List the measures and baselines, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, with each sample's numbers.")
def evaluate_command(
    explained: tuple[str, ...],
    inputs: str | None,
    labels: str | None,
    plot: str | None,
    listing: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the attributions in EXPLAINED: compiled models, or arrays from any tool (.npy, .npz).

    A column for each, called NAME or after its file; ↑ and ↓ tell which way a measure is better.
    """
    from irshap.metrics.evaluate import evaluate
    from irshap.report.drawing import matplotlib

    if listing:
        _list(as_json)
        return
    if not explained or inputs is None:
        missing = "EXPLAINED" if not explained else "--inputs"
        raise UserError(f"{missing} is missing", mend="see irshap evaluate --help")
    require_folder(plot)
    if plot is not None:
        matplotlib("figure")  # says that it is missing before anything is measured
    found = evaluate(_named(explained), inputs, labels, **options)
    if plot is not None:
        with atomic(plot) as file:
            found.plot().savefig(file, format="png", metadata={"Software": "irshap"})
    if as_json:
        echo_json({**found.record(), "plot": plot})
        return
    _print(found)
    if plot is not None:
        click.echo(f"curves: {plot}")


def _named(given: tuple[str, ...]) -> dict[str, str]:
    """Files by what they are called."""
    found: dict[str, str] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = Path(text).stem, text
        if not name or not path:
            raise UserError("a name and a file belong together", where=text, mend="write NAME=EXPLAINED")
        if name in found:
            raise UserError(f"two are called {name!r}", where=path, mend="name them: NAME=EXPLAINED")
        found[name] = path
    return found


_SIGNS = {"higher": " ↑", "lower": " ↓", "": ""}


def _print(found: Evaluation) -> None:
    rows = [
        [column + _SIGNS[m.better], *(_cell(found.value(name, column)) for name in found.results)]
        for column, m in found.measures.items()
    ]
    heads = ["measure", *map(printable, found.results)]
    table(heads, rows, numeric=range(1, len(heads)))
    click.echo(f"{found.samples} samples; ↑ higher is better, ↓ lower")
    for where, why in found.reasons.items():
        click.echo(printable(f"- {where}: {why}"))


def _cell(value: float) -> str:
    return "-" if value != value else f"{value:.4g}"


def _list(as_json: bool) -> None:
    from irshap.metrics.baselines import BASELINES
    from irshap.metrics.measures import MEASURES
    from irshap.pipeline.options import options_of

    kinds: dict[str, dict[str, Any]] = {"measure": MEASURES, "baseline": BASELINES}
    listed = [
        {
            "kind": kind,
            "name": name,
            "meaning": inspect.getdoc(cls) or "",
            "options": ", ".join(o.text for o in options_of(cls).values()) or "-",
            "better": getattr(cls, "better", ""),
        }
        for kind, known in kinds.items()
        for name, cls in known.items()
    ]
    if as_json:
        echo_json(listed)
        return
    for kind in kinds:
        rows = [
            [row["name"] + _SIGNS[row["better"]], row["meaning"].splitlines()[0], row["options"]]
            for row in listed
            if row["kind"] == kind
        ]
        table([kind, "is", "options"], rows)
