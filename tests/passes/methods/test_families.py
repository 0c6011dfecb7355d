"""Paths and masks with the other options of attribution: inputs, tokens, classes, weights, held values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from paths import expected, integrated, occluded, smoothed
from places import FIXTURES
from revealing import net, normal

import irshap
from irshap.compiler.request import as_method
from irshap.cost import Settings
from irshap.cost.session import SessionModel
from irshap.errors import NotDifferentiable, PipelineError, TargetError, UserError
from irshap.ir.dims import N
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.metrics.completeness import check_completeness
from irshap.passes.methods.integrated_gradients import IntegratedGradients
from irshap.passes.methods.occlusion import Occlusion

pytestmark = pytest.mark.slow

TWO = """({0}[N, 3] a, {0}[N, 4] b) => ({0}[N, 3] y)
{{ c = MatMul(a, u) d = MatMul(b, v) e = Mul(c, d) s = Sigmoid(c) f = Add(e, s)
   h = Tanh(f) y = MatMul(h, w) }}"""
WIDTHS = {"float": (np.float32, 1e-5), "double": (np.float64, 1e-10)}
SAMPLE = {"a": normal(4, 2, 3), "b": normal(5, 2, 4)}
REFERENCES = {"a": normal(6, 3, 3), "b": normal(7, 3, 4)}
DRAWN = [(a, int(3 * u), 1 / 6) for a, u in np.random.default_rng(4).random((6, 2))]
"""Six draws of expected gradients with three references."""
METHODS = {
    "smooth-grad{samples=4,noise=0.3,seed=2,chunk=3}": lambda m, x, r, **k: smoothed(
        m, x, samples=4, noise=0.3, seed=2, **k
    ),
    "expected-gradients{samples=6,seed=4,chunk=4}": lambda m, x, r, **k: expected(m, x, r, DRAWN, **k),
    "integrated-gradients{steps=5,chunk=2}": lambda m, x, r, **k: integrated(m, x, r, steps=5, **k),
    "integrated-gradients{steps=3,rule=right}": lambda m, x, r, **k: integrated(
        m, x, r, steps=3, rule="right", **k
    ),
    "occlusion{window=2,step=1,value=0.3,chunk=2}": lambda m, x, r, **k: occluded(
        m, x, window=[2], step=[1], value=0.3, **k
    ),
}


def two(width: str) -> onnx.ModelProto:
    weights = {"u": normal(1, 3, 5), "v": normal(2, 4, 5), "w": normal(3, 5, 3)}
    return net(TWO.format(width), **{k: v.astype(WIDTHS[width][0]) for k, v in weights.items()})


def run(
    model: onnx.ModelProto, method: Any, x: Mapping[str, Array], r: Mapping[str, Array], **arguments: Any
) -> irshap.Explanation:
    """What the compiled file says in ONNX Runtime."""
    given = r if as_method(method).points.references else None
    weights = arguments.pop("weights", None)
    if weights is not None:
        given = irshap.References(given, weights)
    return irshap.compile(model, given, method=method, **arguments).explainer()(x)


def close(found: Array, wanted: Array, tolerance: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("method", METHODS)
def test_two_inputs_and_every_kind_of_target(method: str, width: str) -> None:
    kind, tolerance = WIDTHS[width]
    model = two(width)
    x, r = ({k: v.astype(kind) for k, v in a.items()} for a in (SAMPLE, REFERENCES))
    each = [METHODS[method](model, x, r, target=k) for k in range(3)]
    predicted = METHODS[method](model, x, r)
    found = run(model, method, x, r)
    every = run(model, method, x, r, target="all")
    top = run(model, method, x, r, target="top-2")
    chosen = run(model, method, {**x, "target": np.array([2, 0])}, r, target="input")
    for name in x:
        close(found.values[name], predicted[name], tolerance)
        stacked = np.stack([e[name] for e in each], axis=1)
        close(every.values[name], stacked, tolerance)
        rows = np.arange(2)
        for k in range(2):
            close(top.values[name][:, k], stacked[rows, top.target_index[:, k]], tolerance)
        close(chosen.values[name], stacked[rows, [2, 0]], tolerance)
        assert not np.allclose(stacked[:, 0], stacked[:, 1])


@pytest.mark.parametrize("method", METHODS)
def test_held_inputs_and_interior_tensors(method: str) -> None:
    model, x, r = two("double"), SAMPLE, REFERENCES
    held = run(model, method, x, {"a": r["a"]}, target=irshap.Target("1", context="b"))
    wanted = METHODS[method](model, x, {"a": r["a"]}, target=1, context={"b"})
    close(held.values, wanted["a"], 1e-10)
    # an input that isn't attributed keeps the sample's value, too
    alone = run(model, method, x, {"a": r["a"]}, target=irshap.Target("1", wrt="a"))
    close(alone.values, wanted["a"], 1e-10)
    inside = run(model, method, x, r, target=irshap.Target("1", wrt="h"))
    close(inside.values, METHODS[method](model, x, r, target=1, at=["h"])["h"], 1e-10)
    # several are one cut: what goes from c through e counts for e
    for names in (["c", "d"], ["c", "e"]):
        target = irshap.Target("all", wrt=",".join(names))
        cut = run(model, method, x, r, target=target)
        each = [METHODS[method](model, x, r, target=k, at=names) for k in range(3)]
        for name in names:
            close(cut.values[name], np.stack([e[name] for e in each], axis=1), 1e-10)


def test_weights_and_the_certificate() -> None:
    model, weights = two("double"), np.array([1.0, 2.0, 5.0])
    method = IntegratedGradients(steps=6, emit="completeness_error")
    found = run(model, method, SAMPLE, REFERENCES, weights=weights, target=1)
    wanted = integrated(model, SAMPLE, REFERENCES, steps=6, weights=weights, target=1)
    plain = integrated(model, SAMPLE, REFERENCES, steps=6, target=1)
    for name in SAMPLE:
        close(found.values[name], wanted[name], 1e-10)
        assert not np.allclose(plain[name], wanted[name], rtol=1e-3)
    assert found.base_values is not None
    assert found.completeness_error is not None
    left = found.outputs["y"][:, 1] - found.base_values - found.total()
    np.testing.assert_allclose(found.completeness_error, left, atol=1e-12)


def test_weighted_draws_and_their_convergence() -> None:
    """A draw counts R w; the error of the sum falls as 1/sqrt(samples)."""
    model, weights = two("double"), np.array([1.0, 2.0, 5.0])
    found = run(model, "expected-gradients{samples=6,seed=4}", SAMPLE, REFERENCES, weights=weights, target=1)
    drawn = [(a, j, share * 3 * weights[j] / 8) for a, j, share in DRAWN]
    wanted = expected(model, SAMPLE, REFERENCES, drawn, target=1)
    for name in SAMPLE:
        close(found.values[name], wanted[name], 1e-10)

    def error(samples: int) -> float:
        squares = []
        for seed in range(8):
            method = f"expected-gradients{{samples={samples},seed={seed},emit=completeness_error}}"
            left = run(model, method, SAMPLE, REFERENCES, target=1).completeness_error
            assert left is not None
            squares.append(np.mean(left**2))
        return float(np.mean(squares) ** 0.5)

    few, many = error(50), error(800)
    assert 2.5 < few / many < 6.4


TOKENS = """(int64[N, 4] t) => (double[N, 2] y)
{ e = Gather(table, t) k = MatMul(e, q) p = Sigmoid(k) g = Mul(p, e)
  m = ReduceMean<keepdims = 0>(g, one) h = Tanh(m) y = MatMul(h, w) }"""


def test_tokens() -> None:
    """What stands for a token is its embedding: on a path, or replaced as a whole."""
    model = net(TOKENS, one=np.array([1]), table=normal(1, 9, 3), q=normal(3, 3, 3), w=normal(2, 3, 2))
    t, r = np.array([[1, 2, 3, 4], [5, 0, 7, 1]]), np.array([[0, 8, 0, 0], [6, 6, 2, 0]])
    found = run(model, "integrated-gradients{steps=5}", {"t": t}, {"t": r}, target=0)
    wanted = integrated(model, {"t": t}, {"t": r}, steps=5, target=0, at=["e"])["e"]
    close(found.values, wanted.sum(-1), 1e-10)
    found = run(model, "expected-gradients{samples=5}", {"t": t}, {"t": r}, target=0)
    draws = [(a, int(2 * u), 1 / 5) for a, u in np.random.default_rng(0).random((5, 2))]
    wanted = expected(model, {"t": t}, {"t": r}, draws, target=0, at=["e"])["e"]
    close(found.values, wanted.sum(-1), 1e-10)
    with pytest.raises(TargetError, match=r"'t' is integer: it has no smooth-grad.*wrt=e"):
        irshap.compile(model, method="smooth-grad")
    for window, step in ((1, 1), (2, 1), (3, 1)):
        method = Occlusion(window=(window,), step=(step,), value=0.1)
        found = run(model, method, {"t": t}, {}, target=0)
        wanted = occluded(model, {"t": t}, window=[window, 3], step=[step, 3], value=0.1, target=0, at=["e"])[
            "e"
        ]
        close(found.values, wanted.sum(-1), 1e-10)
    one_by_one = run(model, "occlusion", {"t": t}, {}, target=0)
    assert one_by_one.values.shape == (2, 4)


def test_masks_of_padding_keep_the_samples_value() -> None:
    """They follow from the ids past the embedding: the reference's never count."""
    model = net(
        """(int64[N, 4] t) => (double[N, 2] y)
        { e = Gather(table, t) b = Greater(t, zero) f = Cast<to = 11>(b) k = Unsqueeze(f, two) g = Mul(e, k)
          s = ReduceSum<keepdims = 0>(g, one) h = Tanh(s) y = MatMul(h, w) }""",
        table=normal(1, 9, 3),
        w=normal(2, 3, 2),
        zero=np.array(0),
        one=np.array([1]),
        two=np.array([2]),
    )
    t, r = np.array([[1, 2, 3, 0], [5, 0, 7, 0]]), np.array([[0, 8, 0, 4], [6, 6, 2, 0]])
    found = run(model, "integrated-gradients{steps=5,chunk=2}", {"t": t}, {"t": r}, target=0).values
    wanted = integrated(model, {"t": t}, {"t": r}, steps=5, target=0, at=["e"])["e"]
    close(found, wanted.sum(-1), 1e-10)
    assert not found[t == 0].any()
    found = run(model, "occlusion{chunk=3}", {"t": t}, {}, target=0).values
    wanted = occluded(model, {"t": t}, window=[1, 3], step=[1, 3], target=0, at=["e"])["e"]
    close(found, wanted.sum(-1), 1e-10)


