"""Scalars beside tensors that ONNX Runtime goes over number by number."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session
from irshap.text import parse_graph


@pytest.mark.parametrize(("shape", "axes"), [("N, 3, 1, 1", 4), ("N, 3, 1", 3), ("N, 3, 2, 2", 0)])
@pytest.mark.parametrize("op", ["mul", "prelu"])
def test_scalars_beside_columns_have_their_axes(op: str, shape: str, axes: int) -> None:
    """ONNX Runtime broadcasts a scalar over [..., n, 1] number by number."""
    kind = f"f32[{shape}]"
    half = "%h = constant{value=dense<f32[], [0.5]>} : f32[]"
    graph = f'graph @g\n%x = input{{name="x"}} : {kind}\n{half}\n%y = {op}(%x, %h) : {kind}\noutput "y" = %y'
    lowered = lower(parse_graph(graph))
    assert [len(t.dims) for t in lowered.graph.initializer] == [axes]
    sizes = [2 if d == "N" else int(d) for d in shape.split(", ")]
    x = np.random.default_rng(0).standard_normal(sizes).astype(np.float32)
    (found,) = Session(lowered).run({"x": x})
    np.testing.assert_array_equal(found, x * 0.5 if op == "mul" else np.where(x < 0, x * 0.5, x))


def test_a_scalar_beside_a_mean_stays_one() -> None:
    """ONNX Runtime takes the normalization for one op where it adds a scalar to the variance."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[2, 3, 4] x, float[4] scale, float[4] bias) => (float[2, 3, 4] y) {
            eps = Constant<value_float = 0.25>()  two = Constant<value_float = 2.0>()
            m = ReduceMean<axes = [-1]>(x)
            d = Sub(x, m)
            p = Pow(d, two)
            v = ReduceMean<axes = [-1]>(p)
            e = Add(v, eps)
            r = Sqrt(e)
            q = Div(d, r)
            s = Mul(q, scale)
            y = Add(s, bias)
        }"""
    )
    lowered = lower(lift(model))
    (add,) = [n for n in lowered.graph.node if n.op_type == "Add" and "e" in n.output]
    shapes = {t.name: list(t.dims) for t in lowered.graph.initializer}
    assert shapes[next(i for i in add.input if i in shapes)] == []
