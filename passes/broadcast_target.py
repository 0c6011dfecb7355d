"""broadcast-target: samples and references meet by broadcasting instead of as copies.

Where an elementwise op mixes rows that depend on the sample alone ([N, ...], repeated for each reference)
with rows that depend on the reference alone ([R, ...], tiled for each sample), [N, 1, ...] op [1, R, ...]
gives the same N R rows as [N, R, ...], and no copy is made of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import Dim, divide, same
from irshap.ops.families import Elementwise, ZippedElementwise
from irshap.ops.rows import RepeatRows, TileRows
from irshap.ops.shape import reshape
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["BroadcastTarget"]


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows of (sample, reference) pairs with the two axes apart: [..., n, r, ...], n on `axis`.

    A size of 1 on either axis stands for equal rows along it.  Where a pair takes up several rows (windows,
    heads), `block` of them are on an axis of their own behind r.
    """

    value: Value
    axis: int
    n: Dim
    r: Dim
    block: Dim = 1


@dataclass(frozen=True)
class BroadcastTarget(Pass):
    """Lets elementwise ops broadcast over pairs of samples and references; equal row by row."""

    name = "broadcast-target"
    semantics = Semantics.PRESERVES
    requires = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        with Builder() as b:
            rewriter = _Rewriter(b)
            b.extend(ir.statements, rewriter.values, rewriter.visit)
            for output in ir.outputs:
                rewriter.rows(output.value)
            context.count("broadcast", rewriter.count)
            return b.rebuild(ir, rewriter.values)


class _Rewriter:
    """Old values as ordinary rows, as grids, or both once somebody needs the rows."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.values: dict[Value, Value] = {}
        self.grids: dict[Value, Grid] = {}
        self.copies: dict[Value, Node] = {}
        self.count = 0

    def visit(self, node: Node, mapping: Mapping[Value, Value]) -> Sequence[Value | None] | None:
        """Rewrites one node; copies of rows wait until somebody needs them."""
        if isinstance(node.op, RepeatRows | TileRows):
            self.grids[node.results[0]] = self._apart(node, node.op)
            self.copies[node.results[0]] = node
        elif isinstance(node.op, Elementwise | ZippedElementwise) and self._grid(node):
            self.count += 1
        else:
            for value in node.operands:
                self.rows(value)
            return None
        return [None]

    def rows(self, value: Value) -> Value:
        """The value with one row for each pair."""
        if value not in self.values:
            if value in self.copies:
                self.rows(self.copies[value].operands[0])
                self.values[value] = self.builder.copy(self.copies[value], self.values)[0]
            else:
                self.values[value] = reshape(self.grids[value].value, value.shape)
        return self.values[value]

    def _apart(self, node: Node, op: RepeatRows | TileRows) -> Grid:
        base = self.rows(node.operands[0])
        before, count, after = base.shape[: op.axis], base.shape[op.axis], base.shape[op.axis + 1 :]
        if isinstance(op, RepeatRows):
            n = divide(count, op.block)
            assert n is not None
            apart = reshape(base, (*before, n, *_pair(1, op.block), *after))
            return Grid(apart, op.axis, n, op.times, op.block)
        return Grid(reshape(base, (*before, 1, count, *after)), op.axis, op.times, count)

    def _grid(self, node: Node) -> bool:
        """Emits an elementwise node over a grid, if its operands agree on one."""
        grids = [self.grids[v] for v in node.operands if v in self.grids]
        if not grids or not all(isinstance(v.type.shape, tuple) for v in node.operands):  # type: ignore[union-attr]
            return False
        result, block = node.results[0], next((g.block for g in grids if not same(g.block, 1)), 1)
        found = [_in_blocks(g, block) for g in grids]
        (axis, *others) = {v.rank - self.grids[v].axis for v in node.operands if v in self.grids}
        like = next((g for g in found if g is not None), None)
        if others or like is None:
            return False
        if not all(g and same(g.n, like.n) and same(g.r, like.r) for g in found):
            return False
        operands = [self._aligned(v, axis, like) for v in node.operands]
        value = self.builder.emit(node.op, *operands, origin=node.origin)[0]
        self.grids[result] = replace(like, value=value, axis=result.rank - axis)
        return True

    def _aligned(self, value: Value, from_right: int, like: Grid) -> Value:
        """An operand whose axes line up with a grid, its own axis counted from the right."""
        if value in self.grids:
            grid = _in_blocks(self.grids[value], like.block)
            assert grid is not None
            return grid.value
        plain = self.rows(value)
        axis = plain.rank - from_right
        if axis < 0:
            return plain
        before, count, after = plain.shape[:axis], plain.shape[axis], plain.shape[axis + 1 :]
        pair = (like.n, *_pair(like.r, like.block))
        return reshape(plain, (*before, *([1] * len(pair) if same(count, 1) else pair), *after))


def _pair(r: Dim, block: Dim) -> tuple[Dim, ...]:
    """The axes behind that of samples."""
    return (r,) if same(block, 1) else (r, block)


def _in_blocks(grid: Grid, block: Dim) -> Grid | None:
    """The same rows, of which `block` make up a pair; None where they don't."""
    if same(grid.block, block):
        return grid
    r, shape, axis = divide(grid.r, block), grid.value.shape, grid.axis
    whole = same(grid.block, 1) and same(shape[axis], 1) and same(shape[axis + 1], grid.r)
    if r is None or not whole:
        return None
    apart = reshape(grid.value, (*shape[: axis + 1], r, block, *shape[axis + 2 :]))
    return Grid(apart, axis, grid.n, r, block)