def test_functions_spelled_out_by_choices() -> None:
    """Inside the loop, too, they are what they were before a method was chosen."""
    head, tail = "(double[N, 4] x) => (double[N, 1] y) { a = MatMul(x, u)", "y = MatMul(h, w) }"
    where = f"{head} d = Sub(a, k) z = Sub(d, d) c = Greater(a, k) h = Where(c, d, z) {tail}"
    relu = f"{head} d = Sub(a, k) h = Relu(d) {tail}"
    weights = {"u": normal(1, 4, 6), "w": normal(2, 6, 1), "k": np.array(0.5)}
    x, r = {"x": normal(3, 2, 4)}, {"x": normal(4, 2, 4)}
    for method in ("integrated-gradients{steps=6,chunk=3}", "occlusion{chunk=2}"):
        one, other = (run(net(body, **weights), method, x, r).values for body in (where, relu))
        close(one, other, 1e-12)


def test_references_and_weights_at_run_time() -> None:
    passes = "lift,target,canonicalize,piecewise,autodiff,@method,eliminate-split-tile,canonicalize,dce,lower"
    method, weights = IntegratedGradients(steps=6, weights=True), np.array([0.125, 0.25, 0.625])
    compiled = irshap.compile(two("double"), method=method, passes=passes, target=1)
    given = {f"{name}_references": value for name, value in REFERENCES.items()}
    found = compiled.explainer()({**SAMPLE, **given, "reference_weights": weights})
    wanted = integrated(two("double"), SAMPLE, REFERENCES, steps=6, weights=weights, target=1)
    for name in SAMPLE:
        close(found.values[name], wanted[name], 1e-10)


