"""Sums and means, and what all reductions have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from irshap.ir.core import Op, Value
from irshap.ir.dims import as_dim, same
from irshap.ir.types import DType
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import reduce
from irshap.ops.families import broadcast

__all__ = ["lift_global_pool", "lift_reduction", "planes", "reduced", "reduction", "write_reduction"]

_AXES_INPUT_SINCE = 18
"""The opset from which on the axes of most reductions are an input."""

Make: TypeAlias = Callable[[tuple[int, ...], bool], Op]
"""(axes, keepdims) -> a reduction."""


def reduction(
    kind: str,
    cls: type[reduce.Reduction],
    *,
    axes_input_since: int = _AXES_INPUT_SINCE,
    keeps_one: bool = False,
) -> None:
    """Registers both ways between ONNX's `kind` and a reduction that has no other attributes."""
    lift_reduction(kind, cls, axes_input_since=axes_input_since, keeps_one=keeps_one)

    @exporter(cls)
    def write(e: Export, op: reduce.Reduction) -> None:
        write_reduction(e, op, kind, axes_input_since)


def lift_reduction(
    kind: str, make: Make, *, axes_input_since: int = _AXES_INPUT_SINCE, keeps_one: bool = False
) -> None:
    """Registers how a reduction is lifted; `keeps_one`: a single element comes out as it is."""

    @importer(kind)
    def read(n: Import) -> Value:
        found = _reduced_axes(n, axes_input_since)
        if found is not None:
            return n.one(make(*found), n.tensor())
        if not keeps_one:
            raise Unmodeled("what it does without axes is a matter of dispute")
        return n.tensor()


def _reduced_axes(n: Import, since: int) -> tuple[tuple[int, ...], bool] | None:
    """Axes (an attribute before opset `since`) and keepdims of a reduction; None when nothing is reduced."""
    x = n.tensor()
    given = n.ints(1) if n.opset >= since and n.has(1) else n.attribute("axes", None)
    if not given:
        if n.attribute("noop_with_empty_axes", 0):
            return None
        given = range(x.rank)
    return tuple(sorted({n.axis(a) for a in given})), bool(n.attribute("keepdims", 1))


def write_reduction(
    e: Export, op: reduce.Reduction, kind: str, axes_input_since: int = _AXES_INPUT_SINCE
) -> None:
    """Writes a reduction as ONNX's `kind`."""
    axes, keepdims, operand = op.axes, op.keepdims, e.inputs[0]
    if not axes:
        # no axes would mean all of them: a new axis of one element is reduced instead
        axes, keepdims, operand = (0,), False, e.add("Unsqueeze", [e.inputs[0], e.ints([0])])
    reduced(e, kind, operand, axes, keepdims=keepdims, into=e.outputs, axes_input_since=axes_input_since)


def reduced(
    e: Export,
    kind: str,
    operand: str,
    axes: Sequence[int],
    *,
    keepdims: bool = True,
    into: Sequence[str] | None = None,
    axes_input_since: int = _AXES_INPUT_SINCE,
) -> str:
    """Adds ONNX's `kind` over `axes`, wherever this opset has them; returns its result."""
    if e.opset >= axes_input_since:
        return e.add(kind, [operand, e.ints(axes)], into=into, keepdims=int(keepdims))
    return e.add(kind, [operand], into=into, axes=list(axes), keepdims=int(keepdims))


def lift_global_pool(kind: str, make: Make) -> None:
    """Registers how a pool over whole planes is lifted, as a reduction."""

    @importer(kind)
    def read(n: Import) -> Value:
        return n.one(make(planes(n), True), n.tensor())


def planes(n: Import) -> tuple[int, ...]:
    """The spatial axes of [samples, channels, ...]."""
    rank = n.tensor().rank
    if rank < 3:
        raise Unmodeled("its operand has no spatial axes")
    return tuple(range(2, rank))


reduction("ReduceSum", reduce.ReduceSum, axes_input_since=13, keeps_one=True)
lift_reduction("ReduceMean", reduce.ReduceMean, keeps_one=True)
lift_global_pool("GlobalAveragePool", reduce.ReduceMean)


@exporter(reduce.ReduceMean)
def _write_reduce_mean(e: Export, op: reduce.ReduceMean) -> None:
    rank = e.operand().rank
    whole = op.keepdims and rank >= 3 and op.axes == tuple(range(2, rank))
    # runtimes have no double GlobalAveragePool
    if whole and e.operand().dtype in (DType.F16, DType.F32):
        e.result("GlobalAveragePool", e.inputs)
    else:
        write_reduction(e, op, "ReduceMean")


@importer("Expand")
def _read_expand(n: Import) -> Value:
    x = n.tensor()
    return n.one(reduce.Expand(broadcast([x.shape, tuple(map(as_dim, n.dims(1)))])), x)


@exporter(reduce.Expand)
def _write_expand(e: Export, op: reduce.Expand) -> None:
    operand = (1,) * (len(op.shape) - e.operand().rank) + e.operand().shape
    # a dimension that the operand has already may be 1 here, which spares computing it at run time
    target = [1 if same(d, mine) else d for d, mine in zip(op.shape[-len(operand) :], operand, strict=False)]
    lead = list(op.shape[: len(op.shape) - len(target)])
    e.result("Expand", [e.inputs[0], e.shape([*lead, *target])])
