"""`irshap report`: an explanation as one page of HTML, or as tables in the terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irshap.cli.labels import LABELS, read_labels
from irshap.cli.options import LAYOUT
from irshap.cli.output import require_folder, size_text, table
from irshap.cli.run import given_inputs, given_references
from irshap.contract import TARGET, Metadata
from irshap.errors import UserError, printable
from irshap.files import atomic

if TYPE_CHECKING:
    from irshap.runtime import Explanation

__all__ = ["report_command"]


@click.command("report")
@click.argument("explained")
@click.argument("samples", metavar="INPUTS")
@click.option(
    "--html", metavar="OUT.html", help="Write a page that needs nothing else.  [default: print tables]"
)
@click.option(
    "--kind",
    multiple=True,
    metavar="[INPUT=]KIND",
    help="image, table, tokens, sequence, series or bars: how an input is drawn; repeatable.  "
    "[default: guessed from shapes]",
)
@LAYOUT
@click.option("--letters", default="ACGT", show_default=True, help="Of one-hot sequences, in their order.")
@click.option(
    "--samples", "-n", "most", type=click.IntRange(1), default=50, show_default=True, help="How many to draw."
)
@click.option(
    "--features",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="How many bars, or columns of the table.",
)
@click.option("--title", help="The page's heading.  [default: the file's name]")
@click.option(
    "--names", metavar="FILE.json", help="Names of features, classes and tokens, over those in the file."
)
@LABELS
@click.option("--target", type=int, help="The class to explain, for a model compiled with --target input.")
@click.option(
    "--references", "-r", metavar="REFS", help="References, for a model that takes them at run time."
)
@click.option("--provider", multiple=True, metavar="NAME", help="As in `irshap run`.")
def report_command(
    explained: str,
    samples: str,
    html: str | None,
    kind: tuple[str, ...],
    layout: str,
    letters: str,
    most: int,
    features: int,
    title: str | None,
    names: str | None,
    labels: str | None,
    target: int | None,
    references: str | None,
    provider: tuple[str, ...],
) -> None:
    """Explain the samples in INPUTS with the compiled model EXPLAINED, and show what it says.

    With --html as one page: a table that can be sorted, attributions drawn by kind of input, how exactly
    they sum up, and the model card.
    """
    from irshap.cli.compile import read_names
    from irshap.report.card import facts
    from irshap.runtime import Explainer

    require_folder(html)
    said = _kinds(kind)
    drawn = {"--kind": kind, "--title": title, "--layout": layout != "auto", "--letters": letters != "ACGT"}
    if html is None and (alone := [option for option, given in drawn.items() if given]):
        raise UserError("says how a page is drawn", where=alone[0], mend="give --html OUT.html, too")
    called = read_labels(labels)
    explainer = Explainer(explained, list(provider) or None, names=read_names(names))
    given, named = given_inputs(samples, target, explainer.tensors.target or TARGET)
    if references is not None:
        named |= given_references(references, explainer.tensors.references)
    start = time.perf_counter()
    explanation = explainer(given, **named).with_labels(called)
    card = facts(explainer, explained, samples=len(explanation), seconds=time.perf_counter() - start)
    if html is None:
        _print(explanation, card, most, features)
        return
    from irshap.report.document import page
    from irshap.report.kinds import Look

    text = page(
        explanation,
        title=title or Path(explained).name,
        subtitle=_subtitle(explanation, explainer.metadata),
        card=card,
        kinds=said,
        look=Look(layout, letters, features),
        most=most,
    )
    # a file's name may be no text
    content = text.encode(errors="replace")
    with atomic(html) as file:
        file.write(content)
    click.echo(printable(f"{html}: {size_text(len(content))}, {len(explanation)} samples"))


def _kinds(given: tuple[str, ...]) -> dict[str, str]:
    """`image` for all inputs, or `name=image` for one; names may hold an equals sign."""
    pairs = [text.rpartition("=") for text in given]
    names = [name for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise UserError("the same input has two kinds", where="--kind", mend="give one for each")
    return {name: kind for name, _, kind in pairs}


def _subtitle(explanation: Explanation, metadata: dict[str, str]) -> str:
    count = metadata.get(Metadata.REFERENCES)
    against = f", against {count} references" if count else ""
    many = "1 sample" if len(explanation) == 1 else f"{len(explanation)} samples"
    return f"{many} explained{against}"


def _print(explanation: Explanation, card: list[tuple[str, str]], most: int, features: int) -> None:
    from irshap.report.document import share_lost

    shown = explanation[:most]
    pairs = zip(shown.records(), shown.largest(min(features, _COLUMNS)), strict=True)
    heads = ["sample", "target", "f(x)", "base", "sum", "error", "of f(x) - base", "largest attributions"]
    rows = [[*_cells(r), _number(share_lost(r), "1e"), _listed(found)] for r, found in pairs]
    table(heads, rows, numeric=range(2, 7))
    if len(explanation) > most:
        click.echo(f"... {len(explanation) - most} more samples (-n {len(explanation)})")
    table(["model card", ""], [[name, printable(text)] for name, text in card])


_COLUMNS = 3
"""How many of the largest attributions fit a line of a terminal."""


def _cells(record: dict[str, Any]) -> list[str]:
    numbers = [_number(record[key], "6g") for key in ("prediction", "base_value", "sum")]
    target = "-" if record["target"] is None else printable(str(record["target"]))
    return [printable(record["label"]), target, *numbers, _number(record["error"], "1e")]


def _number(value: Any, form: str) -> str:
    return "-" if value is None else f"{float(value):.{form}}"


def _listed(found: list[tuple[str, float]]) -> str:
    return ", ".join(f"{printable(name)} {value:+.3g}" for name, value in found)
