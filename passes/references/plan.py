"""How many references a loop takes at a time."""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from irshap.ir.dims import Dim, R, as_dim

__all__ = ["Plan", "chunk_size"]


@dataclass(frozen=True)
class Plan:
    """How many references are taken at a time.

    Attributes:
        size: references in a chunk.
        groups: chunks that go together where tensors are small.
        whole: references in whole groups, a multiple of size * groups, or in R where their number is open.
        left: references left over.
    """

    size: int
    groups: int
    whole: Dim
    left: int

    @classmethod
    def of(cls, count: int, most: int, together: int, *, stored: bool, exact: bool) -> Plan:
        """For `count` references (0: an open number), at most `most`, or `together`, at a time.

        What is `stored` needs no loop for one chunk.  Without `exact` the number may still change.
        """
        size = chunk_size(count, most) if count else most
        bound = max(together // size, 1)
        if not count:
            return cls(size, bound, R, 0)
        if exact and stored and count <= size:
            return cls(size, 1, 0, count)
        chunks = count // size
        groups = _divisor(chunks, bound)
        if 2 * groups <= _divisor(chunks - 1, bound):
            chunks, groups = chunks - 1, _divisor(chunks - 1, bound)
        left = count - chunks * size
        return cls(size, groups, chunks * size if exact else as_dim(R - left), left)

    def trips(self, size: int) -> Dim:
        """How often a loop runs that takes `size` references at a time."""
        return as_dim(self.whole / size) if isinstance(self.whole, sympy.Expr) else self.whole // size


def chunk_size(count: int, most: int) -> int:
    """How many of `count` references to take at a time.

    What divides them all, if that is half of `most` or more, or if all but what is left over were one chunk.
    """
    if count <= most:
        return max(count, 1)
    divisor = _divisor(count, most)
    return divisor if 2 * divisor >= most or count < 2 * most else most


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number up to `most`."""
    return max((d for d in range(1, most + 1) if number and number % d == 0), default=1)
