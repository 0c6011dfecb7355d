"""The program between passes with R still a symbol: what a cost in R is read from.

Binding references makes R a number, and folding them costs a forward pass over all of them.  Neither is
needed to know what the result would cost, so the passes that bind leave inputs in their place.  What
fold-references would store is told apart by looking (`irshap.cost.nodes.fixed_values`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irshap.ir.core import Graph, Role
from irshap.ir.types import Array
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.instrument import Instrument
from irshap.pipeline.manager import PassManager
from irshap.pipeline.text import parse_pipeline

__all__ = ["Stage", "stages"]


@dataclass(frozen=True)
class Stage:
    """The program after a pass.

    Attributes:
        name: the pass.
        graph: the program, with the references as inputs.
        stored: whether what follows from the references alone is computed while compiling.
    """

    name: str
    graph: Graph
    stored: bool

    @property
    def decided(self) -> bool:
        """Whether attributions are in it, so that it could be lowered."""
        return bool(self.graph.outputs_of(Role.ATTRIBUTION))


def stages(
    ir: Any,
    passes: str | Sequence[Pass],
    *,
    expected: int = 0,
    exact: bool = False,
    given: Mapping[str, Array] | None = None,
    groups: Mapping[str, Array] | None = None,
) -> tuple[Stage, ...]:
    """Runs a pipeline without binding references: the program after each pass.

    Args:
        ir: a model (a path, bytes or a ModelProto), or a graph.
        passes: a pipeline's text, or its passes.  Those at the ONNX boundary that can't run here are left
            out: `lower`, and for a graph `lift`.
        expected: how many references the program is made for, 0 for any number: chunks depend on it.
        exact: whether it is for that number alone: few references need no loop.
        given: references, for what they say of the model's open axes.
        groups: of cells that methods replace together, by input.

    Raises:
        PipelineError: the text doesn't parse, or the passes don't fit together or what they get.
    """
    asked = parse_pipeline(passes) if isinstance(passes, str) else passes
    kinds = ("graph",) if isinstance(ir, Graph) else ("graph", "model")
    kept = [p for p in asked if p.gives == "graph" and p.takes in kinds]
    if not kept and isinstance(ir, Graph):
        return ()
    seen = _Seen()
    context = Context(given=given or {}, groups=groups or {}, unbound=True, expected=expected, exact=exact)
    PassManager(kept, [seen]).run(ir, context)
    return tuple(seen.stages)


class _Seen(Instrument):
    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> None:
        before = bool(self.stages) and self.stages[-1].stored
        self.stages.append(Stage(instance.name, made, before or instance.stores))
