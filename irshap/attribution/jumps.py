"""Which functions of one number jump: a sum of derivatives on the way between two points leaves that out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from irshap.attribution.gaps import Gap
from irshap.ir.core import Graph, Node, Op, Point
from irshap.ir.types import Array
from irshap.ops.closed import Closed
from irshap.ops.families import Elementwise
from irshap.ops.piecewise import Piecewise
from irshap.ops.program import Constant, Pullback

__all__ = ["jump_gaps", "jumps"]

_LEAST = 1e-4
"""A smaller jump, by the size of the function there, is rounding: softplus by choice has one of 2e-9."""

_POLE = 1e6
"""Where a function is larger on both sides, it has a pole, which isn't a jump that could be crossed."""


def jump_gaps(graph: Graph) -> Iterator[Gap]:
    """The functions on the way back from the target that jump, or of which that isn't known."""
    known: dict[tuple[object, ...], bool | None] = {}
    for node in graph.nodes:
        if isinstance(node.op, Pullback) and isinstance(node.op.of, Elementwise | Closed):
            _, at = node.op.parts(node.operands)
            key = (node.op.of, at.operands[0].dtype, *at.operands[1:])
            if key not in known:
                known[key] = jumps(node.op.of, at)
            if known[key] is not False:
                what = "it jumps" if known[key] else "it isn't known to be continuous"
                label = Node(node.op.of, (), (), node.origin).label
                yield Gap(label, f"{what}, and derivatives on a path don't add up to a jump")


def jumps(op: Op, at: Point) -> bool | None:
    """Whether a function of the first operand jumps, looked for between points up to 1e6; None: unknown.

    A function of a row does: it is made where one does.

    Each interval between two points is halved until nothing is between them, on the side where the function
    changes more.
    """
    if not isinstance(op, Elementwise | Piecewise):
        return True
    x, *fixed = at.operands
    constants = [v.node.op.value.array for v in fixed if isinstance(v.node.op, Constant)]
    if len(constants) < len(fixed):
        return None
    wide = [c.astype(np.float64) if c.dtype.kind == "f" else c for c in constants]

    def f(points: Array) -> Array:
        with np.errstate(all="ignore"):
            y = op.values_at(points, *wide) if isinstance(op, Piecewise) else op.evaluate(points, *wide)[0]
        return np.asarray(y, np.float64)

    far = np.geomspace(1e-3, 1e6, 91)
    points = np.sort(np.concatenate([-far, np.linspace(-32, 32, 1025), far])).reshape(-1, *[1] * x.rank)
    # what differs from channel to channel, say, is looked at for each
    grid = np.broadcast_to(points, f(points).shape)
    low, high = grid[:-1], grid[1:]
    with np.errstate(invalid="ignore"):
        for _ in range(60):
            middle = (low + high) / 2
            left = ~(np.abs(f(high) - f(middle)) > np.abs(f(middle) - f(low)))
            low, high = np.where(left, low, middle), np.where(left, middle, high)
        before, after = f(np.nextafter(low, -np.inf)), f(np.nextafter(high, np.inf))
        size = np.maximum(np.abs(before), np.abs(after))
        # what it is rounded to on the way isn't a jump
        least = max(_LEAST, *(8 * float(np.finfo(v.dtype.numpy).eps) for v in (x, *at.results)))
        jump = np.abs(after - before) > least * np.maximum(1.0, size)
    return bool((jump & (size < _POLE)).any())
