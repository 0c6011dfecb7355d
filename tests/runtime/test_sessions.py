"""Sessions that an older ONNX Runtime only makes without one of its fusions."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime

from irshap.lowering.files.session import Session
from irshap.runtime.sessions import opened

TRANSPOSED = """<ir_version: 8, opset_import: ["": 17]>
    g (double[N, 3] x, double[4, 3] w) => (double[4, N] y) {
        t = Transpose<perm = [1, 0]>(x)  y = MatMul(w, t) }"""


def test_a_product_of_float64_with_a_transposed_one() -> None:
    """ONNX Runtime 1.23 makes one node of it, for which it has no kernel."""
    model = onnx.parser.parse_model(TRANSPOSED)
    x, w = (np.random.default_rng(0).normal(size=(n, 3)) for n in (5, 4))
    session = opened(model.SerializeToString(), onnxruntime.SessionOptions(), ["CPUExecutionProvider"])
    for (found,) in (session.run(None, {"x": x, "w": w}), Session(model).run({"x": x, "w": w})):
        np.testing.assert_allclose(found, w @ x.T, rtol=1e-12)
