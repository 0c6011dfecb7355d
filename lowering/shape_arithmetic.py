"""Shape arithmetic, done while lifting: what follows from dimensions alone becomes a constant or `dims`.

Exported models compute the operands of Reshape, Slice, Expand and the like from Shape, Gather, Concat, Mul...
Small operands that are known are evaluated in numpy; dimensions that stay symbolic are worked out one by one,
exactly or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy

from irshap.ir.builder import Builder
from irshap.ir.core import Node, Value
from irshap.ir.dims import Dim, as_dim, divide, equal, floor_div
from irshap.ir.types import Array, DType, Tensor, TensorType
from irshap.lowering.importer import KNOWN_LIMIT, known
from irshap.ops.program import Constant, Dims, Full, Input

__all__ = ["worked_out"]

# Numbers that are not integers are worked out only where they look like scale factors.
_FLOAT_LIMIT = 16


class _Undecided(Exception):
    """A result depends on the value that a symbol gets at run time."""


def worked_out(value: Value, builder: Builder) -> Value:
    """`value`, or what it is known to be: a constant or `dims`."""
    node, kind = value.node, value.type
    if not isinstance(kind, TensorType) or not node.op.modeled:
        return value
    if isinstance(node.op, Constant | Dims | Full | Input):
        return value
    size = kind.size if kind.shape is not None else None
    if not isinstance(size, int) or size > KNOWN_LIMIT or not node.operands:
        return value
    arrays = [_array(o) for o in node.operands]
    if all(a is not None for a in arrays):
        return _evaluated(value, [a for a in arrays if a is not None], builder)
    if kind.dtype not in (DType.I64, DType.I32, DType.BOOL):
        return value
    operands = [known(o) for o in node.operands]
    if any(o is None for o in operands):
        return value
    try:
        elements = _symbolic(node, [o for o in operands if o is not None])[value.index]
    except _Undecided:
        return value
    if all(isinstance(e, int) for e in elements.ravel()):
        array = elements.astype(kind.dtype.numpy).reshape(elements.shape)
        return builder.emit(Constant(Tensor.wrap(array)))[0]
    if kind.dtype is DType.I64 and kind.rank <= 1:
        return builder.emit(Dims(tuple(elements.ravel()), scalar=kind.rank == 0))[0]
    return value


def _array(value: Value) -> Array | None:
    """A small operand that is a plain number throughout."""
    op = value.node.op
    if isinstance(op, Constant):
        return op.value.array if op.value.array.size <= KNOWN_LIMIT else None
    if isinstance(op, Dims) and all(isinstance(d, int) for d in op.values):
        return op.evaluate()[0]
    return None


def _evaluated(value: Value, arrays: list[Array], builder: Builder) -> Value:
    kind = value.tensor
    if kind.dtype.is_float and (kind.rank > 1 or int(kind.size) > _FLOAT_LIMIT):
        return value
    if not (kind.dtype.is_float or kind.dtype.is_integer or kind.dtype is DType.BOOL):
        return value
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(value.node.op.evaluate(*arrays)[value.index])
    except (ArithmeticError, IndexError, TypeError, ValueError):
        return value  # out of range, say: ONNX Runtime shall report it, if the model is ever run
    if result.dtype != kind.dtype.numpy or result.shape != kind.dims:
        return value
    return builder.emit(Constant(Tensor(result)))[0]


_MOVES = {"concat", "expand", "gather", "gather_elements", "reshape", "slice", "split", "tile", "transpose"}
"""Ops that only place elements, which numpy also does with dimensions."""


def _symbolic(node: Node, operands: list[Array]) -> list[Array]:
    """The results of `node` on arrays of dimensions."""
    kind = node.op.mnemonic
    if kind in _MOVES:
        try:
            return [np.asarray(r, dtype=object) for r in node.op.evaluate(*operands)]
        except (IndexError, TypeError, ValueError):
            raise _Undecided from None
    if kind in _REDUCE:
        return [np.array(_REDUCE[kind](operands[0].ravel()), dtype=object).reshape(_static(node))]
    if kind == "cast":
        return [_map(_plain if node.results[0].dtype is not DType.BOOL else _truth, *operands)]
    if kind in _ELEMENTWISE:
        return [_map(_ELEMENTWISE[kind], *operands)]
    raise _Undecided


def _static(node: Node) -> tuple[int, ...]:
    shape = node.results[0].shape
    # a reduction of some axes of several would need more than the elements in order
    if node.operands[0].rank > 1 or not all(isinstance(d, int) for d in shape):
        raise _Undecided
    return tuple(int(d) for d in shape)


def _map(function: Callable[..., Any], *operands: Array) -> Array:
    return np.asarray(np.frompyfunc(function, len(operands), 1)(*operands), dtype=object)


def _plain(value: Any) -> Dim:
    return int(value) if isinstance(value, bool) else as_dim(value)


def _truth(value: Any) -> bool:
    return not _equal(value, 0)


def _equal(a: Any, b: Any) -> bool:
    answer = equal(_plain(a), _plain(b))
    if answer is None:
        raise _Undecided
    return answer


def _less(a: Any, b: Any) -> bool:
    """Whether a < b, when that is so for every binding of the symbols or for none."""
    difference = as_dim(_plain(a) - _plain(b))
    if isinstance(difference, int):
        return difference < 0
    if difference.is_negative is None or difference.is_nonnegative is None:
        raise _Undecided
    return bool(difference.is_negative)


def _div(a: Any, b: Any) -> Dim:
    """ONNX truncates; that is the floor where the quotient isn't negative."""
    a, b = _plain(a), _plain(b)
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise _Undecided
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    exact = divide(a, b)
    if exact is not None:
        return exact
    if not isinstance(b, int) or b <= 0 or not sympy.sympify(a).is_nonnegative:
        raise _Undecided
    return floor_div(a, b)


def _mod(a: Any, b: Any) -> Dim:
    a, b = _plain(a), _plain(b)
    if isinstance(b, int) and b > 0:
        return a % b if isinstance(a, int) else as_dim(sympy.Mod(a, b))
    raise _Undecided


def _where(condition: Any, a: Any, b: Any) -> Any:
    if not isinstance(condition, bool | np.bool_):
        raise _Undecided
    return a if condition else b


def _total(elements: Array) -> Dim:
    result: Dim = 0
    for element in elements:
        result = as_dim(result + _plain(element))
    return result


def _product(elements: Array) -> Dim:
    result: Dim = 1
    for element in elements:
        result = as_dim(result * _plain(element))
    return result


_REDUCE: dict[str, Callable[[Array], Dim]] = {"reduce_sum": _total, "reduce_prod": _product}

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": lambda a: a if not _less(a, 0) else as_dim(-_plain(a)),
    "add": lambda a, b: as_dim(_plain(a) + _plain(b)),
    "and": lambda a, b: _truth(a) and _truth(b),
    "div": _div,
    "equal": _equal,
    "greater": lambda a, b: _less(b, a),
    "greater_or_equal": lambda a, b: not _less(a, b),
    "less": _less,
    "less_or_equal": lambda a, b: not _less(b, a),
    "max": lambda a, b: b if _less(a, b) else a,
    "min": lambda a, b: a if _less(a, b) else b,
    "mod": _mod,
    "mul": lambda a, b: as_dim(_plain(a) * _plain(b)),
    "neg": lambda a: as_dim(-_plain(a)),
    "not": lambda a: not _truth(a),
    "or": lambda a, b: _truth(a) or _truth(b),
    "sub": lambda a, b: as_dim(_plain(a) - _plain(b)),
    "where": _where,
}
