"""The program between passes with R still a symbol: what a cost in R is read from.

Binding references makes R a number, and folding them costs a forward pass over all of them.  Neither is
needed to know what the result would cost, so the passes that bind leave inputs in their place.  What
fold-references would store is told apart by looking (`irshap.cost.nodes.fixed_values`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from irshap.errors import PipelineError
from irshap.ir.core import Graph, Role
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.instrument import Instrument
from irshap.pipeline.manager import PassManager
from irshap.pipeline.text import parse_pipeline

__all__ = ["Stage", "explained", "run_unbound", "stages"]

STORING = ("fold-references", "stream")
"""The passes that compute while compiling what follows from the references alone."""


@dataclass(frozen=True)
class Stage:
    """The program after a pass.

    Attributes:
        name: the pass.
        graph: the program, with the references as inputs.
        stored: whether what follows from the references alone is computed while compiling.
        decided: whether attributions are in it, so that it could be lowered.
    """

    name: str
    graph: Graph
    stored: bool

    @property
    def decided(self) -> bool:
        """Whether attributions are in it."""
        return bool(self.graph.outputs_of(Role.ATTRIBUTION))


def stages(
    model: Any,
    passes: str = "@default",
    options: dict[str, Any] | None = None,
    *,
    expected: int = 0,
    exact: bool = False,
) -> list[Stage]:
    """Runs a pipeline on a model (a path, bytes or a ModelProto) without binding references.

    Args:
        passes: the pipeline's text.
        options: arguments of `irshap.compile` that set options of passes (target, wrt, ...).
        expected: how many references the program is made for, 0 for any number: chunks depend on it.
        exact: whether it is for that number alone: few references need no loop.

    Returns:
        The program after each pass, the first being the model itself after `lift`.
    """
    from irshap.compiler.compile import pipeline_text

    given = parse_pipeline(pipeline_text(passes=passes, **(options or {})))
    if not given or given[0].takes != "model":
        raise PipelineError("a cost is that of a model's program", where="pipeline", mend="begin with lift")
    kept = [p for p in given if p.gives == "graph"]
    return run_unbound(kept, model, expected=expected, exact=exact)


def run_unbound(passes: Sequence[Pass], ir: Any, *, expected: int = 0, exact: bool = False) -> list[Stage]:
    """The program after each pass, with the number of references a symbol.

    Args:
        ir: what the first pass takes.
        expected: how many references the program is made for, 0 for any number.
        exact: whether it is for that number alone.
    """
    stages = _Stages()
    PassManager(passes, [stages]).run(ir, Context(unbound=True, expected=expected, exact=exact))
    return stages.found


class _Stages(Instrument):
    def __init__(self) -> None:
        self.found: list[Stage] = []

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> None:
        before = bool(self.found) and self.found[-1].stored
        self.found.append(Stage(instance.name, made, before or instance.name in STORING))


def explained(model: Any, passes: str = "@default", options: dict[str, Any] | None = None) -> Stage:
    """The program at the end of a pipeline."""
    return stages(model, passes, options)[-1]
