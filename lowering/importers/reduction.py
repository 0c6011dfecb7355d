"""How ONNX reductions are lifted, and global pooling, which reduces the spatial axes."""

from __future__ import annotations

from collections.abc import Callable

from irshap.ir.core import Op, Value
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import extremum, lp, reduce, reduce_log

__all__: list[str] = []

Make = Callable[[tuple[int, ...], bool], Op]


def _norm(p: int) -> Make:
    return lambda axes, keepdims: lp.ReduceLp(p, axes, keepdims)


_KINDS: dict[str, Make] = {
    "ReduceL1": _norm(1),
    "ReduceL2": _norm(2),
    "ReduceLogSum": reduce_log.ReduceLogSum,
    "ReduceLogSumExp": reduce_log.ReduceLogSumExp,
    "ReduceMax": extremum.ReduceMax,
    "ReduceMean": reduce.ReduceMean,
    "ReduceMin": extremum.ReduceMin,
    "ReduceProd": reduce_log.ReduceProd,
    "ReduceSum": reduce.ReduceSum,
    "ReduceSumSquare": lp.ReduceSumSquare,
}
_LEAVE_ONE_ALONE = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")
"""Reductions of a single element that give it back."""


def reduced_axes(n: Import, since: int) -> tuple[tuple[int, ...], bool] | None:
    """Axes (an attribute before opset `since`) and keepdims of a reduction; None when nothing is reduced."""
    x = n.tensor()
    given = n.ints(1) if n.opset >= since and n.has(1) else n.attribute("axes", None)
    if not given:
        if n.attribute("noop_with_empty_axes", 0):
            return None
        given = range(x.rank)
    return tuple(sorted({n.axis(a) for a in given})), bool(n.attribute("keepdims", 1))


@importer(*_KINDS)
def _reduce(n: Import) -> Value:
    kind = n.proto.op_type
    found = reduced_axes(n, 13 if kind == "ReduceSum" else 18)
    if found is not None:
        return n.one(_KINDS[kind](*found), n.tensor())
    if kind not in _LEAVE_ONE_ALONE:
        raise Unmodeled("what it does without axes is a matter of dispute")
    return n.tensor()


_GLOBAL: dict[str, Make] = {
    "GlobalAveragePool": reduce.ReduceMean,
    "GlobalMaxPool": extremum.ReduceMax,
}


def _planes(n: Import) -> tuple[int, ...]:
    rank = n.tensor().rank
    if rank < 3:
        raise Unmodeled("its operand has no spatial axes")
    return tuple(range(2, rank))


@importer(*_GLOBAL)
def _global_pool(n: Import) -> Value:
    return n.one(_GLOBAL[n.proto.op_type](_planes(n), True), n.tensor())


@importer("GlobalLpPool")
def _global_lp_pool(n: Import) -> Value:
    x, p, axes = n.tensor(), n.attribute("p", 2), _planes(n)
    if p <= 2:
        return n.one(lp.ReduceLp(p, axes, True), x)
    plane = [x.shape[a] for a in axes]
    if not all(isinstance(d, int) for d in plane):
        raise Unmodeled(f"a {p}-norm over a size that is only known at run time")
    one = (1,) * len(axes)
    return n.one(lp.LpPool(p, tuple(map(int, plane)), one, ((0, 0),) * len(axes), one), x)