BATCH_ELSEWHERE = """(double[N, 3, 4] x) => (double[N, 2] y)
{ t = Transpose<perm = [1, 0, 2]>(x) q = Tanh(t) b = Transpose<perm = [1, 0, 2]>(q) f = Reshape(b, rows)
  g = MatMul(f, u) h = Sigmoid(g) i = Reshape(h, back) y = MatMul(i, w) }"""


def test_batch_behind_other_axes() -> None:
    """Interior tensors with positions before the samples, and with positions and samples on one axis."""
    weights = {"u": normal(1, 4, 5), "w": normal(2, 15, 2)}
    model = net(BATCH_ELSEWHERE, rows=np.array([-1, 4]), back=np.array([-1, 15]), **weights)
    x, r = {"x": normal(3, 2, 3, 4)}, {"x": normal(4, 3, 3, 4)}
    path = IntegratedGradients(steps=4, chunk=3)
    for name, size in {"q": 4, "g": 5}.items():
        wanted = integrated(model, x, r, steps=4, target=1, at=[name])[name]
        for passes in ("@naive", None):
            target = irshap.Target("1", wrt=name)
            found = run(model, path, x, r, target=target, passes=passes).values
            close(found, wanted.reshape(2, 3, size), 1e-10)
    # tanh(0) = 0, and zero rows of q are zero rows of g
    patches = occluded(model, x, window=[2, 4], step=[1, 4], target=1)["x"]
    for name, size in {"q": 4, "g": 5}.items():
        method = Occlusion(window=(2, size), step=(1, 1))
        found = run(model, method, x, {}, target=irshap.Target("1", wrt=name)).values
        close(found.sum(-1), patches.sum(-1), 1e-10)


