"""How picking by index, and putting back, is written in ONNX."""

from __future__ import annotations

from irshap.lowering.emitter import FLOOR, Export, exporter
from irshap.ops import gather, scatter, top_k

__all__: list[str] = []

_ADDS_SINCE = 16


@exporter(gather.Gather)
def _gather(e: Export, op: gather.Gather) -> None:
    e.result("Gather", e.inputs, axis=op.axis)


@exporter(gather.GatherND)
def _gather_nd(e: Export, op: gather.GatherND) -> None:
    e.result("GatherND", e.inputs, batch_dims=op.batch_dims)


@exporter(gather.ScatterRows, opset=_ADDS_SINCE)
def _scatter_rows(e: Export, op: gather.ScatterRows) -> None:
    # ScatterND adds along the first axis: the indexed ones go there, and the result's comes back
    updates, index = e.operand(0), e.operand(1)
    behind = op.axis + index.rank
    order = [*range(op.axis, behind), *range(op.axis), *range(behind, updates.rank)]
    rows = e.wide() if not op.axis else e.add("Transpose", [e.wide()], perm=order)
    dims = e.node.results[0].shape
    empty = e.zeros([op.size, *dims[: op.axis], *dims[op.axis + 1 :]])
    where = e.add("Unsqueeze", [e.inputs[1], e.ints([index.rank])])
    if not op.axis:
        e.narrow("ScatterND", [empty, where, rows], reduction="add")
        return
    summed = e.add("ScatterND", [empty, where, rows], reduction="add")
    e.narrow("Transpose", [summed], perm=[*range(1, op.axis + 1), 0, *range(op.axis + 1, len(dims))])


def _scatter_opset(op: scatter.ScatterElements | scatter.ScatterND) -> int:
    return _ADDS_SINCE if op.add else FLOOR


@exporter(scatter.ScatterElements, opset=_scatter_opset)
def _scatter_elements(e: Export, op: scatter.ScatterElements) -> None:
    if op.add:
        e.narrow("ScatterElements", [e.wide(0), e.inputs[1], e.wide(2)], axis=op.axis, reduction="add")
    else:
        e.result("ScatterElements", e.inputs, axis=op.axis)


@exporter(scatter.ScatterND, opset=_scatter_opset)
def _scatter_nd(e: Export, op: scatter.ScatterND) -> None:
    if op.add:
        e.narrow("ScatterND", [e.wide(0), e.inputs[1], e.wide(2)], reduction="add")
    else:
        e.result("ScatterND", e.inputs)


@exporter(top_k.TopK)
def _top_k(e: Export, op: top_k.TopK) -> None:
    e.result("TopK", [e.inputs[0], e.ints([op.k])], axis=op.axis, largest=int(op.largest))
