"""A difference in two parts, and how ops pass them on: what RevealCancel needs (rules.md section 7).

The parts D+ and D- of a difference D are kept as D itself and their size A = D+ - D-, and their multipliers
m+ and m- as mean s and spread d:

    D+ = (D + A)/2,  D- = (D - A)/2,  m+ = s + d,  m- = s - d,  m+ D+ + m- D- = s D + d A

In these terms no sign of a weight needs a case of its own: where W splits D into D+ = [D]+ W+ + [D]- W- and
the rest, the size of the result is |W| |D|, and a factor f, which swaps the parts where it is negative, makes
|f| A of A.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from irshap.ir.builder import emit1
from irshap.ir.core import NoLocalRule, Op, Point, Value

__all__ = [
    "Chord",
    "Curve",
    "Multipliers",
    "Parts",
    "Routed",
    "Shares",
    "Sharing",
    "curve",
    "only",
    "replaced",
]


@dataclass(frozen=True)
class Parts:
    """D+ and D-, as their sum and their distance."""

    total: Value
    size: Value

    @property
    def plus(self) -> Value:
        """D+."""
        return (self.total + self.size) * 0.5

    @property
    def minus(self) -> Value:
        """D-."""
        return (self.total - self.size) * 0.5


@dataclass(frozen=True)
class Multipliers:
    """m+ and m-, as their mean and half their distance; None is a distance of 0."""

    mean: Value
    spread: Value | None


class Sharing(ABC):
    """How an op that isn't linear passes two parts on, from one operand to one result."""

    @abstractmethod
    def size(self, parts: Parts) -> Value:
        """The size of the result's difference."""

    @abstractmethod
    def pull(self, m: Multipliers) -> Multipliers:
        """The operand's multipliers from the result's: the transposed map."""


@dataclass(frozen=True)
class Curve(Sharing):
    """Each part times a slope of its own: s+ = level + tilt, s- = level - tilt; a tilt of None is 0.

    In terms of sum and distance: Dy = level D + tilt A, size = level A + tilt D, and the same for s and d.
    """

    level: Value
    tilt: Value | None

    def size(self, parts: Parts) -> Value:
        along = self.level * parts.size
        return along if self.tilt is None else along + self.tilt * parts.total

    def pull(self, m: Multipliers) -> Multipliers:
        mean, spread = self.level * m.mean, None if m.spread is None else self.level * m.spread
        if self.tilt is None:
            return Multipliers(mean, spread)
        across = self.tilt * m.mean
        if m.spread is None or spread is None:
            return Multipliers(mean, across)
        return Multipliers(mean + self.tilt * m.spread, spread + across)


@dataclass(frozen=True)
class Routed(Sharing):
    """The same linear map of both parts, without a negative coefficient, and its transpose."""

    forward: Callable[[Value], Value]
    backward: Callable[[Value], Value]

    def size(self, parts: Parts) -> Value:
        return self.forward(parts.size)

    def pull(self, m: Multipliers) -> Multipliers:
        return Multipliers(self.backward(m.mean), None if m.spread is None else self.backward(m.spread))


@runtime_checkable
class Shares(Protocol):
    """An op with a rule for parts where it isn't linear; RevealCancel refuses others."""

    def sharing(self, at: Point, at0: Point, parts: Mapping[int, Parts], reveal: bool) -> Sharing:
        """How the first result shares the two parts of each operand in `parts`.

        An elementwise op looks at the parts if `reveal` is set, and at the whole difference otherwise.

        Raises:
            NoLocalRule: it has no rule for these operands.
        """


Chord = Callable[[Value, Value, Value, Value], Value]
"""(u, u0, f(u), f(u0)) -> (f(u) - f(u0)) / (u - u0)"""


def curve(op: Op, chord: Chord, at: Point, at0: Point, i: int, parts: Parts, reveal: bool) -> Curve:
    """How y = f(x), elementwise in operand `i`, shares: by RevealCancel, or both parts by Dy/D (Rescale).

    RevealCancel gives each part its mean effect over the two orders of adding them to the reference r:

        y+ = ([f(r + p) - f(r)] + [f(x) - f(r + n)])/2,  y- = ([f(r + n) - f(r)] + [f(x) - f(r + p)])/2

    with p = D+, n = D-.  Each bracket is a chord's rise over p or n, so the slopes y+/p and y-/n are means of
    chords: nothing is divided by p, and where p is 0 the slope is the limit.
    """
    x, r, y, y0 = at.operands[i], at0.operands[i], at.results[0], at0.results[0]
    if not reveal:
        return Curve(chord(x, r, y, y0), None)
    up, down = r + parts.plus, r + parts.minus
    y_up, y_down = (emit1(op, *replaced(at, i, v)) for v in (up, down))
    plus = chord(up, r, y_up, y0) + chord(x, down, y, y_down)
    minus = chord(down, r, y_down, y0) + chord(x, up, y, y_up)
    return Curve((plus + minus) * 0.25, (plus - minus) * 0.25)


def only(varying: frozenset[int], allowed: frozenset[int]) -> int:
    """The one operand that varies, which must be in `allowed`."""
    if len(varying) != 1 or not varying <= allowed:
        raise NoLocalRule("RevealCancel needs all operands but one to be the same in both worlds")
    return next(iter(varying))


def replaced(at: Point, i: int, value: Value) -> tuple[Value, ...]:
    """The operands of `at`, with another one at `i`."""
    return (*at.operands[:i], value, *at.operands[i + 1 :])
