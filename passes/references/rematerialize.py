"""Rematerialization: of values that light ops make of one (relu(x) and |x| of x), only that is stored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from irshap.ir.core import Node, Value
from irshap.ir.dims import N, R, product
from irshap.ir.types import TensorType
from irshap.ops.families import Elementwise
from irshap.ops.shape import Reshape

__all__ = ["rematerialized", "worthwhile"]

_FLOPS = 300
"""A number computed again is cheap beside this many flops for it."""


def rematerialized(stored: Sequence[Value], fixed: Collection[Value]) -> tuple[tuple[Value, ...], set[Node]]:
    """What to store instead of `stored`, and the light ops and reshapes that compute the rest of it.

    Of values that such nodes make of the same fixed one, that one.
    """
    groups: dict[Value, list[Value]] = defaultdict(list)
    for value in stored:
        groups[_root(value, fixed)].append(value)
    kept, nodes = list[Value](), set[Node]()
    for root, values in groups.items():
        if len(values) == 1:
            kept += values
            continue
        kept.append(root)
        for value in values:
            while value is not root:
                nodes.add(value.node)
                value = value.node.operands[0]
    return tuple(kept), nodes


def worthwhile(again: Iterable[Node], loop: Iterable[Node]) -> bool:
    """Whether computing `again` costs little beside the layers of a loop; not where sizes are unknown."""
    numbers = [product(_one(n.results)[0].dims) for n in again if isinstance(n.op, Elementwise)]
    flops = [n.op.flops(_one(n.operands), _one(n.results)) for n in loop if n.op.layer is not None]
    known = sum(f for f in flops if isinstance(f, int))
    return all(isinstance(n, int) for n in numbers) and known >= _FLOPS * sum(map(int, numbers))


def _one(values: Iterable[Value]) -> list[TensorType]:
    """The types for one sample and one reference."""
    return [v.tensor.substitute({N: 1, R: 1}) for v in values]


def _root(value: Value, fixed: Collection[Value]) -> Value:
    while _is_light(value.node) and value.node.operands[0] in fixed:
        value = value.node.operands[0]
    return value


def _is_light(node: Node) -> bool:
    return isinstance(node.op, Reshape) or (isinstance(node.op, Elementwise) and node.op.light)
