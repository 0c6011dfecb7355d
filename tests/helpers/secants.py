"""The multipliers of an op, or of a function of several, between two worlds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from irshap.ir.builder import Builder
from irshap.ir.core import Op, Output, Point, Value
from irshap.ir.types import Array, Tensor
from irshap.ops.composite import Composite
from irshap.ops.program import Constant


class Parts(SimpleNamespace):
    """A function of operands with the secant of what it emits."""

    def secant(self, *arguments: Any) -> Any:
        return Composite.secant(self, *arguments)  # type: ignore[arg-type]

    def in_worlds(self, *arguments: Any) -> Any:
        return Composite.in_worlds(self, *arguments)  # type: ignore[arg-type]


def secant(
    op: Any, *worlds: tuple[Array, Array], ct: Array | None = None, alone: bool = False
) -> list[Array]:
    """The multipliers of an op's operands between x and r; a function is taken by its parts.

    `alone`: as where r is the only reference.
    """
    if not isinstance(op, Op):
        function, op = op, Parts(decompose=lambda *operands: (function(*operands),))
    with Builder() as builder:
        points = [[builder.emit(Constant(Tensor(w[k])))[0] for w in worlds] for k in (0, 1)]
        varying = [i for i, (x, r) in enumerate(worlds) if x is not r]
        emit = builder.emit if isinstance(op, Op) else lambda _, *operands: op.decompose(*operands)
        ends = [Point(tuple(p), emit(op, *p), alone) for p in points]
        y = ends[0].results[0]
        ones = np.ones([int(d) for d in y.shape], y.dtype.numpy)
        seed = builder.emit(Constant(Tensor(ones if ct is None else ct)))[0]
        graph = builder.build(
            "secant", [Output(str(i), m) for i, m in enumerate(op.secant([seed], *ends, varying))]
        )
    values: dict[Value, Array] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            values.update(
                zip(node.results, node.op.evaluate(*(values[v] for v in node.operands)), strict=True)
            )
    return [values[o.value] for o in graph.outputs]
