"""Symbolic dimensions: an `int`, or a sympy expression over positive integer symbols.

`N` counts the samples of one run and `R` the references.  Plain ints never touch sympy.  Equality is
three-valued, and *unknown is never yes*: code that needs two dimensions to agree asks `same`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from math import prod
from typing import TypeAlias, cast

import sympy

from irshap.errors import ParseError

__all__ = ["Dim", "N", "R", "Shape", "as_dim", "ceil_div", "dim_text", "divide", "equal", "floor_div"]
__all__ += [
    "maximum",
    "minimum",
    "parse_dim",
    "product",
    "same",
    "same_shape",
    "substitute",
    "symbol",
    "symbols_of",
]

Dim: TypeAlias = int | sympy.Expr
Shape: TypeAlias = tuple[Dim, ...]

_memory = lru_cache(maxsize=2**16)


@cache
def symbol(name: str) -> sympy.Expr:
    """The dimension symbol `name`: a positive integer, known only at run time."""
    return cast(sympy.Expr, sympy.Symbol(name, positive=True, integer=True))


N = symbol("N")
R = symbol("R")


def as_dim(value: object) -> Dim:
    """`value` in normal form: a plain int wherever it is one, otherwise an expanded expression."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, sympy.Expr):
        return value if value.is_Symbol else _normal(value)
    return operator.index(value)  # type: ignore[arg-type]


# A graph has thousands of values and some ten dimensions: the same few questions are asked again and again.
@_memory
def _normal(value: sympy.Expr) -> Dim:
    # sympy takes Min(Max(2, N), Max(3, N)) apart to Max(N, Min(2, 3)), and leaves the inner one as it is
    whole = value.doit() if value.has(sympy.Max, sympy.Min) else value
    expanded = sympy.expand(whole)
    if expanded.has(sympy.floor):
        expanded = expanded.replace(sympy.floor, _floor)
    return int(expanded) if expanded.is_Integer else expanded


def _floor(value: sympy.Expr) -> sympy.Expr:
    """floor((floor(x) + m)/n) = floor((x + m)/n) for whole m and n: one form for windows of windows."""
    terms = sympy.Add.make_args(sympy.expand(value))
    for term in terms:
        factor, inner = term.as_coeff_Mul()
        if not isinstance(inner, sympy.floor) or factor.p != 1:
            continue
        rest = [t for t in terms if t is not term]
        if all((t * factor.q).is_integer for t in rest):
            return _floor(sympy.Add(inner.args[0] / factor.q, *rest))
    return sympy.floor(value)


def equal(a: Dim, b: Dim) -> bool | None:
    """Whether `a == b` for every binding of the symbols: yes, no, or None for unknown."""
    if a is b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return _equal(a, b)


@_memory
def _equal(a: Dim, b: Dim) -> bool | None:
    difference = as_dim(a - b)
    if isinstance(difference, int):
        return difference == 0
    return False if difference.is_nonzero else None


def same(a: Dim, b: Dim) -> bool:
    """Whether `a == b` is certain."""
    return equal(a, b) is True


def same_shape(a: Shape, b: Shape) -> bool:
    """Whether two shapes are certainly equal."""
    return len(a) == len(b) and all(map(same, a, b))


def product(dims: Iterable[Dim]) -> Dim:
    """The number of elements of a shape."""
    shape = tuple(dims)
    return prod(shape) if all(isinstance(d, int) for d in shape) else _product(shape)


@_memory
def _product(shape: Shape) -> Dim:
    return as_dim(prod(shape))


def divide(a: Dim, b: Dim) -> Dim | None:
    """`a / b` when that is a polynomial in the symbols with integer coefficients, otherwise None."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    return None if b == 0 else _divided(a, b)


@_memory
def _divided(a: Dim, b: Dim) -> Dim | None:
    quotient = sympy.cancel(sympy.sympify(a) / b)
    numerator, denominator = quotient.as_numer_denom()
    if denominator != 1 or not all(term.is_integer for term in sympy.Add.make_args(numerator)):
        return None
    return as_dim(quotient)


def floor_div(a: Dim, b: int) -> Dim:
    """floor(a / b)."""
    return a // b if isinstance(a, int) else as_dim(sympy.floor(a / b))


def ceil_div(a: Dim, b: int) -> Dim:
    """ceil(a / b)."""
    return -((-a) // b) if isinstance(a, int) else as_dim(sympy.ceiling(a / b))


def maximum(a: Dim, b: Dim) -> Dim:
    """max(a, b)."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else as_dim(sympy.Max(a, b))


