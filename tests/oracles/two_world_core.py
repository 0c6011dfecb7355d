"""What the rules of the two-world oracle share: a node in both worlds, the registry, small numpy helpers.

World 1 is the sample x, world 2 one reference r. Every rule gets a `Site` (the node with the values of both
worlds) and the multipliers g of the node's outputs, and returns the multipliers of its operands. A rule is
right when sum(m * (x - r)) == sum(g * (y - y0)); the walker in `two_world.py` measures that at every node.

Nothing here imports irshap: the point of an oracle is to fail differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GUARD = 1e-7
"""Below this |D| a max's multiplier is 0 (rules.md sections 3 and 4)."""


class Refused(Exception):
    """No complete local rule is known for a node on the active path."""

    def __init__(self, node: str, op: str, reason: str) -> None:
        super().__init__(f"{op} node {node!r}: {reason}")
        self.node, self.op, self.reason = node, op, reason


@dataclass(frozen=True)
class Call:
    """A node without its operands."""

    name: str
    op: str
    opset: int
    attrs: dict[str, Any]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        # A float attribute is a float32 in the file, and so are the defaults of the specification.
        return self.attrs.get(name, float(np.float32(default)) if isinstance(default, float) else default)

    def refuse(self, reason: str) -> Refused:
        return Refused(self.name, self.op, reason)


@dataclass(frozen=True)
class Site:
    """A node with its operands and results in both worlds; operands left out are None."""

    call: Call
    x: list[Any]
    r: list[Any]
    y: list[Any]
    y0: list[Any]
    active: list[bool]
    guard: float = GUARD

    def mid(self) -> list[Any]:
        """bar(u) = (u + u0) / 2 of every operand; a constant stays what it is."""
        return [
            (a + b) / 2 if varies else a for a, b, varies in zip(self.x, self.r, self.active, strict=True)
        ]

    def only(self, multiplier: Array, operand: int = 0) -> list[Array | None]:
        """The multipliers of an op in which one operand alone may vary."""
        return [multiplier if i == operand else None for i in range(len(self.x))]


Forward = Callable[[Call, list[Any]], list[Any]]
Backward = Callable[[Site, list[Array]], list[Array | None]]


@dataclass(frozen=True)
class Rule:
    forward: Forward
    backward: Backward
    operands: frozenset[int] | None = frozenset({0})
    """The operands that may vary; None: any."""
    results: int | None = 1
    """How many leading outputs carry attribution; None: all."""
    moves: bool = False
    """A pure movement of entries: its forward works on any dtype."""


RULES: dict[str, Rule] = {}


def define(
    *ops: str,
    forward: Forward,
    backward: Backward,
    operands: Sequence[int] | None = (0,),
    results: int | None = 1,
    moves: bool = False,
) -> None:
    for op in ops:
        if op in RULES:
            raise ValueError(f"{op} is defined twice")
        allowed = None if operands is None else frozenset(operands)
        RULES[op] = Rule(forward, backward, allowed, results, moves)


def operand(inputs: Sequence[Any], index: int) -> Any:
    """Operand `index`, or None where the node leaves it out."""
    return inputs[index] if index < len(inputs) else None


def ints(value: Any) -> list[int]:
    return [int(v) for v in np.asarray(value).reshape(-1)]


def unbroadcast(grad: Array, shape: Sequence[int]) -> Array:
    """Sum `grad` over the axes along which an operand of `shape` was broadcast."""
    extra = grad.ndim - len(shape)
    grad = grad.sum(axis=tuple(range(extra))) if extra > 0 else grad
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and grad.shape[i] != 1)
    return grad.sum(axis=axes, keepdims=True) if axes else grad


def difference(x: Array, r: Array) -> Array:
    """x - r, and 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(x == r, 0.0, x - r)


def ratio(top: Array, bottom: Array, otherwise: Array | float = 0.0) -> Array:
    """top / bottom, and `otherwise` where bottom is 0."""
    safe = np.where(bottom == 0, 1.0, bottom)
    return np.where(bottom == 0, otherwise, top / safe)


def to_rows(value: Array, axes: Sequence[int]) -> Array:
    """Move `axes` to the end, in their order, and flatten them into one: [..., n]."""
    kept = [i for i in range(value.ndim) if i not in axes]
    moved = np.transpose(value, [*kept, *axes])
    size = math.prod(value.shape[i] for i in axes)
    return moved.reshape([value.shape[i] for i in kept] + [size])


def from_rows(rows: Array, shape: Sequence[int], axes: Sequence[int]) -> Array:
    """The inverse of `to_rows` for a tensor of `shape`."""
    order = [i for i in range(len(shape)) if i not in axes] + list(axes)
    return np.transpose(rows.reshape([shape[i] for i in order]), np.argsort(order))


def reduce_axes(call: Call, inputs: Sequence[Any], rank: int) -> list[int]:
    """The axes of a Reduce*: an attribute up to opset 12/17, operand 1 after that."""
    given = operand(inputs, 1)
    axes = ints(given) if given is not None else [int(a) for a in call.get("axes", [])]
    if not axes:
        return [] if call.get("noop_with_empty_axes", 0) else list(range(rank))
    return sorted({a % rank for a in axes})


def reduced_shape(call: Call, shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    """The shape a Reduce* returns."""
    if call.get("keepdims", 1):
        return [1 if i in axes else n for i, n in enumerate(shape)]
    return [n for i, n in enumerate(shape) if i not in axes]
