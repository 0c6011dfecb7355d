"""Ops on small arrays of numbers, of dimensions that are known only at run time, and of unknown elements.

An element is an int, a bool, a float, a sympy expression over dimension symbols, or None: unknown.  A number
is exact, or unknown; a float that the model rounds counts as exact where what comes next can't tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import sympy

from irshap.ir.core import Node
from irshap.ir.dims import as_dim, divide, equal, floor_div, maximum, minimum
from irshap.ir.types import Array, DType, TensorType

__all__ = ["Undecided", "each", "evaluated", "is_plain", "truth"]

_EXACT = 2**20
"""Factors of a dimension up to this size, over as large a power of two, are exact in float32."""

_TERMS, _DEGREE, _SIZE = 32, 32, 200
"""Larger expressions are left to the runtime: a few nodes could ask for any number of terms."""

_ODD = 64
"""Over a divisor up to this size, what isn't whole is farther from it than float32 rounds."""


class Undecided(Exception):
    """A result depends on the value that a symbol gets at run time, or on what is unknown."""


def is_plain(elements: Array) -> bool:
    """Whether every element is a number."""
    return all(isinstance(e, int | float) for e in elements.ravel())


def evaluated(node: Node, operands: Sequence[Array]) -> list[Array]:
    """The results of `node`, as object arrays.

    Raises:
        Undecided: nothing is known of them.
    """
    kind, results = node.op.mnemonic, [v.tensor for v in node.results]
    if kind in _MOVES:
        return _moved(node, operands, results)
    if kind == "where":
        return [_map(_where, *operands)]
    if kind == "arange":
        return [_counted(node.op, results[0])]
    (result,) = results
    if kind in _REDUCE:
        return [_reduced(node.op, operands[0], result)]
    if kind not in _ELEMENTWISE and kind not in _OF_TYPE:
        raise Undecided
    function = _ELEMENTWISE.get(kind) or _OF_TYPE[kind](node.op, result.dtype)
    return [each(function, result.dtype, *operands, quotients=kind in _ROUNDING)]


def each(function: Callable[..., Any], dtype: DType, *operands: Array, quotients: bool = False) -> Array:
    """`function` of the elements one by one, unknown where one is or where it can't decide.

    `quotients`: it takes floats that are known up to their rounding.
    """

    def one(*elements: Any) -> Any:
        try:
            return _element(function(*(_exact(e, quotients) for e in elements)), dtype)
        except Undecided:
            return None

    return _map(one, *operands)


def _map(function: Callable[..., Any], *operands: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.frompyfunc(function, len(operands), 1)(*operands), dtype=object)


def _exact(element: Any, quotients: bool) -> Any:
    if element is None:
        raise Undecided
    if isinstance(element, bool):
        return int(element)
    if isinstance(element, float):
        if not np.isfinite(element):
            raise Undecided
        return sympy.Rational(element)
    if isinstance(element, sympy.Expr) and (_is_large(element) or not (quotients or _is_dyadic(element, 1))):
        raise Undecided
    return element


def _is_large(value: sympy.Expr) -> bool:
    if value.is_Symbol:
        return False
    high = any(p.exp.is_Integer and p.exp > _DEGREE for p in value.atoms(sympy.Pow))
    return high or len(sympy.Add.make_args(value)) > _TERMS or value.count_ops() > _SIZE


def _element(value: Any, dtype: DType) -> Any:
    """A number as an element of this type."""
    if dtype is DType.BOOL:
        return truth(value)
    if isinstance(value, bool):
        value = int(value)
    if dtype.is_integer:
        return _integer(value, dtype)
    value = sympy.expand(value)
    if value.is_Rational:
        return float(dtype.numpy.type(float(value)))
    if dtype not in (DType.F32, DType.F64) or not _is_dyadic(value, _ODD):
        raise Undecided
    return value


def _integer(value: Any, dtype: DType) -> Any:
    whole = as_dim(value) if isinstance(value, int) or value.is_integer else None
    if whole is None:
        raise Undecided
    bounds = np.iinfo(dtype.numpy)
    if isinstance(whole, int):
        fits = bounds.min <= whole <= bounds.max
    else:
        # sizes that a narrow type can't hold are none that the model could run with
        fits = dtype.bytes > 1 and (bounds.min < 0 or _nonnegative(whole) is True)
    if not fits:
        raise Undecided
    return whole


