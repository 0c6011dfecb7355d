"""RevealCancel and mixed: the oracle's numbers, and completeness without a threshold."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from places import FIXTURES
from revealing import (
    COMPLETE,
    PIPELINES,
    RULES,
    attribute,
    check,
    limits,
    net,
    normal,
    residual,
    singled,
)
from two_world import explain

pytestmark = pytest.mark.slow

__all__ = ["limits"]

# The published example

MIN = "(double[N, 1] a, double[N, 1] b) => (double[N, 1] o) { d = Sub(a, b) h = Relu(d) o = Sub(a, h) }"
MIN_DENSE = """(double[N, 2] x) => (double[N, 1] o)
{ d = Gemm(x, w1)  h = Relu(d)  j = Concat<axis = 1>(x, h)  o = MatMul(j, w2) }"""


@pytest.mark.parametrize("passes", PIPELINES)
@pytest.mark.parametrize(("rule", "share"), [("rescale", (0.0, 2.0)), ("reveal-cancel", (1.0, 1.0))])
def test_minimum_of_two(rule: str, share: tuple[float, float], passes: str | None) -> None:
    """o = a - relu(a - b), a > b > 0, reference 0: (0, b) by Rescale, (b/2, b/2) by RevealCancel."""
    a, b, zero = np.array([[5.0]]), np.array([[2.0]]), np.zeros((1, 1))
    two = attribute(net(MIN), {"a": a, "b": b}, {"a": zero, "b": zero}, rule=rule, passes=passes)
    assert (two["a_attributions"].item(), two["b_attributions"].item()) == pytest.approx(share, abs=1e-12)
    dense = net(MIN_DENSE, w1=np.array([[1.0], [-1.0]]), w2=np.array([[1.0], [0.0], [-1.0]]))
    for chosen in {rule, "mixed"} if rule == "reveal-cancel" else {rule}:
        one = attribute(dense, {"x": np.array([[5.0, 2.0]])}, np.zeros((1, 2)), rule=chosen, passes=passes)
        assert one["x_attributions"][0] == pytest.approx(share, abs=1e-12)


def test_one_unit_by_hand() -> None:
    """relu(x1 - x2) at (3, 1): p = 3, n = -1, y+ = (3 + 2)/2, y- = (0 - 1)/2."""
    model = net(
        "(double[N, 2] x) => (double[N, 1] y) { d = MatMul(x, w) y = Relu(d) }", w=np.array([[1.0], [-1]])
    )
    found = attribute(model, {"x": np.array([[3.0, 1.0]])}, np.zeros((1, 2)), rule="reveal-cancel")
    np.testing.assert_allclose(found["x_attributions"], [[2.5, -0.5]], rtol=1e-12)


def test_a_cancelled_unit_passes_on_what_cancelled() -> None:
    """relu(x1 - x2) at (1, 2) stays 0, its parts 1/2 and -1/2 don't, and relu(. + 1) is linear there.

    The original divides by 1e-7 where the second unit has no part, which makes its multipliers 0.
    """
    model = net(
        """(double[N, 2] x) => (double[N, 1] y)
        { d = MatMul(x, w) h = Relu(d) e = Gemm(h, one, one) y = Relu(e) }""",
        w=np.array([[1.0], [-1.0]]),
        one=np.ones((1, 1)),
    )
    for passes in PIPELINES:
        found = attribute(
            model, {"x": np.array([[1.0, 2.0]])}, np.zeros((1, 2)), rule="reveal-cancel", passes=passes
        )
        np.testing.assert_allclose(found["x_attributions"], [[0.5, -0.5]], rtol=1e-12)


# Whole networks


@pytest.mark.usefixtures("limits")
def test_residual_network() -> None:
    check(residual(), {"x": normal(1, 2, 2, 9, 9)}, {"x": normal(2, 3, 2, 9, 9)})


@pytest.mark.parametrize("name", ["digits_f64", "vgg", "vgg_bn"])
def test_trained_and_torch_networks(name: str) -> None:
    """The original definition, threshold and all: their units never lack a part."""
    single = name != "digits_f64"
    path = FIXTURES / (f"families/{name}" if single else name)
    data = np.load(path.with_suffix(".npz"))
    (given,) = data["input_names"].tolist()
    sample, references = data[f"inputs.{given}"][:2], data[f"references.{given}"][:3]
    model = onnx.load(f"{path}_dynamo.onnx" if single else f"{path}.onnx")
    close, complete = (1e-5, 1e-5) if single else (1e-12, COMPLETE)
    check(model, {given: sample}, {given: references}, close=close, complete=complete)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_networks_with_dead_units(name: str) -> None:
    """Where whole windows of units are 0, next layers lack parts: equal with the slope's limit."""
    data = np.load(FIXTURES / f"families/{name}.npz")
    (given,) = data["input_names"].tolist()
    sample, references = data[f"inputs.{given}"][:2], data[f"references.{given}"][:2]
    model = onnx.load(FIXTURES / f"families/{name}_dynamo.onnx")
    check(model, {given: sample}, {given: references}, close=1e-5, complete=1e-5)


