"""Degrees of nonnegative homogeneity: k with f(a x) = a^k f(x) for every a > 0, found op by op.

Euler's theorem: where f has a gradient, x df/dx sums to k f(x).  An op that knows its degree has the method
`degree` (`Scales`); one that doesn't is homogeneous of degree 0 where all its operands are, and else not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from irshap.ir.core import Node, Value

__all__ = ["Broken", "Degree", "NotHomogeneous", "Scales", "degrees_of", "fixed", "joined"]

Degree: TypeAlias = float | None
"""None: zero everywhere, which is homogeneous of any degree."""


class NotHomogeneous(Exception):
    """Why a result has no degree."""


@dataclass(frozen=True)
class Broken:
    """A value without a degree.

    Attributes:
        node: the first op on the way to it that has none.
        reason: why.
    """

    node: Node
    reason: str


@runtime_checkable
class Scales(Protocol):
    """An op whose results have a degree where its operands have."""

    def degree(self, degrees: Sequence[Degree]) -> Degree:
        """The degree of its results (positions among them have 0), from those of its operands.

        Raises:
            NotHomogeneous: there is none.
        """


def joined(degrees: Iterable[Degree]) -> Degree:
    """The degree of a sum, or of a choice, of terms.

    Raises:
        NotHomogeneous: they have different ones.
    """
    known = sorted({d for d in degrees if d is not None})
    if len(known) > 1:
        raise NotHomogeneous(f"it puts together degree {known[0]:g} (a bias has 0) and {known[1]:g}")
    return known[0] if known else None


def fixed(degree: Degree) -> bool:
    """Whether a value doesn't change with scale."""
    return degree is None or degree == 0


def degrees_of(nodes: Iterable[Node], given: Mapping[Value, Degree | Broken]) -> dict[Value, Degree | Broken]:
    """The degree of each value of `nodes`, which are in order; `given` stay what they are.

    What is held (`Op.stops_change`) is constant, as it is to a derivative.
    """
    found = dict(given)
    for node in nodes:
        if all(v in found for v in node.results):
            continue
        known: Degree | Broken = 0.0
        if not node.op.stops_change:
            known = _of(node, [found[v] for v in node.operands])
        for i, value in enumerate(node.results):
            at_rest = i in node.op.positions and not isinstance(known, Broken)
            found.setdefault(value, 0.0 if at_rest else known)
    return found


def _of(node: Node, operands: Sequence[Degree | Broken]) -> Degree | Broken:
    degrees: list[Degree] = []
    for operand in operands:
        if isinstance(operand, Broken):
            return operand
        degrees.append(operand)
    reason = "it doesn't scale" if node.op.modeled else "irshap doesn't model it"
    if isinstance(node.op, Scales):
        try:
            return node.op.degree(degrees)
        except NotHomogeneous as error:
            reason = str(error)
    return 0.0 if all(map(fixed, degrees)) else Broken(node, reason)
