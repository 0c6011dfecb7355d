"""DeepExplain's published case (Ancona et al. 2018): f = relu(relu(a - 1) - relu(b)), off at (-10, -5).

What its tests expect of every method, as numbers that can be followed by hand: at (3, 1) f is 1, its gradient
(1, -1), half of the way from zero is spent at f = 0.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from revealing import net

import irshap

OFF, ON, ZERO = (-10.0, -5.0), (3.0, 1.0), np.zeros((1, 2))
EXPECTED: dict[str, tuple[tuple[float, float], float]] = {
    "saliency": ((1, 1), 1e-10),
    "gradient": ((1, -1), 1e-10),
    "input-x-gradient": ((3, -1), 1e-10),
    "integrated-gradients{rule=right,steps=100}": ((1.5, -0.5), 0.05),
    "integrated-gradients{rule=right,steps=500}": ((1.5, -0.5), 0.005),
    "integrated-gradients{steps=500}": ((1.5, -0.5), 0.005),
    "epsilon-lrp": ((3, -1), 1e-3),
    "epsilon-lrp{epsilon=1e-9}": ((3, -1), 1e-7),
    "deeplift": ((2, -1), 1e-10),
    "occlusion": ((1, -1), 1e-10),
    "occlusion{window=2}": ((0.5, 0.5), 1e-10),
    "occlusion{window=1,step=2}": ((1, 0), 1e-10),  # not a number there, which nothing covers
    "exact-shapley": ((1.5, -0.5), 1e-10),
    "shapley-sampling{samples=1000}": ((1.5, -0.5), 0.1),
    "kernel-shap": ((1.5, -0.5), 1e-10),
}
"""By method: the attributions at (3, 1), and how near."""
AGAINST = ("integrated", "deeplift", "exact", "shapley", "kernel")


def model() -> onnx.ModelProto:
    return net(
        """(double[N, 2] x) => (double[N, 1] y)
        { a = Gemm(x, one, shift) b = Relu(a) c = MatMul(b, signs) y = Relu(c) }""",
        one=np.eye(2),
        shift=np.array([-1.0, 0.0]),
        signs=np.array([[1.0], [-1.0]]),
    )


@pytest.mark.parametrize("method", EXPECTED)
def test_its_values(method: str) -> None:
    wanted, near = EXPECTED[method]
    references = ZERO if method.startswith(AGAINST) else None
    found = irshap.compile(model(), references, method=method).explainer()(np.array([OFF, ON])).values
    np.testing.assert_allclose(found, [(0, 0), wanted], atol=near, rtol=0)


@pytest.mark.parametrize("method", [m for m in EXPECTED if m.startswith(AGAINST)])
def test_nothing_against_itself(method: str) -> None:
    x = np.array([ON])
    assert not irshap.compile(model(), x, method=method).explainer()(x).values.any()
