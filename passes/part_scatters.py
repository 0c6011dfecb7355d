"""part-scatters: what overlapping windows of max-pooling add is set in parts, and the parts are added."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

from irshap.ir.builder import emit1
from irshap.ir.core import Node, Value
from irshap.ir.dims import product, same
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ops.arithmetic import Where
from irshap.ops.index import ScatterAdd
from irshap.ops.pool import MaxPool
from irshap.ops.reduce import Expand
from irshap.ops.shape import Reshape, Slice, reshape
from irshap.pipeline.base import Semantics
from irshap.pipeline.rewriting import RewritingPass

__all__ = ["PartScatters"]


@rewrite(ScatterAdd)
def windows_that_never_meet(node: Node, x: Value, index: Value) -> Replacement:
    """scatter_add(x, i) = sum over offsets o of scatter_add(x[o::step], i[o::step]), each to distinct places.

    Windows `step` apart, the least number of strides that a window doesn't reach over, have no element in
    common, whichever of theirs is chosen.
    """
    op = node.op
    assert isinstance(op, ScatterAdd)
    pool = _pool(index)
    if op.distinct or pool is None or op.axis != 2 or x.rank != 3:
        return NoMatch("it adds no shares of windows")
    found = pool.op
    assert isinstance(found, MaxPool)
    reaches = zip(found.kernel, found.strides, found.dilations, strict=True)
    steps = tuple(((k - 1) * d) // s + 1 for k, s, d in reaches)
    grid = pool.results[1].shape[2:]
    if not all(isinstance(size, int) for size in grid) or not same(product(grid), x.shape[2]):
        return NoMatch(
            "it adds other things than a share for each window, or as many as is known at run time"
        )
    axes = tuple(range(2, 2 + len(grid)))
    planes = [reshape(v, (*v.shape[:2], *grid)) for v in (x, index)]
    starts = itertools.product(*(range(min(s, int(d))) for s, d in zip(steps, grid, strict=True)))
    parts = [_part(op, planes, Slice(axes, at, grid, steps)) for at in starts]
    return reduce(add, parts) if parts else NoMatch("there is no window")


@rewrite(ScatterAdd)
def single_element(node: Node, x: Value, index: Value) -> Replacement:
    """One element in each row, such as the explained class, meets no other."""
    op = node.op
    assert isinstance(op, ScatterAdd)
    if op.distinct or not same(index.shape[op.axis], 1):
        return NoMatch("there are several, or it is known")
    return emit1(replace(op, distinct=True), x, index)


def _part(op: ScatterAdd, planes: Sequence[Value], some: Slice) -> Value:
    """The shares of some windows, none of which meet, at their places."""
    picked = (emit1(some, v) for v in planes)
    return emit1(
        replace(op, distinct=True), *(reshape(v, (*v.shape[:2], product(v.shape[2:]))) for v in picked)
    )


def _pool(index: Value) -> Node | None:
    """The max-pooling whose choices these are."""
    while isinstance(index.node.op, Reshape | Expand):
        index = index.node.operands[0]
    if isinstance(index.node.op, Where):
        return _pool(index.node.operands[1]) or _pool(index.node.operands[2])
    return index.node if isinstance(index.node.op, MaxPool) and index.index == 1 else None


@dataclass(frozen=True)
class PartScatters(RewritingPass):
    """ScatterAdd of overlapping max-pooling becomes ScatterAdds to distinct places, which are added up.

    So does one that adds a single element.  These need no ScatterElements with a reduction (opset 16).
    """

    name = "part-scatters"
    semantics = Semantics.PRESERVES
    into_bodies = True
    rules = (single_element, windows_that_never_meet)
