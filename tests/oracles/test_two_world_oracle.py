"""The oracle against itself, the onnx wheel, brute-force Shapley values and the facts of rules.md.

irshap isn't imported: this says whether the oracle can be trusted, not whether irshap is right.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from two_world import Result, TwoWorlds, explain, run
from two_world_cases import CASES, Case, gap, net, normal
from two_world_core import RULES, Call
from two_world_scalar import PLAIN, curve_of, secant

COMPLETE = 1e-10


class Whole(TwoWorlds):
    """Cases have inputs of any shape: a row is the whole input, not one with a batch axis of 1."""

    def rows(self, arrays: Any, index: int, count: int) -> dict[str, np.ndarray]:
        return {v.name: np.asarray(arrays[v.name])[index] for v in self.inputs if v.name in arrays}


def stack(*rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def attributions(case: Case, x: dict[str, np.ndarray], *r: dict[str, np.ndarray]) -> Result:
    result = run(Whole(case.model()), stack(x), stack(*r), 0, None)
    shapes = {name: np.shape(value) for name, value in x.items()}
    return Result(
        {name: value.reshape(shapes[name]) for name, value in result.values.items()},
        *(getattr(result, f) for f in list(Result.__dataclass_fields__)[1:]),
    )


# Every op


def test_every_rule_has_a_case() -> None:
    assert set(RULES) == {case.op for case in CASES}


def by_the_wheel(model: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(ReferenceEvaluator(model).run(None, feeds))


def by_onnxruntime(model: Any, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_is_the_operators_definition(case: Case) -> None:
    """One of the two agrees in float32; both do but for what one of them lacks.

    The wheel's evaluator is wrong about LRN, Softmax before opset 13, LpNormalization with p = 1 and grouped
    ConvTranspose (1.23).
    """
    model, feeds = case.model(), case.feeds(1)
    names = [output.name for output in model.graph.output]
    own = TwoWorlds(model).world(feeds)
    told = []
    for engine in (by_the_wheel, by_onnxruntime):
        try:
            for name, value in zip(names, engine(model, feeds), strict=True):
                np.testing.assert_allclose(own[name], value, rtol=1e-4, atol=3e-5)
            return
        except Exception as error:  # any refusal of either engine
            told.append(f"{engine.__name__}: {error}")
    raise AssertionError("\n".join(told))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_is_complete(case: Case) -> None:
    result = attributions(case, case.feeds(1), case.feeds(2), case.feeds(3))
    assert gap(result) < COMPLETE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_multiplier_tends_to_the_derivative(case: Case) -> None:
    """Completeness fixes m only along x - r; for r close to x, m must be the gradient elsewhere too."""
    x, rng, step = case.feeds(1), np.random.default_rng(5), 1e-5
    x = {k: v.astype(float) for k, v in x.items()}
    r = {k: v - step * rng.choice([-1.0, 1.0], v.shape) for k, v in x.items()}
    result = attributions(case, x, r)
    worlds = TwoWorlds(case.model())

    def f(t: float) -> float:
        return float(worlds.world({k: v + t * way[k] for k, v in x.items()})["s"].item())

    way = {k: rng.normal(size=v.shape) for k, v in x.items()}
    numeric = (f(1e-5) - f(-1e-5)) / 2e-5
    parts = [result.values[k] / (x[k] - r[k]) * way[k] for k in x]
    scale = sum(np.abs(p).sum() for p in parts) + 1
    assert abs(sum(p.sum() for p in parts) - numeric) < 1e-4 * scale


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_change_no_attribution(case: Case) -> None:
    x = case.feeds(1)
    result = attributions(case, x, x)
    assert all((v == 0).all() for v in result.values.values())


def shapley(f: Any, x: dict[str, np.ndarray], r: dict[str, np.ndarray]) -> dict[str, float]:
    """Each operand as one player, by all orders."""
    out = dict.fromkeys(x, 0.0)
    orders = list(itertools.permutations(x))
    for order in orders:
        feeds = dict(r)
        for name in order:
            before = f(feeds)
            feeds[name] = x[name]
            out[name] += (f(feeds) - before) / len(orders)
    return out


SEVERAL = [c for c in CASES if sum(isinstance(o, tuple) for o in c.operands) > 1]


@pytest.mark.parametrize("case", [c for c in SEVERAL if len(c.operands) < 4], ids=str)
def test_operands_share_by_shapley(case: Case) -> None:
    """Sum, Max etc. of four operands fold; everything else is exactly the game among its operands."""
    x, r = case.feeds(1), case.feeds(2)
    result, worlds = attributions(case, x, r), TwoWorlds(case.model())
    for name, value in shapley(lambda feeds: worlds.world(feeds)["s"].item(), x, r).items():
        assert result.values[name].sum() == pytest.approx(value, rel=1e-9, abs=1e-9)


# Elementwise


@pytest.mark.parametrize("op", [*PLAIN, "Elu", "Selu", "Celu", "HardSigmoid", "Gelu", "Clip"])
def test_secant_near_zero_difference(op: str) -> None:
    """Where a quotient of float64 would have lost its digits."""
    call = Call("c", op, 21, {"min": 0.0, "max": 6.0, "approximate": "tanh"}, 1)
    curve = curve_of(call, [None, np.array(-0.5), np.array(0.7)])
    x = np.array([0.31, 0.9, 1.7, 3.3]) if op in ("Log", "Sqrt", "Reciprocal") else normal(0, 9) * 2
    for step in (0.0, 1e-14, 1e-11, 1e-8, 1e-6):
        middle = curve.slope((x + (x - step)) / 2)
        np.testing.assert_allclose(secant(curve, x, x - step), middle, rtol=1e-11, atol=1e-13)
    far = secant(curve, x, x + 1.5)
    np.testing.assert_allclose(far, (curve.f(x + 1.5) - curve.f(x)) / 1.5, rtol=1e-12, atol=1e-14)


def test_secant_across_a_kink() -> None:
    relu = PLAIN["Relu"]
    x, r = np.array([1e-9, 3.0, 0.0, -2.0, 0.0]), np.array([-3e-9, -1.0, -1.0, -1.0, 0.0])
    np.testing.assert_allclose(secant(relu, x, r), [0.25, 0.75, 0, 0, 0], rtol=1e-15)


CHAINS = {
    "silu": ("s = Sigmoid(x) y = Mul(x, s)", lambda x: x / (1 + np.exp(-x))),
    "gelu by erf": (
        "a = Mul(x, c) b = Erf(a) d = Add(b, one) e = Mul(x, d) y = Mul(e, half)",
        lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    ),
    "gelu, the op": ("y = Gelu(x)", lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2),
    "gelu by tanh": (
        "q = Pow(x, three) a = Mul(q, k) b = Add(x, a) d = Mul(b, w) t = Tanh(d) e = Add(t, one)"
        " u = Mul(x, e) y = Mul(u, half)",
        lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "hardswish": (
        "h = HardSigmoid<alpha = 0.16666667>(x) y = Mul(x, h)",
        lambda x: x * np.clip(x * float(np.float32(0.16666667)) + 0.5, 0, 1),
    ),
    "mish": (
        "s = Softplus(x) t = Tanh(s) y = Mul(x, t)",
        lambda x: x * np.tanh(np.log1p(np.exp(x))),
    ),
    "division": ("a = Mul(x, x) b = Add(a, one) y = Div(x, b)", lambda x: x / (1 + x * x)),
    "one entry normalized": (
        "a = Mul(x, x) b = Add(a, one) d = Sqrt(b) e = Reciprocal(d) y = Mul(x, e)",
        lambda x: x / np.sqrt(1 + x * x),
    ),
    "max with itself": ("a = Neg(x) y = Max(x, a)", np.abs),
}


@pytest.mark.parametrize("name", CHAINS)
def test_one_dimensional_lemma(name: str) -> None:
    """Any chain of complete rules on one scalar gives Df, so every decomposition gives the same."""
    body, f = CHAINS[name]
    body = body.replace(") ", ")\n").replace("\n", "\n  ")
    model = net(
        f"agraph (float[N, 9] x) => (float[N, 9] y) {{ {body} }}",
        c=1 / math.sqrt(2),
        one=1.0,
        half=0.5,
        three=3.0,
        k=0.044715,
        w=math.sqrt(2 / math.pi),
    )
    x, r = normal(1, 1, 9) * 2, normal(2, 3, 9) * 2
    for target in range(9):
        result = explain(model, {"x": x}, {"x": r}, target=target)
        expected = np.zeros((1, 9))
        expected[0, target] = np.mean(f(x) - f(r), axis=0)[target]
        np.testing.assert_allclose(result.values["x"], expected, rtol=1e-10, atol=1e-12)


# The facts of rules.md


def softmax_closed(x: np.ndarray, r: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Section 5 as it stands there."""

    def phi(d: np.ndarray) -> np.ndarray:
        return np.where(d == 0, 1.0, -np.expm1(-d) / np.where(d == 0, 1.0, d))

    l, l0 = (np.log(np.exp(v - v.max()).sum()) + v.max() for v in (x, r))  # noqa: E741
    L = np.exp(np.maximum(x - l, r - l0)) * phi(np.abs((x - l) - (r - l0)))
    w = np.exp(np.maximum(x, r) - max(l, l0)) * phi(np.abs(x - r)) / phi(np.abs(l - l0))
    return L * g - w * (g * L).sum()


