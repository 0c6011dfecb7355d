"""How many references fit into a memory limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from irshap.cost.formula import Binding
from irshap.cost.session import SessionModel, Settings
from irshap.ir.dims import R

__all__ = ["Limit", "largest", "references_within"]

MOST = 1 << 20
"""More references than this are not looked for."""

MARGIN = 0.03
"""Of a limit, what is left free: the mean error of predicted peaks, and page tables, which count, too; and of
a number of references, how many more must fit."""

AT = (64, 256)
"""Where straight lines in R are taken: beyond the corners that small counts make, and where what is stored
takes more than the 2 GiB of one file, so that it is mapped from another."""


@dataclass(frozen=True)
class Limit:
    """The largest number of references within a limit."""

    references: int
    capped: bool
    """Whether more would fit than was looked for."""


def references_within(
    session: SessionModel, limit: int, others: Binding, settings: Settings | None = None
) -> Limit:
    """The most references for which the predicted peak stays within `limit` bytes, with a margin.

    The peak jumps where the arena takes another region, and a prediction may be off in where: so a few more
    references must stay within the limit, too.  Pages of mapped files don't count: where memory is short,
    they are dropped and read again.

    Args:
        others: numbers of the other dimension symbols (N).
    """

    @cache
    def peak(count: int) -> int:
        return session.predict({**others, R: count}, settings).private

    room = int(limit * (1 - MARGIN))
    each = max(1, (peak(AT[1]) - peak(AT[0])) // (AT[1] - AT[0]))
    guess = AT[1] + (room - peak(AT[1])) // each

    def fits(count: int) -> bool:
        return peak(count) <= room and peak(count + round(MARGIN * count)) <= limit

    found = largest(fits, MOST, near=guess)
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
