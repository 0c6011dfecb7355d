"""What stands on `irshap.compile`, with flat options, named as on the command line: for tables of cases."""

from __future__ import annotations

from typing import Any

import irshap
from irshap.cli.options import explained_arguments
from irshap.compiler.compile import bound
from irshap.compiler.references import References
from irshap.compiler.request import requested
from irshap.metrics import completeness
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.instrument import Instrument
from irshap.pipeline.manager import PassManager
from irshap.pipeline.text import format_pipeline, parse_pipeline

_RENAMED = {"output": "explain", "context_inputs": "context"}


class Progress(Instrument):
    """Tells a listener with `starts(index, total, name)`."""

    def __init__(self, listener: Any) -> None:
        self.listener, self.total = listener, 0

    def begins(self, passes: Any) -> None:
        self.total = len(passes)

    def before(self, index: int, instance: Pass) -> None:
        self.listener.starts(index, self.total, instance.name)


def arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `irshap.compile` that flat options mean."""
    given = {_RENAMED.get(name, name): value for name, value in options.items()}
    if isinstance(given.get("emit"), str):
        given["emit"] = [given["emit"]]
    if "progress" in given:
        given["instruments"] = [Progress(given.pop("progress"))]
    return explained_arguments(given)


def compile(model: Any, references: Any = None, **options: Any) -> irshap.CompiledModel:
    return irshap.compile(model, **arguments({"references": references, **options}))


def run_passes(text: str, model: Any, references: Any, weights: Any = None) -> Any:
    """What a pipeline gives, with the references bound."""
    passes, context = parse_pipeline(text), Context()
    watched = bound(References(references, weights), context, passes)
    return PassManager(passes, [watched]).run(model, context)


def check_completeness(
    model: Any, references: Any, inputs: Any, *, tolerance: float | None = None, **options: Any
) -> completeness.Completeness:
    given = arguments({"references": references, **options})
    return completeness.check_completeness(model, inputs=inputs, tolerance=tolerance, **given)


def pipeline_text(**options: Any) -> str:
    """The pipeline that `irshap.compile` runs with these options."""
    given = {k: v for k, v in options.items() if k != "weighted"}
    flat = arguments(given)
    del flat["references"], flat["instruments"]
    return format_pipeline(requested(**flat, weighted=options.get("weighted", False)))
