"""Strategies: where what follows from the references is kept, and how many of them are computed at a time.

Each is a pass that binds the references, and stores what follows from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from irshap.errors import PipelineError, near
from irshap.pipeline.base import PASSES, Pass
from irshap.pipeline.text import parse_pipeline

__all__ = ["STRATEGIES", "has_strategies", "slot_of", "with_strategy"]

STRATEGIES: dict[str, str] = {
    "fold": "fold-references",
    "stream": "stream{otherwise=fold}",
    "compact": "stream{chunk=2,price=1000,otherwise=fold}",
    "recompute": "stream{store=references}",
}
"""The pass of each strategy: all references at once from what is stored of them; in chunks, from the same;
in the smallest chunks that take little more time, with all but layers computed again; in chunks, with their
forward pass in each run.  From the fastest to the smallest for large networks, whose activations don't stay
in a cache, but for the first two, which are close."""

_DECIDES = ("store", "otherwise")
"""The options that tell strategies of one pass apart, beside those that a strategy's own text sets."""


def has_strategies(pipeline: Sequence[Pass]) -> bool:
    """Whether a pipeline has a pass that strategies replace."""
    return any(p.stores for p in pipeline)


def with_strategy(pipeline: Sequence[Pass], strategy: str) -> tuple[Pass, ...]:
    """The pipeline with another pass in the place of the one that stores what follows from the references.

    Raises:
        PipelineError: an unknown strategy, or a pipeline without such a place.
    """
    if strategy not in STRATEGIES:
        raise PipelineError(f"no strategy is called {strategy!r}", mend=near(strategy, STRATEGIES))
    (wanted,) = parse_pipeline(STRATEGIES[strategy])
    slot = slot_of(pipeline)
    if type(pipeline[slot]) is type(wanted):
        # options that are set already stay, such as a limit, but for those that make the strategy
        said = [f.name for f in fields(wanted) if f.name in _DECIDES or getattr(wanted, f.name) != f.default]
        changes = {name: getattr(wanted, name) for name in said}
        wanted = replace(pipeline[slot], **changes)
    return (*pipeline[:slot], wanted, *pipeline[slot + 1 :])


def slot_of(pipeline: Sequence[Pass]) -> int:
    """The position of the pass that strategies replace: the first that stores."""
    for i, instance in enumerate(pipeline):
        if instance.stores:
            return i
    names = sorted(c.name for c in PASSES.values() if c.stores)
    raise PipelineError(
        f"a strategy needs a pipeline with one of {', '.join(names)}",
        where="pipeline",
        mend="leave strategy and memory limit out",
    )
