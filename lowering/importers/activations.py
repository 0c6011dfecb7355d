"""How activation functions are lifted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from irshap.ir.core import Op, Value
from irshap.ir.types import DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import activations, arithmetic, gated
from irshap.ops.program import Constant

__all__: list[str] = []

_ATTRIBUTES: dict[str, tuple[Callable[..., Op], Mapping[str, float]]] = {
    "Celu": (activations.Celu, {"alpha": 1.0}),
    "Erf": (gated.Erf, {}),
    "HardSigmoid": (activations.HardSigmoid, {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": (gated.HardSwish, {}),
    "LeakyRelu": (activations.LeakyRelu, {"alpha": 0.01}),
    "Mish": (gated.Mish, {}),
    "PRelu": (activations.PRelu, {}),
    "Selu": (activations.Selu, {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}),
    "Softsign": (gated.Softsign, {}),
    "Swish": (gated.Swish, {"alpha": 1.0}),
    "ThresholdedRelu": (activations.ThresholdedRelu, {"alpha": 1.0}),
}
"""The op and the defaults of its attributes."""


@importer(*_ATTRIBUTES)
def _attributes(n: Import) -> Value:
    make, defaults = _ATTRIBUTES[n.proto.op_type]
    op = make(*(n.attribute(name, default) for name, default in defaults.items()))
    return n.one(op, *(n.tensor(i) for i in range(len(n.inputs))))


@importer("Gelu")
def _gelu(n: Import) -> Value:
    return n.one(gated.Gelu(n.attribute("approximate", "none") == "tanh"), n.tensor())


@importer("Clip")
def _clip(n: Import) -> Value:
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
