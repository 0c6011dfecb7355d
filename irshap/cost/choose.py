"""Strategies: where what follows from the references is kept, and how many of them are computed at a time.

Each is a pass that binds the references; which one fits into a memory limit is predicted before it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from irshap.errors import UserError
from irshap.ir.core import Graph
from irshap.ir.dims import N, R
from irshap.pipeline.base import Pass
from irshap.pipeline.strategies import STRATEGIES, slot_of, with_strategy
from irshap.pipeline.text import format_pipeline, parse_pipeline

if TYPE_CHECKING:
    from irshap.pipeline.stages import Stage

__all__ = ["Candidate", "Choice", "Prediction", "candidates", "choose", "predictions"]

_COMPUTES = ("recompute",)
"""Those that run what others store; slower by more than reading it from a file costs."""


@dataclass(frozen=True)
class Prediction:
    """What a strategy is predicted to take.

    Attributes:
        strategy: its name.
        peak: bytes of the process that runs the model, beside mapped files, which the system can drop.
        file: bytes of the compiled model.
        pipeline: the passes.
        external: whether what is stored stands in a data file, from which it is mapped.
    """

    strategy: str
    peak: int
    file: int
    pipeline: str
    external: bool = False

    def __str__(self) -> str:
        where = " with a data file" if self.external else ""
        return f"{self.strategy}{where} {self.peak / 2**20:.0f} MiB"


@dataclass(frozen=True)
class Choice:
    """A strategy, whether its data stands apart, and why: what each is predicted to take, and the limit."""

    strategy: str
    pipeline: str
    predictions: tuple[Prediction, ...]
    limit: int
    external: bool = False

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The pipeline's passes."""
        return parse_pipeline(self.pipeline)

    @property
    def reason(self) -> str:
        """One line for people."""
        listed = ", ".join(map(str, self.predictions))
        where = ", with a data file" if self.external else ""
        return f"{self.strategy}{where}: the first to stay within {self.limit / 2**20:.0f} MiB ({listed})"


@dataclass(frozen=True)
class Candidate:
    """A strategy's program, with the number of references still a symbol."""

    strategy: str
    pipeline: str
    stage: Stage


def candidates(start: Graph, given: Sequence[Pass], count: int, *, exact: bool = False) -> list[Candidate]:
    """The programs of all strategies, the pipeline's own first, from the graph before references are bound.

    They are made for `count` references, and with `exact` for that number alone.
    A strategy that can't take this program is left out.
    """
    from irshap.pipeline.stages import run_unbound

    slot = slot_of(given)
    own = [name for name in STRATEGIES if with_strategy(given, name) == tuple(given)]
    found = []
    for name in dict.fromkeys((*own, *STRATEGIES)):
        passes = with_strategy(given, name)
        try:
            tail = [p for p in passes[slot:] if p.gives == "graph"]
            stage = run_unbound(tail, start, expected=count, exact=exact)[-1]
        except UserError:
            continue
        found.append(Candidate(name, format_pipeline(passes), stage))
    return found


def predictions(start: Graph, given: Sequence[Pass], count: int) -> list[Prediction]:
    """What each strategy takes for `count` references and one sample, in a session as `Explainer` has it.

    From the fastest to the smallest: the pipeline's own, then the others in the order of `STRATEGIES`; what
    fits into one file is there with a data file, too, in front of what computes more.
    """
    from irshap.cost import Settings, cost, evaluate, predict, schedule

    usual = Settings(pattern=False)
    sessions = {False: usual, True: replace(usual, external_over=0)}
    binding = {N: 1, R: count}
    found, apart = list[Prediction](), list[Prediction]()
    for made in candidates(start, given, count, exact=True):
        graph, stored = made.stage.graph, made.stage.stored
        plan, size = schedule(graph, stored=stored), evaluate(cost(graph, stored=stored).file_bytes, binding)
        one, mapped = (
            Prediction(made.strategy, predict(plan, binding, session).private, size, made.pipeline, external)
            for external, session in sessions.items()
        )
        if made.strategy in _COMPUTES:
            found += apart
            apart = []
        found.append(one)
        if mapped.peak < one.peak:
            apart.append(mapped)
    return [*found, *apart]


def choose(start: Graph, given: Sequence[Pass], count: int, limit: int) -> Choice:
    """The first of `predictions` whose peak stays within `limit` bytes, for one sample at a time.

    Raises:
        UserError: none does.
    """
    from irshap.cost.limits import MARGIN

    found = predictions(start, given, count)
    for p in found:
        if p.peak <= limit * (1 - MARGIN):
            return Choice(p.strategy, p.pipeline, tuple(found), limit, p.external)
    raise UserError(
        f"no strategy stays within {limit / 2**20:.0f} MiB: {', '.join(map(str, found))}",
        mend="Raise the limit, or pass stream{chunk=1} for smaller chunks",
    )