@pytest.mark.parametrize("masked", [0, 2])
def test_softmax_closed_form_and_masks(masked: int) -> None:
    model = net("agraph (float[1, 6] x) => (float[1, 6] y) { a = Add(x, m) y = Softmax(a) }", m=np.zeros(6))
    mask = np.where(np.arange(6) < masked, -1e9, 0.0)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(mask, "m"))
    x, r = normal(1, 1, 6) * 3, normal(2, 1, 6) * 3
    for target in range(6):
        result = explain(model, {"x": x}, {"x": r}, target=target)
        expected = softmax_closed(x[0] + mask, r[0] + mask, np.eye(6)[target]) * (x - r)[0]
        np.testing.assert_allclose(result.values["x"][0], expected, rtol=1e-12, atol=1e-15)
        assert gap(result) < 1e-14
        assert (result.values["x"][0, :masked] == 0).all()


def test_softmax_mask_that_moves() -> None:
    """Masked in the reference only: D of 1e9, and every number stays finite and complete."""
    model = net("agraph (float[1, 4] x) => (float[1, 4] y) { y = Softmax(x) }")
    x, r = normal(1, 1, 4), normal(2, 1, 4) - np.array([0, 1e9, 0, 0])
    for a, b, target in itertools.product((x, r), (x, r, r - 1e9), range(4)):
        result = explain(model, {"x": a}, {"x": b}, target=target)
        # A row moved as a whole by 1e9 has attributions of that size, which cancel.
        assert np.abs(result.error).max() <= 1e-15 * max(result.op_scales.values()) + 1e-15