def _is_dyadic(value: sympy.Expr, odd: int) -> bool:
    """Whether it is whole terms, times factors that floats hold, over divisors with so large an odd part."""
    for term, factor in value.as_coefficients_dict().items():
        below = int(factor.q)
        power = below & -below
        if term.is_integer is not True or abs(factor.p) > _EXACT or power > _EXACT or below // power > odd:
            return False
    return True


def _nonnegative(value: Any) -> bool | None:
    """Whether a number is >= 0 for every binding of its symbols, for none, or None for what isn't known."""
    if not isinstance(value, sympy.Expr):
        return bool(value >= 0)
    found = value.is_nonnegative
    if found is not None:
        return bool(found)
    symbols = sorted(value.free_symbols, key=str)
    if not value.is_polynomial(*symbols):
        return None
    # symbols count from 1: what is left when they count from 0 has one sign if its coefficients have
    shifted = sympy.expand(value.subs({s: s + 1 for s in symbols}, simultaneous=True))
    factors = shifted.as_coefficients_dict()
    if all(f >= 0 for f in factors.values()):
        return True
    return False if all(f <= 0 for f in factors.values()) and factors[sympy.Integer(1)] < 0 else None


def truth(value: Any) -> bool:
    """Whether a number is true."""
    return bool(value) if isinstance(value, bool | np.bool_) else not _equal(value, 0)


def _equal(a: Any, b: Any) -> bool:
    answer = equal(a, b)
    if answer is None and (_less_known(a, b) or _less_known(b, a)):
        answer = False
    if answer is None:
        raise Undecided
    return answer


def _less_known(a: Any, b: Any) -> bool | None:
    difference = sympy.expand(b - a)
    if difference.is_integer:
        return _nonnegative(difference - 1)
    positive = difference.is_positive
    return None if positive is None else bool(positive)


def _less(a: Any, b: Any) -> bool:
    """Whether a < b, when that is so for every binding of the symbols or for none."""
    if _less_known(a, b):
        return True
    if _nonnegative(sympy.expand(a - b)):
        return False
    raise Undecided


def _div(a: Any, b: Any) -> Any:
    """ONNX truncates integers; that is the floor where the quotient isn't negative."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise Undecided
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    exact = divide(a, b)
    if exact is not None:
        return exact
    if _less_known(0, b) is not True or _nonnegative(a) is not True:
        raise Undecided
    return floor_div(a, b) if isinstance(b, int) else as_dim(sympy.floor(a / b))


def _quotient(a: Any, b: Any) -> Any:
    if b == 0:
        raise Undecided
    return sympy.cancel(sympy.sympify(a) / b)


def _mod(a: Any, b: Any) -> Any:
    if _less_known(0, b) is not True:
        raise Undecided
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if not isinstance(b, int) and _nonnegative(a) is not True:
        raise Undecided
    return as_dim(sympy.Mod(a, b))


def _truncated(a: Any) -> Any:
    """What a cast into integers leaves: the floor of what isn't negative."""
    if isinstance(a, int) or a.is_integer:
        return a
    if a.is_Rational:
        return int(a)
    if _nonnegative(a) is not True:
        raise Undecided
    return sympy.floor(a)


def _rounded(a: Any) -> Any:
    if isinstance(a, int) or a.is_integer:
        return a
    if not a.is_Rational:
        raise Undecided
    return round(Fraction(int(a.p), int(a.q)))


def _power(a: Any, exponent: Any) -> Any:
    if exponent != int(exponent) or not 0 <= exponent <= 8:
        raise Undecided
    return a ** int(exponent)