def minimum(a: Dim, b: Dim) -> Dim:
    """min(a, b)."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else as_dim(sympy.Min(a, b))


def substitute(dim: Dim, binding: Mapping[sympy.Expr, Dim]) -> Dim:
    """`dim` with symbols replaced, all at once."""
    if isinstance(dim, int):
        return dim
    if dim.is_Symbol:
        return as_dim(binding.get(dim, dim))
    return _substituted(dim, tuple(binding.items()))


@_memory
def _substituted(dim: sympy.Expr, binding: tuple[tuple[sympy.Expr, Dim], ...]) -> Dim:
    return as_dim(dim.subs(binding, simultaneous=True))


def symbols_of(dims: Iterable[Dim]) -> set[sympy.Expr]:
    """The symbols that a shape depends on."""
    return {s for dim in dims if isinstance(dim, sympy.Expr) for s in dim.free_symbols}


def dim_text(dim: Dim) -> str:
    """Text that `parse_dim` reads back."""
    return str(dim) if isinstance(dim, int) else _text(dim)


_text = _memory(str)


_FUNCTIONS = {
    "floor": sympy.floor,
    "ceiling": sympy.ceiling,
    "Max": sympy.Max,
    "Min": sympy.Min,
    "Mod": sympy.Mod,
}
_EXPRESSION_LIMIT = 1000
_TERM_LIMIT = 1000
_DEGREE_LIMIT = 1000
_NOT_FINITE = (sympy.zoo, sympy.oo, -sympy.oo, sympy.nan)


def parse_dim(text: str) -> Dim:
    """Reads a dimension expression without evaluating it as code.

    Raises:
        ParseError: for anything but integers, names, + - * / ** and floor, ceiling, Max, Min, Mod.
    """
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return symbol(text)
    try:
        if len(text) > _EXPRESSION_LIMIT:
            raise ValueError(f"longer than {_EXPRESSION_LIMIT} characters")
        if not text.isascii():
            # Python's parser takes several letters for one: a name could silently become another's
            raise ValueError("names have ASCII letters, digits and underscores")
        tree = ast.parse(text.strip(), mode="eval").body
        _size(tree)
        dim = as_dim(_interpret(tree))
        if not isinstance(dim, int) and (dim.is_number or dim.has(*_NOT_FINITE)):
            raise ValueError("it is no integer")
        return dim
    except (ArithmeticError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise ParseError(f"{text[:80]!r} is no dimension: {error}") from None


def _size(tree: ast.AST) -> tuple[int, int]:
    """Bounds of the number of terms, and of the degree or bits of one, once products are multiplied out.

    Checked before sympy sees the expression: a few characters such as ((a + b)**8)**8 can be large.
    """
    parts = [_size(child) for child in ast.iter_child_nodes(tree)]
    terms = max((t for t, _ in parts), default=1)
    degree = max((d for _, d in parts), default=1)
    match tree:
        case ast.Constant(value=int(value)):
            degree = value.bit_length()
        case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=int(power))) if 0 < power <= 8:
            terms, degree = parts[0][0] ** power, parts[0][1] * power
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            terms, degree = parts[0][0] * parts[-1][0], parts[0][1] + parts[-1][1]
        case ast.BinOp():
            terms, degree = parts[0][0] + parts[-1][0], degree + 1
        case ast.Call():
            terms = 1
    if terms > _TERM_LIMIT or degree > _DEGREE_LIMIT:
        raise ValueError("it is too large")
    return terms, degree


def _interpret(tree: ast.expr) -> sympy.Expr:
    match tree:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return cast(sympy.Expr, sympy.Integer(value))
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_interpret(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if 0 < power <= 8:
            return cast(sympy.Expr, _interpret(left) ** power)
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _interpret(left), _interpret(right)
            match operator:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return cast(sympy.Expr, _FUNCTIONS[name](*map(_interpret, args)))
    raise ValueError("only integers, names, + - * / **, floor, ceiling, Max, Min and Mod are allowed")
