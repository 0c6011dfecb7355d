"""Boxes: indices that name, in order, all elements between a start and a stop on each axis they are about.

Exporters write x[:, 1:, 2:5] = u as positions of every single element, eight bytes for each number on each
axis.  What they were counted from tells the slices without making them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, same, same_shape
from irshap.ir.types import Array
from irshap.ops.cast import Cast
from irshap.ops.generate import Arange
from irshap.ops.program import Constant
from irshap.ops.reduce import Expand
from irshap.ops.shape import Concat, Reshape, Slice

__all__ = ["Span", "box"]


class Span(NamedTuple):
    """`length` neighbours from `start` on; a negative constant start counts from the end, as in ONNX."""

    start: Dim
    length: Dim


class _Ramp(NamedTuple):
    """start, start + 1, ... along `axis`, and the same on all others; one number where `axis` is None."""

    start: Dim
    axis: int | None


def box(index: Value) -> list[Span] | None:
    """The span on each axis that the last axis of `index` holds positions of; None if it is no box.

    `index`: integers [..., depth], as of ScatterND; its elements in order are those of the box in order.
    """
    columns = _columns(index)
    if not columns:
        return None
    sizes = index.shape[:-1]
    # the last axis runs fastest on both sides, and each is run through once
    axes = [c.axis for c in columns if c.axis is not None]
    whole = [a for a, size in enumerate(sizes) if not same(size, 1)]
    if axes != sorted(set(axes)) or not set(whole) <= set(axes):
        return None
    return [Span(c.start, 1 if c.axis is None else sizes[c.axis]) for c in columns]


def _columns(index: Value) -> list[_Ramp]:
    """The positions on each axis; nothing where one of them is no ramp."""
    op, last = index.node.op, index.rank - 1
    if isinstance(op, Concat) and op.axis == last:
        if any(not same(part.shape[last], 1) for part in index.node.operands):
            return []
        ramps = [_ramp(part) for part in index.node.operands]
    elif isinstance(op, Constant):
        ramps = [_counted(column) for column in np.moveaxis(op.value.array, -1, 0)]
    else:
        ramps = [_ramp(index)] if same(index.shape[last], 1) else []
    found = [r for r in ramps if r is not None]
    return found if len(found) == len(ramps) else []


def _ramp(value: Value) -> _Ramp | None:
    op = value.node.op
    if isinstance(op, Constant):
        return _counted(op.value.array)
    if isinstance(op, Arange):
        return _Ramp(op.start, 0) if op.step == 1 else None
    if not isinstance(op, Cast | Expand | Reshape | Slice) or not value.dtype.is_integer:
        return None
    (source,) = value.node.operands
    found = _ramp(source)
    if found is None or found.axis is None or isinstance(op, Cast):
        return found
    if isinstance(op, Expand):
        axis = found.axis + value.rank - source.rank
        # one number may have been repeated on that axis
        return found._replace(axis=axis) if same(source.shape[found.axis], value.shape[axis]) else None
    if isinstance(op, Reshape):
        return _reshaped(found, source.shape, value.shape)
    if found.axis not in op.axes:
        return found
    i = op.axes.index(found.axis)
    return found._replace(start=as_dim(found.start + op.starts[i])) if op.steps[i] == 1 else None


def _reshaped(found: _Ramp, before: Sequence[Dim], after: Sequence[Dim]) -> _Ramp | None:
    """Where a ramp goes as axes of size 1 come and go."""
    old, new = ([a for a, d in enumerate(dims) if not same(d, 1)] for dims in (before, after))
    if not same_shape(tuple(before[a] for a in old), tuple(after[a] for a in new)):
        return None
    return found._replace(axis=new[old.index(found.axis)] if found.axis in old else None)


def _counted(array: Array) -> _Ramp | None:
    """Constant positions as a ramp."""
    if not array.size:
        return None
    start = int(array.flat[0])
    longer = [a for a, size in enumerate(array.shape) if size > 1 and np.any(np.diff(array, axis=a))]
    if len(longer) > 1:
        return None
    if not longer:
        return _Ramp(start, None)
    (axis,) = longer
    steps = np.arange(array.shape[axis]).reshape(-1, *[1] * (array.ndim - axis - 1))
    return _Ramp(start, axis) if np.array_equal(array, np.broadcast_to(start + steps, array.shape)) else None
