"""How reductions are written in ONNX."""

from __future__ import annotations

from irshap.ir.types import DType
from irshap.lowering.emitter import Export, exporter
from irshap.ops import extremum, lp, reduce, reduce_log

__all__: list[str] = []

_AXES_INPUT_SINCE = 18

_KINDS: dict[type[reduce.Reduction], tuple[str, int]] = {
    extremum.ReduceMax: ("ReduceMax", _AXES_INPUT_SINCE),
    extremum.ReduceMin: ("ReduceMin", _AXES_INPUT_SINCE),
    lp.ReduceSumSquare: ("ReduceSumSquare", _AXES_INPUT_SINCE),
    reduce.ReduceSum: ("ReduceSum", 13),
    reduce_log.ReduceLogSum: ("ReduceLogSum", _AXES_INPUT_SINCE),
    reduce_log.ReduceLogSumExp: ("ReduceLogSumExp", _AXES_INPUT_SINCE),
    reduce_log.ReduceProd: ("ReduceProd", _AXES_INPUT_SINCE),
}


@exporter(*_KINDS)
def _plain(e: Export, op: reduce.Reduction) -> None:
    _reduction(e, op, *_KINDS[type(op)])


def _reduction(e: Export, op: reduce.Reduction, kind: str, axes_input_since: int) -> None:
    axes, keepdims, operand = op.axes, op.keepdims, e.inputs[0]
    if not axes:
        # no axes would mean all of them: a new axis of one element is reduced instead
        axes, keepdims, operand = (0,), False, e.add("Unsqueeze", [e.inputs[0], e.ints([0])])
    if e.opset >= axes_input_since:
        e.result(kind, [operand, e.ints(axes)], keepdims=int(keepdims))
    else:
        e.result(kind, [operand], axes=axes, keepdims=int(keepdims))


@exporter(reduce.ReduceMean)
def _reduce_mean(e: Export, op: reduce.ReduceMean) -> None:
    rank = e.operand().rank
    planes = op.keepdims and rank >= 3 and op.axes == tuple(range(2, rank))
    # runtimes have no double GlobalAveragePool
    if planes and e.operand().dtype in (DType.F16, DType.F32):
        e.result("GlobalAveragePool", e.inputs)
    else:
        _reduction(e, op, "ReduceMean", _AXES_INPUT_SINCE)


@exporter(lp.ReduceLp)
def _reduce_lp(e: Export, op: lp.ReduceLp) -> None:
    _reduction(e, op, f"ReduceL{op.p}", _AXES_INPUT_SINCE)
