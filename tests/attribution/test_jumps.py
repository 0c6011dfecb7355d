"""Which activations jump: a path method refuses them, because a sum of derivatives misses the jump."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from revealing import net, normal

import irshap
from irshap.attribution.jumps import jumps
from irshap.errors import NotDifferentiable
from irshap.ir.builder import Builder
from irshap.ir.core import OPS, Op, Point
from irshap.ops.families import Elementwise
from irshap.ops.program import constant

ONE = {name: cls for name, cls in OPS.items() if issubclass(cls, Elementwise)}


@pytest.mark.parametrize("name", sorted(ONE))
def test_ops_of_one_number(name: str) -> None:
    sample = next(iter(ONE[name].samples()))
    assert jumps(sample.op, _point(sample.op, *sample.operands)) is (name == "thresholded_relu")


def _point(op: Op, *arrays: Any) -> Point:
    with Builder() as b:
        operands = tuple(constant(a) for a in arrays)
        return Point(operands, b.emit(op, *operands))


BODIES = {
    "y = Round(a)": True,
    "f = Floor(a) y = Sub(a, f)": True,
    "y = Sign(a)": True,
    "c = Greater(a, one) y = Where(c, a, zero)": True,
    "c = Greater(a, many) y = Where(c, a, zero)": True,
    "b = Abs(a) c = Greater(b, one) y = Where(c, a, zero)": True,
    "b = Abs(a) c = Greater(b, one) s = Sign(a) d = Sub(a, s) y = Where(c, d, zero)": False,
    "c = Greater(a, zero) y = Where(c, a, zero)": False,
    "e = Exp(a) p = Add(e, one) l = Log(p) c = Greater(a, large) y = Where(c, a, l)": False,
    "c = Less(a, many) y = Where(c, many, a)": False,
    "y = Reciprocal(a)": False,
}


@pytest.mark.parametrize("kind", ["float16", "float", "double"])
@pytest.mark.parametrize("body", BODIES)
def test_functions_that_models_spell_out(body: str, kind: str) -> None:
    """Refused with the reason, or left out with the difference in the certificate."""
    width = {"float16": np.float16, "float": np.float32, "double": np.float64}[kind]
    numbers = {"zero": 0.0, "one": 1.0, "large": 20.0, "many": normal(1, 5)}
    model = net(
        f"({kind}[N, 4] x) => ({kind}[N, M] y) {{ a = MatMul(x, w) {body} }}",
        w=normal(2, 4, 5).astype(width),
        **{k: np.asarray(v, width) for k, v in numbers.items()},
    )
    references, method = normal(3, 2, 4).astype(width), "integrated-gradients{steps=4}"
    if not BODIES[body]:
        irshap.compile(model, references, method=method, target=0)
        return
    with pytest.raises(NotDifferentiable, match="it jumps, and derivatives on a path don't add up"):
        irshap.compile(model, references, method=method, target=0)
    residual = "integrated-gradients{steps=4,on_incomplete=residual}"
    left = irshap.compile(model, references, method=residual, target=0)
    assert "it jumps" in next(p.value for p in left.model.metadata_props if p.key == "irshap.incomplete")


def test_what_depends_on_other_values_is_not_known() -> None:
    model = net(
        """(double[N, 4] x, double[N, 4] k) => (double[N, 4] y)
        { c = Greater(x, k) z = Sub(k, k) y = Where(c, x, z) }"""
    )
    target = irshap.Target("0", context="k")
    with pytest.raises(NotDifferentiable, match="isn't known to be continuous"):
        irshap.compile(model, normal(1, 2, 4), method="integrated-gradients", target=target)
