"""Sums of many symbolic counts, and their values at numbers of samples and references, both fast.

A network has thousands of nodes but few distinct shapes: each distinct expression is taken apart, or compiled
to Python, once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TypeAlias

import sympy

from irshap.errors import IRError, UserError
from irshap.ir.core import Graph
from irshap.ir.dims import Dim, N, R, as_dim, symbols_of
from irshap.ir.types import TensorType

__all__ = ["Binding", "Sum", "evaluate", "refuse_open_axes", "total"]

Binding: TypeAlias = Mapping[sympy.Expr, int]
"""A number for each dimension symbol."""


@lru_cache(maxsize=4096)
def _terms(expression: sympy.Expr) -> tuple[tuple[sympy.Expr, sympy.Expr], ...]:
    return tuple(sympy.expand(expression).as_coefficients_dict().items())


class Sum:
    """A sum that grows term by term: sympy's own addition would sort all terms for each new one."""

    def __init__(self) -> None:
        self._number = 0
        self._symbolic: Counter[sympy.Expr] = Counter()

    def add(self, dim: Dim) -> None:
        """Adds a count."""
        if isinstance(dim, int):
            self._number += dim
            return
        for term, factor in _terms(dim):
            self._symbolic[term] += factor

    @property
    def dim(self) -> Dim:
        """The sum so far."""
        return as_dim(sympy.Add(self._number, *(term * factor for term, factor in self._symbolic.items())))


def total(dims: Iterable[Dim]) -> Dim:
    """The sum of `dims`."""
    result = Sum()
    for dim in dims:
        result.add(dim)
    return result.dim


@lru_cache(maxsize=16384)
def _compiled(expression: sympy.Expr) -> tuple[tuple[sympy.Expr, ...], Callable[..., float]]:
    symbols = tuple(sorted(expression.free_symbols, key=str))
    return symbols, sympy.lambdify(symbols, expression, modules="math")


def evaluate(dim: Dim, binding: Binding) -> int:
    """The value of `dim` with a number for each of its symbols.

    Raises:
        IRError: a symbol has no number.
    """
    if isinstance(dim, int):
        return dim
    symbols, function = _compiled(dim)
    try:
        return round(function(*(binding[s] for s in symbols)))
    except KeyError as missing:
        raise IRError(f"{dim} has no value: dimension {missing.args[0]} has no number") from None


def refuse_open_axes(graph: Graph) -> None:
    """Refuses a graph whose cost depends on more than the numbers of samples and references.

    Raises:
        UserError: an input has another axis of open size.
    """
    names = dict[str, None]()
    for value in graph.inputs:
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        for axis, dim in enumerate(shape or ()):
            for name in sorted(map(str, symbols_of([dim]) - {N, R})):
                names[f"{value.name}[{axis}]" if name.startswith("unknown_") else name] = None
    if names:
        said = " ".join(f"--dim {name}=SIZE" for name in names)
        raise UserError(
            f"the cost depends on the size of {', '.join(names)}, which the model leaves open",
            mend=f"Say it (Model(dims=...), {said}), with references of that size",
        )
