"""Updates put at indices."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import Array
from irshap.lowering.emitter import FLOOR, Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.index import ADDS_SINCE, counted_from_front, for_all_rows
from irshap.ops import program, scatter

__all__: list[str] = []


def _adds(n: Import) -> bool:
    kind = n.attribute("reduction", "none")
    if kind not in ("none", "add"):
        raise Unmodeled(f"reduction={kind!r}")
    return bool(kind == "add")


def _refuse_repeated(positions: Array) -> None:
    """Positions as rows; which of two updates of one element wins is not defined."""
    if len(np.unique(positions, axis=0)) < len(positions):
        raise Unmodeled("its indices name an element twice")


def _scatter_opset(op: scatter.ScatterElements | scatter.ScatterND) -> int:
    return ADDS_SINCE if op.add else FLOOR


@importer("Scatter", "ScatterElements")
def _read_scatter_elements(n: Import) -> Value:
    x, axis, add = n.tensor(0), n.axis(n.attribute("axis", 0)), _adds(n)
    where = counted_from_front(n, 1, x.shape[axis])
    if isinstance(where.node.op, program.Constant) and not add:
        given = where.node.op.value.array
        positions = np.indices(given.shape)
        positions[axis] = given
        _refuse_repeated(positions.reshape(given.ndim, -1).T)
    updates = for_all_rows(n, n.tensor(2), axis)
    return n.one(scatter.ScatterElements(axis, add), x, for_all_rows(n, where, axis), updates)


@exporter(scatter.ScatterElements, opset=_scatter_opset)
def _write_scatter_elements(e: Export, op: scatter.ScatterElements) -> None:
    if op.add:
        e.narrow("ScatterElements", [e.wide(0), e.inputs[1], e.wide(2)], axis=op.axis, reduction="add")
    else:
        e.result("ScatterElements", e.inputs, axis=op.axis)


@importer("ScatterND")
def _read_scatter_nd(n: Import) -> Value:
    op, where = scatter.ScatterND(_adds(n)), n.tensor(1)
    if isinstance(where.node.op, program.Constant) and not op.add:
        given = where.node.op.value.array
        _refuse_repeated(given.reshape(-1, given.shape[-1]))
    return n.one(op, n.tensor(0), where, n.tensor(2))


@exporter(scatter.ScatterND, opset=_scatter_opset)
def _write_scatter_nd(e: Export, op: scatter.ScatterND) -> None:
    if op.add:
        e.narrow("ScatterND", [e.wide(0), e.inputs[1], e.wide(2)], reduction="add")
    else:
        e.result("ScatterND", e.inputs)