def _where(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        return a if condition else b
    # whichever it is, it is the same
    if isinstance(a, float) or isinstance(b, float):
        return a if isinstance(a, float) and isinstance(b, float) and a.hex() == b.hex() else None
    return a if a is not None and b is not None and equal(a, b) is True else None


def _max(a: Any, b: Any) -> Any:
    return _extreme(a, b, maximum)


def _min(a: Any, b: Any) -> Any:
    return _extreme(b, a, minimum)


def _extreme(a: Any, b: Any, otherwise: Callable[[Any, Any], Any]) -> Any:
    """The second if a < b is certain, the first if it is certainly not so."""
    try:
        second = _less(a, b)
    except Undecided:
        return otherwise(a, b)
    return b if second else a


def _clip(op: Any, dtype: DType) -> Callable[[Any], Any]:
    low, high = (None if v is None else sympy.Rational(v) for v in (op.low, op.high))

    def clipped(a: Any) -> Any:
        raised = a if low is None else _max(a, low)
        return raised if high is None else _min(raised, high)

    return clipped


def _modulo(op: Any, dtype: DType) -> Callable[[Any, Any], Any]:
    def remainder(a: Any, b: Any) -> Any:
        if op.truncated and _nonnegative(a) is not True:
            raise Undecided
        return _mod(a, b)

    return remainder


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": lambda a: a if not _less(a, 0) else -a,
    "add": lambda a, b: a + b,
    "and": lambda a, b: truth(a) and truth(b),
    "ceil": lambda a: sympy.ceiling(a),
    "equal": _equal,
    "floor": lambda a: sympy.floor(a),
    "greater": lambda a, b: _less(b, a),
    "greater_or_equal": lambda a, b: not _less(a, b),
    "less": _less,
    "less_or_equal": lambda a, b: not _less(b, a),
    "max": _max,
    "min": _min,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "not": lambda a: not truth(a),
    "or": lambda a, b: truth(a) or truth(b),
    "pow": _power,
    "reciprocal": lambda a: _quotient(1, a),
    "relu": lambda a: _max(a, 0),
    "round": _rounded,
    "sign": lambda a: 0 if _equal(a, 0) else -1 if _less(a, 0) else 1,
    "sub": lambda a, b: a - b,
    "xor": lambda a, b: truth(a) != truth(b),
}

_OF_TYPE: dict[str, Callable[[Any, DType], Callable[..., Any]]] = {
    "cast": lambda op, dtype: (lambda a: a) if dtype.is_float or dtype is DType.BOOL else _truncated,
    "clip": _clip,
    "div": lambda op, dtype: _quotient if dtype.is_float else _div,
    "mod": _modulo,
    "power": lambda op, dtype: lambda a: _power(a, op.exponent),
}
"""As above, of ops whose attributes or element types count."""

_ROUNDING = {"cast", "ceil", "floor", "round"}
"""Ops that give the same for a float and for what it was rounded from."""

_REDUCE: dict[str, Callable[[Any, Any], Any]] = {
    "reduce_max": _max,
    "reduce_min": _min,
    "reduce_prod": lambda a, b: a * b,
    "reduce_sum": lambda a, b: a + b,
}

_EMPTY = {"reduce_prod": 1, "reduce_sum": 0}
"""What there is of no elements."""

_MOVES = {
    "concat",
    "cum_sum",
    "expand",
    "gather",
    "gather_elements",
    "gather_nd",
    "one_hot",
    "pad",
    "reshape",
}
_MOVES |= {"scatter_elements", "scatter_nd", "slice", "split", "tile", "transpose", "trilu"}
"""Ops that place elements, or add them up, which numpy also does with dimensions."""


def _moved(node: Node, operands: Sequence[Array], results: Sequence[TensorType]) -> list[Array]:
    # what is moved comes first; the others may say where to
    arrays = [
        o.astype(np.int64) if i and all(isinstance(e, int) for e in o.ravel()) else o
        for i, o in enumerate(operands)
    ]
    try:
        found = node.op.evaluate(*arrays)
    except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError):
        raise Undecided from None  # an operand that says where isn't known, or out of range
    return [each(lambda e: e, t.dtype, np.asarray(a, object)) for a, t in zip(found, results, strict=True)]


def _counted(op: Any, result: TensorType) -> Array:
    (count,) = result.dims
    numbers = np.array([op.start + i * op.step for i in range(int(count))], object)
    return each(lambda e: e, result.dtype, numbers)


def _reduced(op: Any, x: Array, result: TensorType) -> Array:
    kept = [a for a in range(x.ndim) if a not in op.axes]
    outer = [x.shape[a] for a in kept]
    rows = x.transpose([*kept, *op.axes]).reshape(*outer, -1)
    found = np.empty(outer, object)
    for place in np.ndindex(*outer):
        elements = [np.asarray(e, object) for e in rows[place]]
        if not elements and op.mnemonic not in _EMPTY:
            raise Undecided
        first, *rest = elements or [np.asarray(_EMPTY[op.mnemonic], object)]
        function = _REDUCE[op.mnemonic]
        found[place] = reduce(lambda a, b: each(function, result.dtype, a, b), rest, first).item()
    return found.reshape([int(d) for d in result.dims])
