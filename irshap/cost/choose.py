"""Which strategy fits into a memory limit, predicted from the program in front of where they differ.

A strategy (`irshap.pipeline.strategies`) is a pass that binds the references; all in front of it is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from irshap.cost.formula import evaluate, refuse_open_axes
from irshap.cost.limits import needed
from irshap.cost.nodes import cost
from irshap.cost.session import SessionModel, Settings
from irshap.errors import UserError
from irshap.ir.core import Graph
from irshap.ir.dims import N, R
from irshap.pipeline.base import Pass
from irshap.pipeline.stages import Stage, stages
from irshap.pipeline.strategies import STRATEGIES, slot_of, with_strategy
from irshap.pipeline.text import format_pipeline

__all__ = ["Candidate", "Choice", "Prediction", "before_slot", "candidates", "choose", "predictions"]

_COMPUTES = ("recompute",)
"""Those that run what others store; slower by more than reading it from a file costs."""

_SESSIONS = {"default": "ONNX Runtime's default session", "explainer": "Explainer's session"}


@dataclass(frozen=True)
class Candidate:
    """A strategy's program, with the number of references still a symbol, and the passes that make it."""

    strategy: str
    passes: tuple[Pass, ...]
    stage: Stage


@dataclass(frozen=True)
class Prediction:
    """What a strategy is predicted to take.

    Attributes:
        strategy: its name.
        peak: bytes that the session takes, beside mapped files, which the system can drop.
        needs: the least limit, in bytes, for the process that runs it: with Python, and room for errors.
        file: bytes of the compiled model.
        passes: the pipeline with this strategy.
        external: whether what is stored stands in a data file, from which it is mapped.
    """

    strategy: str
    peak: int
    needs: int
    file: int
    passes: tuple[Pass, ...]
    external: bool = False

    def __str__(self) -> str:
        where = " with a data file" if self.external else ""
        return f"{self.strategy}{where} {ceil(self.needs / 2**20)} MiB"


@dataclass(frozen=True)
class Choice:
    """A strategy, whether its data stands apart, and why: what each needs in which session, and the limit."""

    strategy: str
    passes: tuple[Pass, ...]
    predictions: tuple[Prediction, ...]
    limit: int
    session: str
    external: bool = False

    @property
    def pipeline(self) -> str:
        """The canonical text of its passes."""
        return format_pipeline(self.passes)

    @property
    def reason(self) -> str:
        """One line for people."""
        listed = ", ".join(map(str, self.predictions))
        where = ", with a data file" if self.external else ""
        return (
            f"{self.strategy}{where}: the first that needs no more than {self.limit / 2**20:.0f} MiB in "
            f"{_SESSIONS[self.session]} ({listed})"
        )


def before_slot(ir: Any, passes: Sequence[Pass]) -> Graph:
    """The program in front of the pass that strategies replace.

    Raises:
        PipelineError: the pipeline has no such pass, or its passes don't fit together.
    """
    return stages(ir, passes[: slot_of(passes)])[-1].graph


def candidates(
    start: Graph,
    passes: Sequence[Pass],
    count: int,
    *,
    exact: bool = False,
    names: Collection[str] = tuple(STRATEGIES),
) -> list[Candidate]:
    """The programs of strategies, the pipeline's own first.

    They are made for `count` references, and with `exact` for that number alone.
    A strategy that can't take this program is left out.

    Args:
        start: the program in front of the pass that strategies replace.
        passes: the pipeline; what it has in front of that pass isn't run again.
        names: of the strategies.
    """
    slot = slot_of(passes)
    own = [name for name in names if with_strategy(passes, name) == tuple(passes)]
    found = []
    for name in dict.fromkeys((*own, *names)):
        replaced = with_strategy(passes, name)
        try:
            stage = stages(start, replaced[slot:], expected=count, exact=exact)[-1]
        except UserError:
            continue
        found.append(Candidate(name, replaced, stage))
    return found


def predictions(
    start: Graph,
    passes: Sequence[Pass],
    count: int,
    session: str = "default",
    names: Collection[str] = tuple(STRATEGIES),
) -> list[Prediction]:
    """What each strategy takes for `count` references and one sample.

    From the fastest to the smallest: the pipeline's own, then the others in the order of `STRATEGIES`; what
    fits into one file is there with a data file, too, in front of what computes more.  One that takes as much
    as one before it is left out.

    Args:
        start: as in `candidates`.
        passes: as in `candidates`.
        session: one of `SESSIONS`, which runs the model several times.
        names: of the strategies.
    """
    usual = Settings.of(session)
    sessions = {False: usual, True: replace(usual, external_over=0)}
    binding = {N: 1, R: count}
    found, apart = list[Prediction](), list[Prediction]()
    for made in candidates(start, passes, count, exact=True, names=names):
        graph, stored = made.stage.graph, made.stage.stored
        model = SessionModel.of(graph, stored=stored)
        size = evaluate(cost(graph, stored=stored).file_bytes, binding)
        peaks = {external: model.predict(binding, settings) for external, settings in sessions.items()}
        one, mapped = (
            Prediction(made.strategy, memory.private, needed(memory, usual), size, made.passes, external)
            for external, memory in peaks.items()
        )
        if any((p.peak, p.file) == (one.peak, one.file) for p in found):
            continue
        if made.strategy in _COMPUTES:
            found += apart
            apart = []
        found.append(one)
        if mapped.peak < one.peak:
            apart.append(mapped)
    return [*found, *apart]


def choose(
    start: Graph,
    passes: Sequence[Pass],
    count: int,
    limit: int,
    session: str = "default",
    names: Collection[str] = tuple(STRATEGIES),
) -> Choice:
    """The first of `predictions` that needs no more than `limit` bytes, for one sample at a time.

    Args:
        start: as in `candidates`.
        passes: as in `candidates`.
        count: how many references there are.
        session: as in `predictions`.
        names: of the strategies that may be taken.

    Raises:
        UserError: none does, or an axis other than the batch is open.
    """
    refuse_open_axes(start)
    found = predictions(start, passes, count, session, names)
    for p in found:
        if p.needs <= limit:
            return Choice(p.strategy, p.passes, tuple(found), limit, session, p.external)
    enough = ceil(min(p.needs for p in found) / 2**20)
    raise UserError(
        f"no strategy stays within {limit / 2**20:.3g} MiB in {_SESSIONS[session]}: "
        f"{', '.join(map(str, found))} are needed",
        mend=f"Raise the limit to {enough}MiB, or name the passes with stream{{chunk=1}} for smaller chunks",
    )