# What paths sum to

SMOOTH = """(double[N, 6] x) => (double[N, 2] y)
{ a = Gemm(x, u, b) h = Tanh(a) c = MatMul(h, v) s = Softplus(c) y = MatMul(s, w) }"""


def smooth() -> onnx.ModelProto:
    """Weights of the usual size, 1 / sqrt(fan in)."""
    u, v = normal(1, 6, 8) / 6**0.5, normal(3, 8, 5) / 8**0.5
    return net(SMOOTH, u=u, b=normal(2, 8), v=v, w=normal(4, 5, 2))


def test_completeness_is_up_to_the_quadrature() -> None:
    """Gauss-Legendre: exponentially on a smooth network; the right rule: as 1 / steps."""
    x, r = {"x": normal(5, 4, 6)}, {"x": normal(6, 3, 6)}

    def error(**options: Any) -> float:
        method = IntegratedGradients(emit="completeness_error", **options)
        found = evaluate(irshap.compile(smooth(), r, method=method, target=0).graph, x)
        return float(np.abs(found["completeness_error"]).max())

    assert error() <= 1e-6
    falling = [error(steps=steps) for steps in (2, 4, 8, 16)]
    assert all(b < a / 5 for a, b in itertools.pairwise(falling))
    squared = [error(steps=steps, rule="trapezoid") for steps in (9, 17, 33)]
    assert all(3.5 < a / b < 4.5 for a, b in itertools.pairwise(squared))
    slow = [error(steps=steps, rule="right") for steps in (50, 100, 200)]
    assert all(0.4 < b / a < 0.6 for a, b in itertools.pairwise(slow))


def test_linear_models_have_one_attribution() -> None:
    """One point is enough, and all methods with a difference agree."""
    model = net(
        "(double[N, 4] x) => (double[N, 2] y) { y = Gemm(x, w, b) }", w=normal(1, 4, 2), b=normal(2, 2)
    )
    x, r = {"x": normal(3, 3, 4)}, {"x": normal(4, 2, 4)}
    found = run(model, "integrated-gradients{steps=1}", x, r, target=0).values
    close(found, (x["x"] - r["x"].mean(0)) * normal(1, 4, 2)[:, 0], 1e-14)
    zero = run(model, "occlusion", x, {}, target=0).values
    close(zero, x["x"] * normal(1, 4, 2)[:, 0], 1e-14)


