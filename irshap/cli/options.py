"""Options that several commands share: what is explained, and against what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["explained_arguments", "explaining"]

_F = TypeVar("_F", bound=Callable[..., Any])

_EXPLAINING = (
    click.option(
        "--references", "-r", metavar="REFS", help="Samples to compare with: .npy [R, ...], or .npz by input."
    ),
    click.option(
        "--target",
        default="argmax",
        show_default=True,
        metavar="argmax|INDEX|top-K|all|input",
        help="The class to explain; with input, the explained model takes it at run time.",
    ),
    click.option(
        "--rule",
        default="rescale",
        show_default=True,
        metavar="rescale|reveal-cancel|mixed",
        help="How deeplift treats ops that aren't linear.",
    ),
    click.option(
        "--passes", metavar="PIPELINE", help="Passes to run instead of the method's own, such as @naive."
    ),
    click.option(
        "--wrt",
        metavar="TENSORS",
        help="Attribute to these tensors, comma-separated.  [default: float inputs and tokens]",
    ),
    click.option(
        "--output-name",
        "--explain",
        "explain",
        metavar="NAME",
        help="The output to explain.  [default: the first float output]",
    ),
    click.option(
        "--context",
        multiple=True,
        metavar="TENSOR",
        help="An input or interior tensor that keeps the sample's value; repeatable.",
    ),
    click.option("--weights", metavar="W.npy", help="A weight for each reference.  [default: equal]"),
    click.option(
        "--on-incomplete",
        type=click.Choice(["error", "residual"]),
        default="error",
        show_default=True,
        help="Refuse an op without a complete rule, or leave its gap to completeness_error.",
    ),
)


def explaining(command: _F) -> _F:
    """Adds the options that say what is explained."""
    for option in reversed(_EXPLAINING):
        command = option(command)
    return command


def explained_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `irshap.compile` that such options mean."""
    renamed = {"explain": "output", "context": "context_inputs"}
    return {renamed.get(name, name): value for name, value in options.items()}
