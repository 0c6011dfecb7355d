"""p-norms, over axes and over windows."""

from __future__ import annotations

from functools import partial

from irshap.ir.core import Value
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.reduce import lift_reduction, planes, reduction, write_reduction
from irshap.lowering.ops.resample import kernel_of, lowest_opset, pool_attributes, pool_window, reaching
from irshap.ops import lp

__all__: list[str] = []

reduction("ReduceSumSquare", lp.ReduceSumSquare)
lift_reduction("ReduceL1", partial(lp.ReduceLp, 1))
lift_reduction("ReduceL2", partial(lp.ReduceLp, 2))


@exporter(lp.ReduceLp)
def _write_reduce_lp(e: Export, op: lp.ReduceLp) -> None:
    write_reduction(e, op, f"ReduceL{op.p}")


@importer("GlobalLpPool")
def _read_global_lp_pool(n: Import) -> Value:
    x, p, axes = n.tensor(), n.attribute("p", 2), planes(n)
    if p <= 2:
        return n.one(lp.ReduceLp(p, axes, True), x)
    plane = [x.shape[a] for a in axes]
    if not all(isinstance(d, int) for d in plane):
        raise Unmodeled(f"a {p}-norm over a size that is only known at run time")
    one = (1,) * len(axes)
    return n.one(lp.LpPool(p, tuple(map(int, plane)), one, ((0, 0),) * len(axes), one), x)


LARGEST_POWER = 64
"""A chord of |x|^p has a term for each power below p."""


@importer("LpPool")
def _read_lp_pool(n: Import) -> Value:
    kernel, p = kernel_of(n), n.attribute("p", 2)
    if not 1 <= p <= LARGEST_POWER:
        raise Unmodeled(f"irshap takes powers of 1 to {LARGEST_POWER}, not of {p}")
    windows = reaching(n, kernel, pool_window(n, kernel))
    return n.one(lp.LpPool(p, kernel, *windows), n.tensor())


@exporter(lp.LpPool, opset=lowest_opset(18))
def _write_lp_pool(e: Export, op: lp.LpPool) -> None:
    e.result("LpPool", e.inputs, p=op.p, **pool_attributes(op))
