"""`irshap axioms`: which axioms a method keeps, and an explained model, with counterexamples."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from irshap.cli.output import echo_json, table
from irshap.errors import UserError, printable

if TYPE_CHECKING:
    from irshap.metrics.axioms import Verdict

__all__ = ["axioms_command"]


@click.command("axioms")
@click.argument("explained", required=False)
@click.option(
    "--method",
    "-m",
    "methods",
    multiple=True,
    metavar="NAME{...}",
    help="A method to try, beside that of EXPLAINED; repeatable.",
)
@click.option("--inputs", "-i", metavar="X", help="Samples, on which EXPLAINED itself is tried, too.")
@click.option(
    "--other", metavar="OTHER", help="Another explained model, of the same function written otherwise."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def axioms_command(
    explained: str | None, methods: tuple[str, ...], inputs: str | None, other: str | None, as_json: bool
) -> None:
    """Try the axioms of attribution on small functions made for each, with the method of EXPLAINED.

    With --inputs also on EXPLAINED itself, as far as its samples can tell.  Trying finds counterexamples;
    that there is none among these proves nothing.
    """
    from irshap.metrics.axioms import method_of, try_file, try_method
    from irshap.pipeline.text import pass_text
    from irshap.runtime import Explainer

    if explained is None and not methods:
        raise UserError("nothing to try", mend="give an explained model, or --method NAME")
    if inputs is None and other is not None:
        raise UserError("--other needs samples to compare at", mend="give --inputs")
    if explained is None and inputs is not None:
        raise UserError("--inputs are for an explained model", mend="give EXPLAINED, or leave them out")
    named = list(methods)
    if explained is not None:
        named.insert(0, pass_text(method_of(Explainer(explained).metadata)))
    told = inputs is not None and explained is not None
    # first: what is wrong with a file shows before time is spent on methods
    last = {f"on {explained}": try_file(explained, inputs, other)} if told else {}
    found = {name: try_method(name) for name in dict.fromkeys(named)} | last
    if as_json:
        echo_json(
            {name: {axiom: asdict(verdict) for axiom, verdict in row.items()} for name, row in found.items()}
        )
    else:
        _print(found)


def _print(found: dict[str, dict[str, Verdict]]) -> None:
    axioms = list(next(iter(found.values())))
    table(["axiom", *map(printable, found)], [[a, *(str(row[a]) for row in found.values())] for a in axioms])
    for name, row in found.items():
        for axiom, verdict in row.items():
            if verdict.told:
                click.echo(printable(f"- {name}, {axiom}: {verdict.told}"))
