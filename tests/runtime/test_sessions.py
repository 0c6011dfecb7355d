"""Sessions that an older ONNX Runtime only makes without one of its fusions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest

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


def test_only_what_lacks_that_kernel_is_loaded_without_the_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ONNX Runtime is installed: one that has the fault, and one that fails for another reason."""
    told: list[dict[str, Any]] = []
    why = "Failed to find kernel for com.microsoft.FusedMatMul(1)"

    def session(*given: Any, **more: Any) -> str:
        told.append(more)
        if "disabled_optimizers" not in more:
            raise RuntimeError(why)
        return "made"

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    assert opened(b"", None, []) == "made"
    assert told == [{}, {"disabled_optimizers": ["MatmulTransposeFusion"]}]
    why = "no such file"
    with pytest.raises(RuntimeError, match=why):
        opened(b"", None, [])
    assert len(told) == 3