def test_saturation() -> None:
    """f = 1 - relu(1 - x) at x = 2: the gradient is 0, the attribution f(2) - f(0) = 1."""
    model = net(
        "(double[N, 1] x) => (double[N, 1] y) { a = Sub(k, x) b = Relu(a) y = Sub(k, b) }", k=np.ones(1)
    )
    x, r = {"x": np.full((1, 1), 2.0)}, {"x": np.zeros((1, 1))}
    assert run(model, "gradient", x, {}).values.item() == 0
    assert run(model, "integrated-gradients", x, r).values.item() == pytest.approx(1, abs=1e-12)
    assert run(model, "integrated-gradients{rule=right,steps=4}", x, r).values.item() == pytest.approx(
        0.5, abs=1e-12
    )
    assert run(model, "occlusion", x, {}).values.item() == 1


def test_verify_names_the_quadrature() -> None:
    x, r = normal(5, 2, 6), normal(6, 2, 6)
    assert check_completeness(smooth(), r, x, method="integrated-gradients").ok
    found = check_completeness(smooth(), r, x, method="integrated-gradients{steps=2}")
    assert not found.ok
    assert "steps" in found.cause


# What it takes


def test_memory_does_not_grow_with_the_number_of_points() -> None:
    model = net(
        "(double[N, 20] x) => (double[N, 1] y) { a = MatMul(x, u) h = Tanh(a) y = MatMul(h, w) }",
        u=normal(1, 20, 2000),
        w=normal(2, 2000, 1),
    )
    references = normal(3, 2, 20)
    peaks = {}
    for method in (
        "integrated-gradients{steps=20}",
        "integrated-gradients{steps=200}",
        "integrated-gradients{steps=200,chunk=0}",
        "expected-gradients{samples=20}",
        "expected-gradients{samples=200}",
    ):
        graph = irshap.compile(model, references, method=method).graph
        peaks[method] = SessionModel.of(graph).predict({N: 1}, Settings()).peak
    few, many, at_once, few_draws, many_draws = peaks.values()
    assert many <= 1.05 * few < at_once
    assert many_draws <= 1.05 * few_draws


def test_uncovered_cells_are_told() -> None:
    model = net(TWO.format("double"), u=normal(1, 3, 5), v=normal(2, 4, 5), w=normal(3, 5, 3))
    compiled = irshap.compile(model, method=Occlusion(window=(3,)))
    assert {p.key: p.value for p in compiled.model.metadata_props}["irshap.uncovered"] == "b: 1 of 4 cells"
    found = compiled.explainer()(SAMPLE)
    assert not found.values["b"][:, 3].any()
    assert found.values["b"][:, :3].all()


def test_an_op_without_any_rule_is_occluded() -> None:
    """Positions have no derivative and no chord."""
    model = net(
        """(double[N, 4] x) => (double[N, 1] y)
        { f = Floor(x) i = ArgMax<axis = 1>(f) p = Cast<to = 11>(i) y = Add(p, p) }"""
    )
    x = {"x": 3 * normal(1, 5, 4)}
    wanted = np.stack(
        [2 * (np.floor(x["x"]).argmax(1) - _without(x["x"], j).argmax(1)) for j in range(4)], axis=1
    )
    found = run(model, "occlusion", x, {}, target=0).values
    np.testing.assert_array_equal(found, wanted)
    assert wanted.any()
    with pytest.raises(NotDifferentiable):
        run(model, "integrated-gradients", x, {"x": normal(2, 1, 4)}, target=0)


def _without(x: Array, j: int) -> Array:
    changed = np.floor(x)
    changed[:, j] = 0
    return changed


