"""Shape arithmetic, done while lifting: what follows from dimensions alone becomes a constant or `dims`.

Exported models compute the operands of Reshape, Slice, Expand and the like from Shape, Cast, Gather, Concat,
Mul...  What is known of small tensors stands in a table beside the graph, element by element: numbers,
dimensions that stay symbolic, and unknown elements.  So it doesn't matter which types it went through, nor
whether all of it is known.
"""

from __future__ import annotations

import numpy as np

from irshap.ir.builder import Builder
from irshap.ir.core import Node, Value
from irshap.ir.types import Array, DType, Tensor, TensorType
from irshap.lowering.symbolic import Undecided, evaluated, is_plain
from irshap.ops.cast import cast
from irshap.ops.program import Constant, Dims, Full, Input
from irshap.ops.shape import reshape

__all__ = ["KNOWN_LIMIT", "Facts"]

KNOWN_LIMIT = 1024
"""Integer tensors up to this size are evaluated while lifting."""

# Numbers that are not integers are worked out only where they look like scale factors.
_FLOAT_LIMIT = 16


class Facts:
    """What lifting knows of small tensors, and of sequences.

    Attributes:
        items: the tensors in a sequence.
        unrolled: how many nodes loops have become.
    """

    def __init__(self) -> None:
        self._found: dict[Value, Array | None] = {}
        self.items: dict[Value, tuple[Value, ...]] = {}
        self.unrolled = 0

    def of(self, value: Value) -> Array | None:
        """The elements of a value, as an object array, or None where nothing of it is known.

        Each is a number, a dimension (among floats also a multiple or a quotient of dimensions), or None.
        """
        if value not in self._found:
            self._found[value] = None
            if _is_small(value):
                found = self._results(value.node)
                self._found.update(zip(value.node.results, found, strict=True))
        return self._found[value]

    def known(self, value: Value) -> Array | None:
        """The elements of a value of which all are known."""
        found = self.of(value)
        return None if found is None or any(e is None for e in found.ravel()) else found

    def numbers(self, value: Value) -> Array | None:
        """A value of which every element is known as a number, in its own element type."""
        op = value.node.op
        if isinstance(op, Constant):
            return op.value.array if op.value.array.size <= KNOWN_LIMIT else None
        found = self.known(value)
        return None if found is None or not is_plain(found) else found.astype(value.dtype.numpy)

    def worked_out(self, value: Value, builder: Builder) -> Value:
        """`value`, or what it is known to be: a constant or `dims`."""
        if isinstance(value.node.op, Constant | Dims | Full | Input):
            return value
        found = self.known(value)
        if found is None:
            return value
        kind = value.tensor
        if is_plain(found):
            if kind.dtype.is_float and kind.rank > 1:
                return value
            made = builder.emit(Constant(Tensor(found.astype(kind.dtype.numpy))))[0]
        elif kind.dtype.is_integer:
            scalar = kind.rank == 0
            flat = builder.emit(Dims(tuple(found.ravel()), scalar=scalar))[0]
            made = cast(flat if scalar else reshape(flat, kind.dims), kind.dtype)
        else:
            return value
        self._found[made] = found
        return made

    def _results(self, node: Node) -> list[Array | None]:
        nothing: list[Array | None] = [None] * len(node.results)
        made = _made(node)
        if made is not None:
            return [made]
        if not node.op.modeled or isinstance(node.op, Input | Constant):
            return nothing
        numbers = [self.numbers(o) for o in node.operands]
        if node.operands and all(a is not None for a in numbers):
            return _computed(node, [a for a in numbers if a is not None])
        operands = [self.of(o) for o in node.operands]
        if node.operands and all(o is None for o in operands):
            return nothing
        filled = [_unknown(v) if o is None else o for v, o in zip(node.operands, operands, strict=True)]
        if any(o is None for o in filled):
            return nothing
        try:
            return list(evaluated(node, [o for o in filled if o is not None]))
        except (Undecided, ArithmeticError, TypeError, ValueError):
            return nothing  # what isn't finite, say, has no exact form


def _is_small(value: Value) -> bool:
    kind = value.type
    if not isinstance(kind, TensorType) or kind.shape is None:
        return False
    limit = _FLOAT_LIMIT if kind.dtype.is_float else KNOWN_LIMIT
    # the size of a shape with symbols costs more to work out than to leave
    return all(isinstance(d, int) for d in kind.shape) and int(kind.size) <= limit


def _made(node: Node) -> Array | None:
    """What stands in the node itself."""
    op = node.op
    if isinstance(op, Dims):
        return np.array(op.values, object).reshape(node.results[0].tensor.dims)
    if isinstance(op, Constant) and op.value.array.dtype.kind in "iubf":
        return op.value.array.astype(object)
    if isinstance(op, Full) and (op.dtype.is_float or op.dtype.is_integer or op.dtype is DType.BOOL):
        return np.full([int(d) for d in op.shape], op.value, op.dtype.numpy).astype(object)
    return None


def _unknown(value: Value) -> Array | None:
    """As many unknown elements as a small value has."""
    return np.full([int(d) for d in value.shape], None, object) if _is_small(value) else None


def _computed(node: Node, arrays: list[Array]) -> list[Array | None]:
    """By the op's own evaluation, where all operands are numbers."""
    nothing: list[Array | None] = [None] * len(node.results)
    try:
        with np.errstate(all="ignore"):
            results = [np.asarray(a) for a in node.op.evaluate(*arrays)]
    except (ArithmeticError, IndexError, TypeError, ValueError):
        return nothing  # out of range, say: ONNX Runtime shall report it, if the model is ever run
    kinds = [v.tensor for v in node.results]
    plain = (k.dtype.is_float or k.dtype.is_integer or k.dtype is DType.BOOL for k in kinds)
    fits = (a.dtype == k.dtype.numpy and a.shape == k.dims for a, k in zip(results, kinds, strict=True))
    if not (all(plain) and all(fits)):
        return nothing
    # numpy makes Python's numbers of its own types, and not of others such as bfloat16
    return [(a if a.dtype.kind in "iubf" else a.astype(np.float64)).astype(object) for a in results]
