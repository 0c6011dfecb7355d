"""How powers, trigonometry, logic and rounding are lifted."""

from __future__ import annotations

from collections.abc import Callable

from irshap.ir.core import Op, Value
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import logic, power, trigonometry
from irshap.ops.cast import cast
from irshap.ops.program import Constant

__all__: list[str] = []

_PLAIN: dict[str, Callable[[], Op]] = {
    "Acos": trigonometry.Acos,
    "Acosh": trigonometry.Acosh,
    "And": logic.And,
    "Asin": trigonometry.Asin,
    "Asinh": trigonometry.Asinh,
    "Atan": trigonometry.Atan,
    "Atanh": trigonometry.Atanh,
    "Ceil": logic.Ceil,
    "Cos": trigonometry.Cos,
    "Cosh": trigonometry.Cosh,
    "Floor": logic.Floor,
    "GreaterOrEqual": logic.GreaterOrEqual,
    "IsNaN": logic.IsNaN,
    "LessOrEqual": logic.LessOrEqual,
    "Not": logic.Not,
    "Or": logic.Or,
    "Reciprocal": power.Reciprocal,
    "Round": logic.Round,
    "Sign": logic.Sign,
    "Sin": trigonometry.Sin,
    "Sinh": trigonometry.Sinh,
    "Tan": trigonometry.Tan,
    "Xor": logic.Xor,
}


@importer(*_PLAIN)
def _plain(n: Import) -> Value:
    return n.one(_PLAIN[n.proto.op_type](), *(n.tensor(i) for i in range(len(n.inputs))))


@importer("Pow")
def _pow(n: Import) -> Value:
    """One constant exponent for all elements is an attribute; others have the base's element type."""
    base, exponent = n.tensor(0), n.tensor(1)
    if base.dtype.is_float:
        constant = exponent.node.op
        if isinstance(constant, Constant) and constant.value.array.size == 1 and exponent.rank <= base.rank:
            return n.one(power.Power(float(constant.value.array.item())), base)
        return n.one(power.Pow(), base, cast(exponent, base.dtype))
    if base.dtype is not exponent.dtype:
        raise Unmodeled(f"a power of {base.dtype.value} with an exponent in {exponent.dtype.value}")
    return n.one(power.Pow(), base, exponent)


@importer("IsInf")
def _is_inf(n: Import) -> Value:
    sides = (bool(n.attribute(f"detect_{side}", 1)) for side in ("negative", "positive"))
    return n.one(logic.IsInf(*sides), n.tensor())


@importer("Mod")
def _mod(n: Import) -> Value:
    return n.one(logic.Mod(bool(n.attribute("fmod", 0))), n.tensor(0), n.tensor(1))
