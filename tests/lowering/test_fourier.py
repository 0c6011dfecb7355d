"""The discrete Fourier transform lifts to a product with its matrix."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session

FORMS = {
    "real": ("N, 6, 1", 17, "DFT(x)"),
    "complex": ("N, 5, 2", 17, "DFT(x)"),
    "one side": ("N, 7, 1", 17, "DFT<onesided = 1>(x)"),
    "inverse": ("N, 6, 2", 17, "DFT<inverse = 1>(x)"),
    "another axis": ("N, 3, 4, 2", 17, "DFT<axis = 2>(x)"),
    "axis as an input": ("N, 3, 4, 1", 20, "DFT(x, , at)"),
    "the axis before the last": ("N, 3, 4, 1", 20, "DFT(x)"),
}


def model(name: str) -> onnx.ModelProto:
    shape, opset, node = FORMS[name]
    return onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": {opset}]> g (float[{shape}] x) => (float[N, m] y)
        <int64 at = {{1}}> {{ f = {node} t = Tanh(f) y = Flatten(t) }}"""
    )


@pytest.mark.parametrize("name", FORMS)
def test_as_onnx_runtime_has_it(name: str) -> None:
    graph = lift(model(name))
    assert all(n.op.modeled for n in graph.nodes)
    shape = [2, *(int(d) for d in FORMS[name][0].split(", ")[1:])]
    x, r = (np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i in range(2))
    here, there = (Session(m).run({"x": x})[0] for m in (lower(graph), model(name)))
    np.testing.assert_allclose(here, there, atol=1e-5)
    found = irshap.compile(model(name), r).explainer()(x)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)