def test_equal_inputs_get_nothing() -> None:
    x = normal(1, 2, 2, 9, 9)
    for rule, dtype in itertools.product(RULES, (np.float32, np.float64)):
        model = residual()
        if dtype is np.float32:
            model = singled(model)
        found = attribute(model, {"x": x[:1].astype(dtype)}, x[:1].astype(dtype), rule=rule)
        assert (found["x_attributions"] == 0).all()


def test_float32_far_from_the_reference() -> None:
    """No quotient of small numbers: multipliers stay finite and complete at large values."""
    model, x, r = singled(residual()), normal(1, 2, 2, 9, 9) * 1e3, normal(2, 3, 2, 9, 9) * 1e3 + 1e4
    for rule in RULES:
        found = attribute(model, {"x": x.astype(np.float32)}, r.astype(np.float32), rule=rule)
        total = np.abs(found["x_attributions"]).sum()
        assert np.abs(found["completeness_error"]).max() < 1e-4 * total


# One activation, one op at a time

DENSE = "(double[N, 6] x) => (double[N, 2] y) {{ a = Gemm(x, w1, b1) h = {} y = Gemm(h, w2) }}"
ACTIVATIONS = {
    "Relu": "Relu(a)",
    "LeakyRelu": "LeakyRelu<alpha = 0.125>(a)",
    "PRelu": "PRelu(a, slope)",
    "Elu": "Elu(a)",
    "Selu": "Selu(a)",
    "Celu": "Celu<alpha = 0.5>(a)",
    "Sigmoid": "Sigmoid(a)",
    "HardSigmoid": "HardSigmoid<alpha = 0.25>(a)",
    "HardSwish": "HardSwish(a)",
    "Tanh": "Tanh(a)",
    "Softplus": "Softplus(a)",
    "Softsign": "Softsign(a)",
    "Mish": "Mish(a)",
    "Gelu": 'Gelu<approximate = "tanh">(a)',
    "Erf": "Erf(a)",
    "Exp": "Exp(a)",
    "Abs": "Abs(a)",
    "Clip": "Clip(a, low, high)",
}


