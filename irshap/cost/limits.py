"""What a limit of memory must be, and how many references fit into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import ceil

from irshap.cost.formula import Binding
from irshap.cost.session import Memory, SessionModel, Settings
from irshap.errors import IrshapError
from irshap.ir.core import Graph
from irshap.ir.dims import N, R

__all__ = ["Limit", "expected", "largest", "needed", "references_within"]

MOST = 1 << 20
"""More references than this are not looked for."""

PROCESS = 46 << 20
"""What Python, numpy and ONNX Runtime take before a session is made, which a limit counts, too."""

MARGIN = 0.12
"""Of a limit, what is left free: predicted peaks are up to 14 % below measured ones, and a part of PROCESS is
pages of files, which a limit can drop (docs/cost.md)."""

SPREAD = 0.03
"""Of a number of references, how many more must fit: the peak jumps, and not always where it is predicted."""

AT = (64, 256)
"""Between which numbers of references the growth is taken that a search begins with."""


@dataclass(frozen=True)
class Limit:
    """The largest number of references within a limit."""

    references: int
    capped: bool
    """Whether more would fit than was looked for."""


def needed(memory: Memory, settings: Settings) -> int:
    """The least limit, in bytes, within which a process is expected to stay.

    Pages of mapped files don't count: where memory is short, they are dropped and read again.  On a device
    there is no process to count.
    """
    return ceil((memory.private + (0 if settings.device else PROCESS)) / (1 - MARGIN))


def expected(graph: Graph, samples: int = 1, *, external: bool = False) -> int | None:
    """What a default session that runs what `graph` lowers to takes at its peak, in bytes.

    None where other sizes are open, or an op takes what isn't known.

    Args:
        samples: how many at a time.
        external: whether what is stored stands in a data file, whatever the size.
    """
    settings = Settings.of("default")
    try:
        used = replace(settings, external_over=0) if external else settings
        return SessionModel.of(graph).predict({N: samples}, used).peak
    except IrshapError:
        return None


def references_within(
    session: SessionModel,
    limit: int,
    others: Binding,
    settings: Settings | None = None,
    known: tuple[int, Memory] | None = None,
) -> Limit:
    """The most references for which no number up to theirs needs more than `limit` bytes.

    A few more references must stay within the limit, too, without what is left free for errors.

    Args:
        others: numbers of the other dimension symbols (N).
        known: a number of references, and what the program takes that is compiled for it alone.
    """
    used = settings or Settings()

    @cache
    def need(count: int) -> int:
        return needed(session.predict({**others, R: count}, settings), used)

    each = max(1, (need(AT[1]) - need(AT[0])) // (AT[1] - AT[0]))
    guess = AT[1] + (limit - need(AT[1])) // each

    def fits(count: int) -> bool:
        return need(count) <= limit and need(count + round(SPREAD * count)) * (1 - MARGIN) <= limit

    # beyond one file what is stored is mapped, and the need falls: what doesn't fit before that is the end
    parsed = largest(lambda count: not session.is_mapped({**others, R: count}, settings), MOST)
    found = largest(fits, parsed, near=guess) if parsed else 0
    if found == parsed:
        found = max(found, largest(fits, MOST, near=max(guess, parsed + 1)))
    if known is not None:
        count, memory = known
        found = max(found, count) if needed(memory, used) <= limit else min(found, count - 1)
    return Limit(found, found >= MOST)


def largest(fits: Callable[[int], bool], most: int, *, near: int = 1) -> int:
    """The largest count from 0 to `most` that fits, for a property that holds up to some count.

    Args:
        near: where it is looked for first.
    """
    low = min(max(near, 1), most)
    step = 1
    if fits(low):
        high = low + step
        while high <= most and fits(high):
            low, step = high, 2 * step
            high = low + step
        high = min(high, most + 1)
    else:
        high, low = low, low - step
        while low > 0 and not fits(low):
            high, step = low, 2 * step
            low = high - step
        low = max(low, 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
