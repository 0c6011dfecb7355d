"""What an axiom is, and what it takes to tell that a method keeps it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from irshap.metrics.axioms.functions import Function, Tried
from irshap.metrics.subject import Subject
from irshap.runtime.arrays import Array

__all__ = ["EQUAL", "Axiom", "Case", "Trial", "relative", "vector"]

EQUAL = 1e-3
"""What may be between two numbers that files tell of the same thing, in terms of the largest f(x)."""


@dataclass(frozen=True)
class Trial:
    """One case.

    Attributes:
        deviation: from what the axiom asks for, relative; 0 where it is kept.
        told: the case and what came out, in a line: the counterexample where it isn't kept.
    """

    deviation: float
    told: str


@dataclass(frozen=True, eq=False)
class Case:
    """What an axiom is tried on: a function at samples x [N, n], against references [R, n] (None: zeros)."""

    f: Function
    x: Array
    references: Array | None = None


class Axiom:
    """Base of all axioms: a class with a docstring (equation and source), a name, and cases."""

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not (cls.__doc__ or "").strip() or not hasattr(cls, "name"):
            raise TypeError(f"axiom {cls.__name__} lacks a docstring or a name")

    @abstractmethod
    def cases(self) -> Iterator[Case]:
        """What a method is tried on."""

    @abstractmethod
    def trial(self, explain: Tried, case: Case) -> Trial:
        """How far a method is from the axiom there.

        Raises:
            IrshapError: it doesn't explain such a function.
        """

    def on_file(self, subject: Subject, other: Subject | None) -> Trial | None:
        """How far an explained file's own attributions are from it; None where a file can't tell.

        Args:
            other: those of another file, of the same function (`require_comparable`).

        Raises:
            UserError: its attributed tensors, or its references, aren't such that it can be tried.
        """
        return None


def relative(gap: Array, scale: Array) -> float:
    """The largest |gap| in terms of the scale's; NaN is infinitely far."""
    size = float(np.abs(scale).max(initial=0.0)) or 1.0
    worst = float(np.abs(gap).max(initial=0.0)) / size
    return worst if np.isfinite(worst) else float("inf")


def vector(values: Array) -> str:
    """Numbers, as a counterexample shows them; the first of many."""
    shown = [f"{v:.4g}" for v in np.ravel(values)[:6]]
    return f"({', '.join(shown)}{', ...' if np.size(values) > 6 else ''})"
