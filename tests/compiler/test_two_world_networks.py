"""The oracle on whole networks: completeness, RevealCancel, batches of samples, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from places import FIXTURES
from two_world import Refused, explain
from two_world_cases import gap, net, normal

pytestmark = pytest.mark.slow

COMPLETE = 1e-10

# Whole networks

RESIDUAL = """agraph (float[1, 2, 9, 9] x) => (float[1, 3] y)
{ c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1, b1)
  n = BatchNormalization(c, scale, shift, mean, var)
  a = Relu(n)
  p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(a)
  d = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p, w2)
  e = Relu(d)
  s = Add(e, p)
  t = Concat<axis = 1>(s, p)
  q = GlobalAveragePool(t)
  f = Flatten(q)
  h = Gemm<transB = 1>(f, w3, b3)
  k = Tanh(h)
  y = Gemm(k, w4) }"""


def residual() -> Any:
    return net(
        RESIDUAL,
        w1=normal(1, 4, 2, 3, 3),
        b1=normal(2, 4),
        scale=np.array([1.0, -0.7, 0.4, 1.3]),
        shift=normal(3, 4),
        mean=normal(4, 4),
        var=np.array([0.5, 1.0, 2.0, 0.3]),
        w2=normal(5, 4, 4, 3, 3) / 3,
        w3=normal(6, 5, 8),
        b3=normal(7, 5),
        w4=normal(8, 5, 3),
    )


ATTENTION = """agraph (int64[1, 4] ids, float[1, 4, 6] e, float[1, 1, 1, 4] mask, float[1, 6] extra)
  => (float[1, 2] y)
{ z = LayerNormalization(e, gamma, beta)
  q = MatMul(z, wq)  k = MatMul(z, wk)  v = MatMul(z, wv)
  qh = Reshape(q, heads)  kh = Reshape(k, heads)  vh = Reshape(v, heads)
  qt = Transpose<perm = [0, 2, 1, 3]>(qh)
  kt = Transpose<perm = [0, 2, 3, 1]>(kh)
  vt = Transpose<perm = [0, 2, 1, 3]>(vh)
  s = MatMul(qt, kt)
  sc = Div(s, root)
  sm = Add(sc, mask)
  p = Softmax<axis = -1>(sm)
  o = MatMul(p, vt)
  ot = Transpose<perm = [0, 2, 1, 3]>(o)
  om = Reshape(ot, merged)
  res = Add(e, om)
  ms = Mul(res, res)
  mean = ReduceMean<keepdims = 1>(ms, last)
  rms = Sqrt(mean)
  u = Div(res, rms)
  up = MatMul(u, wu)
  gate = Sigmoid(up)
  act = Mul(up, gate)
  emb = Gather(table, ids)
  both = Add(act, emb)
  pool = ReduceMax<keepdims = 0>(both, one)
  ex = Mul(pool, extra)
  y = Gemm(ex, wy) }"""


def attention() -> Any:
    return net(
        ATTENTION,
        gamma=normal(1, 6),
        beta=normal(2, 6),
        **{f"w{c}": normal(i, 6, 6) for i, c in enumerate("qkvu")},
        wy=normal(9, 6, 2),
        table=normal(10, 5, 6),
        heads=np.array([0, 0, 2, 3]),
        merged=np.array([0, 0, 6]),
        last=np.array([-1]),
        one=np.array([1]),
        root=np.array(math.sqrt(3)),
    )


def attention_feeds(seed: int, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "ids": rng.integers(0, 5, (rows, 4)),
        "e": rng.normal(size=(rows, 4, 6)),
        "mask": np.tile(np.array([0.0, 0, 0, -1e9]), (rows, 1, 1, 1)),
        "extra": rng.normal(size=(rows, 6)),
    }


@pytest.mark.parametrize("rule", ["rescale", "reveal-cancel", "mixed"])
def test_residual_network(rule: str) -> None:
    x, r = normal(1, 2, 2, 9, 9), normal(2, 3, 2, 9, 9)
    result = explain(residual(), {"x": x}, {"x": r}, rule=rule)
    assert result.values["x"].shape == x.shape
    assert gap(result) < (COMPLETE if rule == "rescale" else 1e-7)  # RevealCancel keeps p, n off zero


def test_attention_block() -> None:
    sample, references = attention_feeds(1, 2), attention_feeds(2, 3)
    result = explain(attention(), sample, references, context={"ids", "mask"})
    assert set(result.values) == {"e", "extra"}
    assert gap(result) < COMPLETE
    # The masked position is reached by the residual path alone, and a held input changes nothing by itself.
    held = {k: v for k, v in references.items() if k in ("e", "extra")}
    again = explain(attention(), sample, held, context={"ids", "mask"})
    np.testing.assert_array_equal(again.values["e"], result.values["e"])


def test_samples_references_weights_and_targets() -> None:
    model, x, r = residual(), normal(1, 2, 2, 9, 9), normal(2, 3, 2, 9, 9)
    whole = explain(model, {"x": x}, {"x": r})
    assert (whole.target == np.argmax(whole.outputs["y"], axis=1)).all()
    weights = np.array([1.0, 2.0, 5.0])
    weighted = explain(model, {"x": x}, {"x": r}, target=1, weights=weights)
    total, base = 0.0, 0.0
    for j in range(3):
        one = explain(model, {"x": x[:1]}, {"x": r[j : j + 1]}, output="y", target=-2)
        total, base = total + weights[j] / 8 * one.values["x"], base + weights[j] / 8 * one.base_value
    np.testing.assert_allclose(weighted.values["x"][:1], total, rtol=1e-12)
    np.testing.assert_allclose(weighted.base_value[:1], base, rtol=1e-12)
    with pytest.raises(ValueError, match="target 3"):
        explain(model, {"x": x}, {"x": r}, target=3)


def test_attribution_inside_the_model() -> None:
    """To an embedding, with the integer inputs held: the references as values there, or as inputs."""
    sample, references = attention_feeds(1, 1), attention_feeds(2, 3)
    table = normal(10, 5, 6)
    by_value = explain(attention(), sample, {"emb": table[references["ids"]]}, at=["emb"])
    by_input = explain(attention(), sample, references, at=["emb"])
    assert by_value.values["emb"].shape == (1, 4, 6)
    np.testing.assert_array_equal(by_value.values["emb"], by_input.values["emb"])
    assert gap(by_value) < COMPLETE


PEERS = [
    ("digits_f64.npz", ["digits_f64.onnx"], 1e-13),
    ("smooth_mlp_f64.npz", ["smooth_mlp_f64.onnx"], 1e-12),
    ("two_inputs.npz", ["two_inputs.onnx"], 1e-4),
    *[
        (f"families/{name}.npz", [f"families/{name}_{by}.onnx" for by in ("torchscript", "dynamo")], 1e-4)
        for name in ("vgg", "vgg_bn", "resnet", "densenet", "efficientnet", "encoder", "vit")
    ],
]


@pytest.mark.parametrize(("fixture", "models", "close"), PEERS, ids=[p[0] for p in PEERS])
def test_peers_and_exporters(fixture: str, models: list[str], close: float) -> None:
    """Equal to SHAP wherever SHAP is complete; complete everywhere; the same for both exports."""
    peer = np.load(FIXTURES / fixture)
    names, few = peer["input_names"].tolist(), slice(4)
    sample = {n: peer[f"inputs.{n}"][few] for n in names}
    references = {n: peer[f"references.{n}"] for n in names}
    results = [explain(onnx.load(FIXTURES / m), sample, references) for m in models]
    for result in results:
        assert gap(result) < COMPLETE
        np.testing.assert_array_equal(result.target, peer["target_index"][few])
        np.testing.assert_allclose(result.base_value, peer["base_values"][few], rtol=1e-4, atol=1e-5)
        for n in names:
            np.testing.assert_allclose(result.values[n], results[0].values[n], rtol=1e-6, atol=1e-6)
            if peer["shap_complete"]:
                told = peer[f"shap_values.{n}"][few]
                np.testing.assert_allclose(result.values[n], told, rtol=close, atol=close)


# RevealCancel

MIN = """agraph (float[N, 1] i1, float[N, 1] i2) => (float[N, 1] o)
{ d = Sub(i1, i2)  h = Relu(d)  o = Sub(i1, h) }"""
MIN_DENSE = """agraph (float[N, 2] i) => (float[N, 1] o)
{ d = Gemm(i, w1)  h = Relu(d)  j = Concat<axis = 1>(i, h)  o = MatMul(j, w2) }"""
DENSE = {"w1": np.array([[1.0], [-1.0]]), "w2": np.array([[1.0], [0.0], [-1.0]])}


@pytest.mark.parametrize(("rule", "share"), [("rescale", (0.0, 2.0)), ("reveal-cancel", (1.0, 1.0))])
def test_minimum_of_two(rule: str, share: tuple[float, float]) -> None:
    """o = i1 - relu(i1 - i2), i1 > i2 > 0, reference 0: (0, i2) by Rescale, (i2/2, i2/2) by RevealCancel."""
    i1, i2, zero = np.array([[5.0]]), np.array([[2.0]]), np.zeros((1, 1))
    two = explain(net(MIN), {"i1": i1, "i2": i2}, {"i1": zero, "i2": zero}, rule=rule)
    assert (two.values["i1"].item(), two.values["i2"].item()) == pytest.approx(share, abs=1e-12)
    one = explain(net(MIN_DENSE, **DENSE), {"i": np.array([[5.0, 2.0]])}, {"i": np.zeros((1, 2))}, rule=rule)
    assert one.values["i"][0] == pytest.approx(share, abs=1e-12)
    assert gap(one) < 1e-12


def test_one_unit_by_hand() -> None:
    """relu(i1 - i2) at (3, 1): p = 3, n = -1, y+ = (3 + 2) / 2, y- = (0 - 1) / 2."""
    model = net("agraph (float[N, 2] x) => (float[N, 1] y) { d = MatMul(x, w) y = Relu(d) }", w=DENSE["w1"])
    result = explain(model, {"x": np.array([[3.0, 1.0]])}, {"x": np.zeros((1, 2))}, rule="reveal-cancel")
    np.testing.assert_allclose(result.values["x"], [[2.5, -0.5]], rtol=1e-12)


def test_reveal_cancel_of_a_linear_model_is_rescale() -> None:
    model = net(
        """agraph (float[1, 4] x) => (float[1, 2] y)
        { a = Gemm(x, u, b) c = Sub(a, b) d = Neg(c) y = MatMul(d, v) }""",
        u=normal(1, 4, 3),
        b=normal(2, 3),
        v=normal(3, 3, 2),
    )
    x, r = {"x": normal(4, 1, 4)}, {"x": normal(5, 2, 4)}
    plain, reveal = (explain(model, x, r, rule=rule) for rule in ("rescale", "reveal-cancel"))
    np.testing.assert_allclose(plain.values["x"], reveal.values["x"], rtol=1e-12)


def test_mixed_chooses_by_the_layer_above() -> None:
    """Convolutions only: mixed is Rescale. Dense only: mixed is RevealCancel."""
    x, r = {"x": normal(1, 1, 2, 6)}, {"x": normal(2, 1, 2, 6)}
    conv = net(
        """agraph (float[1, 2, 6] x) => (float[1, 1, 1] y)
        { c = Conv(x, w) b = Add(c, one) a = Relu(b) m = MaxPool<kernel_shape = [2]>(a) d = Conv(m, v)
          e = Sigmoid(d) y = GlobalAveragePool(e) }""",
        w=normal(3, 3, 2, 2),
        one=np.array(0.3),
        v=normal(4, 1, 3, 2),
    )
    dense = net(
        """agraph (float[1, 2, 6] x) => (float[1, 1] y)
        { f = Flatten(x) c = MatMul(f, w) b = Add(c, one) a = Relu(b) d = Gemm(a, v) y = Tanh(d) }""",
        w=normal(3, 12, 5),
        one=np.array(0.3),
        v=normal(4, 5, 1),
    )
    for model, same, other in ((conv, "rescale", "reveal-cancel"), (dense, "reveal-cancel", "rescale")):
        mixed = explain(model, x, r, rule="mixed").values["x"]
        np.testing.assert_allclose(mixed, explain(model, x, r, rule=same).values["x"], rtol=1e-12)
        assert np.abs(mixed - explain(model, x, r, rule=other).values["x"]).max() > 1e-3


# Refusals

REFUSED = {
    "round": ("y = Round(x)", "Round"),
    "floor": ("y = Floor(x)", "Floor"),
    "condition": ("c = Greater(x, one) y = Where(c, x, one)", "Greater"),
    "integer cast": ("i = Cast<to = 7>(x) y = Cast<to = 1>(i)", "Cast"),
    "index": ("v, i = TopK(x, two) y = Cast<to = 1>(i)", "TopK"),
    "gather": ("i = ArgMax<axis = 1>(x) y = Gather(table, i)", "ArgMax"),
    "slope": ("y = PRelu(x, x)", "PRelu"),
    "three factors": ('y = Einsum<equation = "ni,ni,ni->ni">(x, x, x)', "Einsum"),
    "batch statistics": (
        "y, m, v = BatchNormalization<training_mode = 1>(x, vec, vec, vec, vec)",
        "BatchNormalization",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    body, op = REFUSED[name]
    model = net(
        f"agraph (float[1, 3] x) => (float[1, 3] y) {{ {body} }}",
        one=np.ones(3),
        two=np.array([2]),
        table=normal(1, 3, 3),
        vec=np.ones(3),
    )
    with pytest.raises(Refused) as caught:
        explain(model, {"x": normal(2, 1, 3)}, {"x": normal(3, 1, 3)})
    assert caught.value.op == op


def test_reveal_cancel_refuses_what_section_7_leaves_out() -> None:
    for body in ("y = Softmax(x)", "y = Mul(x, x)", "y = Max(x, one)", "y = MatMul(x, w)"):
        model = net(
            f"agraph (float[1, 3] x, float[1, 3, 3] w) => (float[1, 3] y) {{ {body} }}", one=np.zeros(3)
        )
        feeds = {"x": normal(2, 1, 3), "w": normal(3, 1, 3, 3)}
        with pytest.raises(Refused):
            explain(model, feeds, feeds, rule="reveal-cancel")


def test_off_the_path_everything_runs() -> None:
    """Shapes, integers and choices that don't reach the explained output aren't refused."""
    model = net(
        """agraph (float[1, 6] x) => (float[1, 3] y, int64[1, 1] best, float[1, 6] r)
        { best = ArgMax<axis = 1>(x)  r = Round(x)  s = Shape(x)  n = Gather(s, last)  h = Div(n, two)
          d = Concat<axis = 0>(minus, h)  z = Reshape(x, d)  y = ReduceSum<keepdims = 0>(z, first) }""",
        last=np.array([1]),
        two=np.array([2]),
        minus=np.array([-1]),
        first=np.array([0]),
    )
    x = normal(1, 2, 6)
    result = explain(model, {"x": x}, {"x": np.zeros((1, 6))}, target=1)
    np.testing.assert_allclose(result.values["x"], x * [0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(result.outputs["best"], np.argmax(x, axis=1, keepdims=True))