REFUSED: dict[str, tuple[Any, dict[str, Any], type[UserError], str]] = {
    "steps": ("integrated-gradients{steps=0}", {}, PipelineError, "steps is 0, and must be 1 to"),
    "draws": ("expected-gradients{samples=0}", {}, PipelineError, "samples is 0, and must be 1 to"),
    "seed": ("smooth-grad{seed=-1}", {}, PipelineError, "seed is -1.*negative"),
    "noise": ("smooth-grad{noise=-1}", {}, PipelineError, "noise is -1.0"),
    "trapezoid": (
        "integrated-gradients{steps=1,rule=trapezoid}",
        {},
        PipelineError,
        "steps is 1, and must be 2 to",
    ),
    "chunk": ("integrated-gradients{chunk=-1}", {}, PipelineError, "chunk is -1"),
    "emit": ("integrated-gradients{emit=sums}", {}, UserError, "integrated-gradients emits no 'sums'"),
    "window": ("occlusion{window=0}", {}, PipelineError, "sizes must be positive"),
    "step": ("occlusion{step=1}", {}, PipelineError, "for the same axes"),
    "axes": ("occlusion{window=(2,2)}", {}, TargetError, r"'a' has 1 axes behind.*attribute one input"),
    "references": ("occlusion", {"references": REFERENCES}, PipelineError, "no pass that would bind"),
    "binding": (
        "occlusion",
        {"passes": "@default"},
        PipelineError,
        "looks at no reference, and stream binds",
    ),
    "weights": (
        "occlusion",
        {"references": irshap.References(REFERENCES, np.ones(3))},
        PipelineError,
        "compares with no",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    method, arguments, kind, message = REFUSED[name]
    if method.startswith(("integrated", "expected")):
        arguments = {"references": REFERENCES, **arguments}
    with pytest.raises(kind, match=message):
        irshap.compile(two("double"), method=method, **arguments)


def test_sizes_known_at_run_time_are_refused() -> None:
    model = net("(double[N, S] x) => (double[N, 1] y) { y = ReduceSum(x, one) }", one=np.array([1]))
    with pytest.raises(TargetError, match=r"'x'.*only known at run time"):
        irshap.compile(model, method="occlusion")


def test_a_difference_past_what_is_attributed() -> None:
    """It is in f(x) - base, but in no attribution: refused, or on request in the certificate."""
    model = net(
        """(double[N, 4] x) => (double[N, 1] y)
        { a = MatMul(x, u) h = Tanh(a) s = Add(h, x) y = MatMul(s, w) }""",
        u=normal(1, 4, 4),
        w=normal(2, 4, 1),
    )
    x, r, target = {"x": normal(3, 2, 4)}, {"x": normal(4, 2, 4)}, irshap.Target("0", wrt="a")
    with pytest.raises(NotDifferentiable, match="also past a"):
        run(model, "integrated-gradients", x, r, target=target)
    found = run(model, "integrated-gradients{on_incomplete=residual}", x, r, target=target)
    assert found.completeness_error is not None
    past = (x["x"] - r["x"].mean(0)) @ normal(2, 4, 1)
    np.testing.assert_allclose(found.completeness_error, past[:, 0], atol=1e-9)


def test_smooth_networks_need_few_points() -> None:
    """Gauss-Legendre's error falls exponentially, the others' as 1/steps² and 1/steps."""
    data = np.load(FIXTURES / "families" / "efficientnet.npz")
    x, r = data["inputs.input"], data["references.input"]

    def error(rule: str, steps: int) -> float:
        method = f"integrated-gradients{{steps={steps},rule={rule}}}"
        model = FIXTURES / "families" / "efficientnet_torchscript.onnx"
        found = irshap.compile(model, r, method=method).explainer()(x)
        gap = found.target_values.astype(float) - found.base_values
        return float(np.abs(found.completeness_error / gap).max())

    assert error("gauss-legendre", 50) < 1e-5 < 1e-4 < error("gauss-legendre", 10)
    assert 3.5 < error("trapezoid", 21) / error("trapezoid", 41) < 4.5
    assert 1.8 < error("right", 20) / error("right", 40) < 2.2