def dense(body: str) -> onnx.ModelProto:
    return net(
        DENSE.format(body),
        w1=normal(1, 6, 5),
        b1=normal(2, 5),
        w2=normal(3, 5, 2),
        slope=np.array([0.25, -0.5, 0.0, 1.5, 0.1]),
        low=np.array(-0.75),
        high=np.array(1.0),
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    """Negative slopes, too: a part may change its sign there."""
    close = 1e-6 if name == "HardSwish" else 1e-10  # ONNX's 1/6 is a float32
    check(dense(ACTIVATIONS[name]), {"x": normal(4, 3, 6)}, {"x": normal(5, 4, 6)}, close=close)


@pytest.mark.parametrize("flip", [False, True])
def test_maximum_with_a_constant_is_an_activation(flip: bool) -> None:
    x, r = {"x": normal(4, 2, 6)}, {"x": normal(5, 3, 6)}
    zero = "z = Sub(low, low) h = " + ("Max(z, a)" if flip else "Max(a, z)")
    plain = attribute(dense("Relu(a)"), x, r, rule="reveal-cancel")["x_attributions"]
    model = net(
        DENSE.format("Relu(a)").replace("h = Relu(a)", zero),
        **{t.name: numpy_helper.to_array(t) for t in dense("Relu(a)").graph.initializer},
    )
    found = attribute(model, x, r, rule="reveal-cancel")["x_attributions"]
    np.testing.assert_allclose(found, plain, rtol=1e-12)


BODIES = {
    "sub and neg": "a = Sub(c, b1) d = Neg(a) e = Relu(d) f = Sub(b1, e) g = Add(f, e)",
    "a constant times": "a = Mul(b1, c) d = Relu(a) g = Mul(d, k)",
    "a constant divides": "a = Div(c, b1) d = Relu(a) g = Div(d, k)",
    "broadcast": "a = Unsqueeze(c, one) d = Mul(a, table) e = Relu(d) g = ReduceSum<keepdims = 0>(e, one)",
    "where": "a = Where(chosen, c, b1) d = Relu(a) g = Where(chosen, b1, d)",
    "moves": """a = Reshape(c, shape) d = Transpose<perm = [0, 2, 1]>(a) e = Slice(d, zero, two, one)
        p = Pad(e, pads, k) h = Relu(p) s, t = Split<axis = 2, num_outputs = 2>(h) u = Concat<axis = 2>(t, s)
        v = Expand(u, wide) q = Squeeze(v) g = Flatten(u)""",
    "picks": "a = Gather<axis = 1>(c, twice) d = Relu(a) g = Gather<axis = 1>(d, again)",
    "means": """a = Reshape(c, shape) d = ReduceMean<keepdims = 1>(a, one) e = Relu(d) u = Sub(a, e)
        g = Flatten(u)""",
    "maxima": "a = Reshape(c, shape) d = ReduceMax<keepdims = 0>(a, one) e = Relu(d) g = Identity(e)",
    "minima": "a = Reshape(c, shape) d = ReduceMin<keepdims = 1>(a, one) e = Relu(d) g = Flatten(e)",
    "left product": "a = Reshape(c, shape) d = MatMul(left, a) e = Relu(d) g = Flatten(e)",
    "twice the same": "a = Add(c, c) d = Relu(a) g = Sum(d, a, c)",
    "running sums": "a = CumSum(c, axis) d = Relu(a) g = Identity(d)",
}
UNKNOWN_TO_THE_ORACLE = ("maxima", "minima", "running sums")


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("name", BODIES)
def test_ops_between(name: str) -> None:
    x, r = {"x": normal(4, 2, 5)}, {"x": normal(5, 3, 5)}
    model = net(
        f"""(double[N, 5] x) => (double[N, 1] y)
        {{ c = Gemm(x, w1, b1) {BODIES[name]} i = Flatten(g) y = ReduceSum<keepdims = 1>(i, one) }}""",
        w1=normal(1, 5, 6),
        b1=normal(2, 6),
        k=np.array(-1.5),
        table=normal(3, 4, 6),
        chosen=np.array([True, False, True, True, False, True]),
        shape=np.array([-1, 2, 3]),
        left=normal(6, 4, 2),
        zero=np.array([0]),
        one=np.array([1]),
        two=np.array([2]),
        axis=np.array(1),
        pads=np.array([0, 1, 0, 0, 0, 2]),
        wide=np.array([1, 1, 1]),
        twice=np.array([3, 0, 3, 5]),
        again=np.array([[2, 0], [2, 1]]),
    )
    for rule, passes in itertools.product(RULES, PIPELINES):
        found = attribute(model, x, r, rule=rule, passes=passes)
        assert np.abs(found["completeness_error"]).max() <= COMPLETE
        if name not in UNKNOWN_TO_THE_ORACLE:
            wanted = explain(model, x, r, rule=rule).values["x"]
            np.testing.assert_allclose(found["x_attributions"], wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("limits")
def test_convolutions_of_every_kind() -> None:
    model = net(
        """(double[N, 4, 7] x) => (double[N, 1] y)
        { a = Conv<group = 2, dilations = [2], pads = [1, 2]>(x, w1) d = Relu(a)
          e = ConvTranspose<strides = [2], group = 3, output_padding = [1]>(d, w2, b2) f = Sigmoid(e)
          p = MaxPool<kernel_shape = [3], strides = [2], pads = [1, 1]>(f) q = GlobalMaxPool(p)
          g = Flatten(q) y = MatMul(g, w3) }""",
        w1=normal(1, 6, 2, 3),
        w2=normal(2, 6, 1, 2),
        b2=normal(3, 3),
        w3=normal(4, 3, 1),
    )
    check(model, {"x": normal(5, 2, 4, 7)}, {"x": normal(6, 3, 4, 7)})


def test_linear_models_have_one_attribution() -> None:
    model = net(
        """(double[N, 4] x) => (double[N, 2] y)
        { a = Gemm(x, u, b) c = Sub(a, b) d = Neg(c) y = MatMul(d, v) }""",
        u=normal(1, 4, 3),
        b=normal(2, 3),
        v=normal(3, 3, 2),
    )
    x, r = {"x": normal(4, 1, 4)}, {"x": normal(5, 2, 4)}
    plain, reveal = (
        attribute(model, x, r, rule=rule)["x_attributions"] for rule in ("rescale", "reveal-cancel")
    )
    np.testing.assert_allclose(reveal, plain, rtol=1e-12)


# Which activations reveal

CONV = "Unsqueeze(x, one) c = Conv<pads = [0, 1]>(e, kernel) d = Flatten(c)"
ABOVE = {
    "none": ("a = Mul(x, k) h = Tanh(a)", False),
    "convolution": (f"e = {CONV} h = Tanh(d)", False),
    "dense": ("d = MatMul(x, w) h = Tanh(d)", True),
    "dense, further up": ("d = MatMul(x, w) a = Add(d, k) b = Neg(a) h = Tanh(b)", True),
    "dense behind convolution": (f"e = {CONV} m = MatMul(d, w) h = Tanh(m)", True),
    "convolution behind dense": (f"m = MatMul(x, w) e = {CONV.replace('(x', '(m')} h = Tanh(d)", False),
    "both": (f"e = {CONV} m = MatMul(x, w) s = Add(m, d) h = Tanh(s)", False),
    "dense and none": ("m = MatMul(x, w) s = Add(m, x) h = Tanh(s)", True),
}


@pytest.mark.parametrize("name", ABOVE)
def test_mixed_chooses_by_the_layers_above(name: str) -> None:
    body, reveals = ABOVE[name]
    model = net(
        f"(double[N, 5] x) => (double[N, 1] y) {{ {body} y = MatMul(h, v) }}",
        w=normal(1, 5, 5),
        v=normal(2, 5, 1),
        k=normal(3, 5),
        kernel=normal(4, 1, 1, 2),
        one=np.array([1]),
    )
    x, r = {"x": normal(5, 2, 5)}, {"x": normal(6, 3, 5)}
    plain, mixed, reveal = (
        attribute(model, x, r, rule=rule)["x_attributions"] for rule in ("rescale", "mixed", "reveal-cancel")
    )
    if name not in ("none", "convolution"):
        assert np.abs(plain - reveal).max() > 1e-3
    np.testing.assert_allclose(mixed, reveal if reveals else plain, rtol=1e-10, atol=1e-13)
