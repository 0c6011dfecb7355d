"""The discrete Fourier transform lifts to a product with its matrix."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from kernels import loaded

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
    "padded": ("N, 5, 1", 20, "DFT(x, eight)"),
    "cut": ("N, 11, 2", 20, "DFT<inverse = 1>(x, eight)"),
    "one side, padded": ("N, 5, 1", 20, "DFT<onesided = 1>(x, eight)"),
    "back from one side": ("N, 5, 2", 20, "DFT<inverse = 1, onesided = 1>(x, eight)"),
    "back to an odd length": ("N, 4, 2", 20, "DFT<inverse = 1, onesided = 1>(x, seven)"),
    "back, the length left open": ("N, 5, 2", 20, "DFT<inverse = 1, onesided = 1>(x)"),
}


def model(name: str) -> onnx.ModelProto:
    shape, opset, node = FORMS[name]
    return onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": {opset}]> g (float[{shape}] x) => (float[N, m] y)
        <int64 at = {{1}}, int64 eight = {{8}}, int64 seven = {{7}}> {{
            f = {node} t = Tanh(f) y = Flatten(t) }}"""
    )


@pytest.mark.parametrize("name", FORMS)
def test_as_onnx_runtime_has_it(name: str) -> None:
    graph = lift(model(name))
    assert all(n.op.modeled for n in graph.nodes)
    shape = [2, *(int(d) for d in FORMS[name][0].split(", ")[1:])]
    x, r = (np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i in range(2))
    found = irshap.compile(model(name), r).explainer()(x)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)
    (here,) = Session(lower(graph)).run({"x": x})
    np.testing.assert_allclose(here, loaded(model(name)).run({"x": x})[0], atol=1e-5)


@pytest.mark.parametrize(("bins", "length"), [(5, 8), (4, 7), (3, 8), (7, 8), (1, 1), (2, 2)])
def test_back_from_one_side_as_numpy_has_it(bins: int, length: int) -> None:
    """Fewer numbers than half the length are followed by zeros, more are cut."""
    source = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 20]> g (float[N, {bins}, 2] x) => (float[N, m, 1] y)
        <int64 l = {{{length}}}> {{ y = DFT<inverse = 1, onesided = 1>(x, l) }}"""
    )
    x = np.random.default_rng(0).standard_normal((3, bins, 2)).astype(np.float32)
    (found,) = Session(lower(lift(source))).run({"x": x})
    expected = np.fft.irfft(x[..., 0] + 1j * x[..., 1], length)
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-6)
