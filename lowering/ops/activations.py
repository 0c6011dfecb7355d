"""Activations with kinks."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import DType
from irshap.lowering.alike import alike, lift_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import activations, arithmetic
from irshap.ops.program import Constant

__all__: list[str] = []

alike("HardSigmoid", activations.HardSigmoid, alpha=0.2, beta=0.5)
alike("LeakyRelu", activations.LeakyRelu, alpha=0.01)
alike("PRelu", activations.PRelu)
alike("Selu", activations.Selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875)
alike("ThresholdedRelu", activations.ThresholdedRelu, alpha=1.0)
lift_alike("Celu", activations.Celu, alpha=1.0)


@exporter(activations.Celu)
def _write_celu(e: Export, op: activations.Celu) -> None:
    if e.operand().dtype is DType.F32:
        e.result("Celu", e.inputs, alpha=op.alpha)
        return
    # ONNX has it for float32 only
    inner = e.add("Elu", [e.add("Div", [e.inputs[0], e.number(op.alpha)])])
    e.result("Mul", [inner, e.number(op.alpha)])


@importer("Clip")
def _read_clip(n: Import) -> Value:
    """Bounds are attributes before opset 11, then inputs.

    Bounds of integers and those that are computed become max and min.
    """
    x = n.tensor()
    if n.opset < 11:
        return n.one(activations.Clip(*_bounds(x, n.attribute("min", None), n.attribute("max", None))), x)
    given = [n.tensor(i) if n.has(i) else None for i in (1, 2)]
    if any(v is not None and v.rank > 0 and v.shape != (1,) for v in given):
        raise Unmodeled("its bounds are no scalars")
    if x.dtype.is_float and all(v is None or isinstance(v.node.op, Constant) for v in given):
        low, high = (float(n.static(i).item()) if n.has(i) else None for i in (1, 2))
        return n.one(activations.Clip(*_bounds(x, low, high)), x)
    if not x.dtype.is_float and x.dtype not in (DType.I32, DType.I64):
        # older runtimes clip these, but have no max and min of them
        raise Unmodeled(f"it clips {x.dtype.value}")
    for op, bound in ((arithmetic.Max(), given[0]), (arithmetic.Min(), given[1])):
        x = x if bound is None else n.one(op, x, bound)
    return x


def _bounds(x: Value, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """The bounds that matter: the largest number (the default in older opsets) and infinity are none."""
    top = float(np.finfo(x.dtype.numpy).max)
    return None if low is None or low <= -top else low, None if high is None or high >= top else high


@exporter(activations.Clip)
def _write_clip(e: Export, op: activations.Clip) -> None:
    bounds = ["" if b is None else e.number(b) for b in (op.low, op.high)]
    while bounds and not bounds[-1]:
        bounds.pop()
    e.result("Clip", [*e.inputs, *bounds])