def test_softmax_ignores_what_logits_share() -> None:
    """x - l must not be rounded at the size of l: logits of 1e10 that differ by 1 are an ordinary row."""
    model = net("agraph (float[1, 4] x) => (float[1, 4] y) { y = Softmax(x) }")
    x, r = np.array([[1.0, 4.0, 2.0, 0.0]]), np.array([[0.0, 1.0, 1.0, 3.0]])
    near = explain(model, {"x": x}, {"x": r}, target=1)
    far = explain(model, {"x": x + 2.0**34}, {"x": r + 2.0**34}, target=1)
    np.testing.assert_allclose(far.values["x"], near.values["x"], rtol=1e-12)


@pytest.mark.parametrize("center", [True, False], ids=["LayerNormalization", "RMSNormalization"])
def test_normalization_closed_form(center: bool) -> None:
    """Section 6 as it stands there."""
    n, eps, gamma = 5, float(np.float32(1e-5)), normal(3, 5)
    op = "LayerNormalization" if center else "RMSNormalization"
    model = net(
        f"agraph (float[1, 5] x) => (float[1, 1] y) {{ z = {op}(x, gamma) y = MatMul(z, g) }}",
        23,
        gamma=gamma,
        g=normal(4, 5, 1),
    )
    x, r = normal(1, 1, n), normal(2, 1, n)
    a, a0 = (v[0] - (v.mean() if center else 0.0) for v in (x, r))
    v, v0 = ((b @ b / n + eps) ** -0.5 for b in (a, a0))
    gg = normal(4, 5, 1)[:, 0] * gamma
    m = (v + v0) / 2 * (gg - (gg.mean() if center else 0.0))
    m = m - v * v0 * (v * v0 / (v + v0)) * (a + a0) / (2 * n) * (gg @ (a + a0))
    result = explain(model, {"x": x}, {"x": r})
    np.testing.assert_allclose(result.values["x"][0], m * (x - r)[0], rtol=1e-12)


def test_constant_reference_row_keeps_normalization_complete() -> None:
    """v0 = eps^(-1/2): larger multipliers, still complete."""
    model = net(
        "agraph (float[1, 8] x) => (float[1, 1] y) { z = LayerNormalization(x, s) y = MatMul(z, g) }",
        s=np.ones(8),
        g=normal(4, 8, 1),
    )
    assert gap(explain(model, {"x": normal(1, 1, 8)}, {"x": np.zeros((1, 8))})) < COMPLETE


def test_overlapping_max_pools() -> None:
    """Shares of overlapping windows add up; each window's multiplier is at most its own g."""
    model = net(
        """agraph (float[1, 2, 7, 7] x) => (float[1, 1] y)
        { p = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)
          f = Flatten(p) y = MatMul(f, g) }""",
        g=normal(4, 32, 1),
    )
    for seed in range(20):
        x, r = normal(seed, 1, 2, 7, 7), normal(seed + 100, 1, 2, 7, 7)
        result = explain(model, {"x": x}, {"x": r})
        assert gap(result) < 1e-13
        # No entry is in more than four of these windows.
        assert np.abs(result.values["x"] / (x - r)).max() <= 4 * np.abs(normal(4, 32, 1)).max()


def test_tied_maxima_go_to_the_first() -> None:
    model = net("agraph (float[1, 4] x) => (float[1, 1] y) { y = ReduceMax<axes = [1]>(x) }", 13)
    result = explain(model, {"x": np.array([[1.0, 3, 3, 0]])}, {"x": np.zeros((1, 4))})
    np.testing.assert_array_equal(result.values["x"], [[0, 3, 0, 0]])


def test_zero_row_normalized_by_its_norm() -> None:
    text = "agraph (float[1, 4] x) => (float[1, 1] y) { z = LpNormalization(x) y = MatMul(z, g) }"
    model = net(text, g=normal(4, 4, 1))
    x, zero = normal(1, 1, 4), np.zeros((1, 4))
    for a, b in ((x, zero), (zero, x)):
        assert gap(explain(model, {"x": a}, {"x": b})) < 1e-14
