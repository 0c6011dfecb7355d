"""One contract for every attribution method: what it computes, what it sums to, and that passes keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar

import coalitions
import numpy as np
import onnx
import onnx.parser
import pytest
import revealing
from local_rules import chain, epsilon
from onnx import numpy_helper
from paths import expected, integrated, occluded
from places import DOCS
from two_world import explain

import irshap
from irshap.cli import main
from irshap.compiler.compile import bound
from irshap.compiler.references import References
from irshap.errors import PipelineError, TargetError
from irshap.ir.core import Op, Point, Value
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.passes.methods.base import METHODS, LocalMethod, Method, Sum
from irshap.passes.methods.coalitions import CoalitionMethod
from irshap.passes.methods.deeplift import DeepLift
from irshap.passes.methods.epsilon_lrp import EpsilonLrp
from irshap.passes.methods.expected_gradients import ExpectedGradients
from irshap.passes.methods.grad_cam import GradCam
from irshap.passes.methods.integrated_gradients import IntegratedGradients
from irshap.passes.methods.kernel_shap import KernelShap
from irshap.passes.methods.occlusion import Occlusion
from irshap.passes.methods.shapley_sampling import ShapleySampling
from irshap.passes.methods.smooth_grad import SmoothGrad
from irshap.passes.methods.x_gradient import XGradient
from irshap.pipeline.base import PASSES, Context, Points
from irshap.pipeline.manager import PassManager
from irshap.pipeline.named import DEVICES, for_method
from irshap.pipeline.text import parse_pipeline, pass_text

pytestmark = pytest.mark.slow

limits = revealing.limits
"""Where a part of a difference is 0, the oracle of RevealCancel takes the limit, too (docs/methods.md)."""
PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Net:
    """An ONNX graph in text; the last number of each sample of `x` is read by nothing."""

    shape: tuple[int, ...]
    body: str
    weights: Mapping[str, tuple[int, ...]]

    def model(self) -> onnx.ModelProto:
        dims = ", ".join(map(str, self.shape))
        head = f'<ir_version: 8, opset_import: ["": 17]> net (float[N, {dims}] x) => (float[N, 3] y)'
        model = onnx.parser.parse_model(f"{head} {{{self.body}}}")
        rng = np.random.default_rng(4)
        for name, shape in self.weights.items():
            array = rng.standard_normal(shape) / max(1.0, float(np.prod(shape[1:]))) ** 0.5
            model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
        for name, ends in {"start": (0,), "end": (self.shape[-1] - 1,), "axis": (-1,)}.items():
            model.graph.initializer.append(numpy_helper.from_array(np.array(ends, np.int64), name))
        return model


NETS = {
    "dense": Net(
        (7,),
        """r = Slice(x, start, end, axis)
        a = Gemm(r, w1, b1)  h = Relu(a)  c = Gemm(h, w2, b2)  t = Tanh(c)
        y = Gemm(t, w3)""",
        {"w1": (6, 8), "b1": (8,), "w2": (8, 5), "b2": (5,), "w3": (5, 3)},
    ),
    "convolutions": Net(
        (2, 5, 6),
        """r = Slice(x, start, end, axis)
        a = Conv<pads = [1, 1, 1, 1]>(r, w1, b1)  h = LeakyRelu<alpha = 0.2>(a)
        p = MaxPool<kernel_shape = [2, 2], strides = [1, 1]>(h)
        c = Conv(p, w2)  s = Relu(c)  f = Flatten(s)
        y = Gemm(f, w3)""",
        {"w1": (3, 2, 3, 3), "b1": (3,), "w2": (4, 3, 2, 2), "w3": (36, 3)},
    ),
    "smooth": Net(
        (5,),
        """r = Slice(x, start, end, axis)
        a = MatMul(r, w1)  h = Elu(a)  b = MatMul(h, w2)  s = Sigmoid(b)
        c = MatMul(s, w3)  p = Softplus(c)
        y = MatMul(p, w4)""",
        {"w1": (4, 6), "w2": (6, 6), "w3": (6, 5), "w4": (5, 3)},
    ),
}
ATTENTION = Net(
    (4, 5),
    """r = Slice(x, start, end, axis)
    q = MatMul(r, wq)  k = MatMul(r, wk)  t = Transpose<perm = [0, 2, 1]>(k)
    s = MatMul(q, t)  p = Softmax<axis = -1>(s)  o = MatMul(p, r)
    m = ReduceMean<axes = [1], keepdims = 0>(o)
    y = MatMul(m, w)""",
    {"wq": (4, 3), "wk": (4, 3), "w": (4, 3)},
)
"""Products of two varying tensors and softmax, which RevealCancel has no rule for."""
HOMOGENEOUS = Net(
    (2, 5, 6),
    """r = Slice(x, start, end, axis)
    a = Conv<pads = [1, 1, 1, 1]>(r, w1)  h = LeakyRelu<alpha = 0.2>(a)
    p = MaxPool<kernel_shape = [2, 2], strides = [1, 1]>(h)
    c = Conv<pads = [1, 1, 1, 1]>(p, w2)  s = Relu(c)  q = AveragePool<kernel_shape = [2, 2]>(s)
    f = Flatten(q)  y = Gemm(f, w3)""",
    {"w1": (3, 2, 3, 3), "w2": (4, 3, 4, 3), "w3": (24, 3)},
)
"""Without biases, which x-gradient takes alone."""

Plain = Callable[[Any, onnx.ModelProto, Array, Array], Array]
"""(method, model, samples, references) -> attributions of class 0, by code of its own."""


def _deeplift(method: DeepLift, model: onnx.ModelProto, x: Array, r: Array) -> Array:
    return explain(model, {"x": x}, {"x": r}, target=0, rule=method.rule).values["x"]


def _integrated(method: IntegratedGradients, model: onnx.ModelProto, x: Array, r: Array) -> Array:
    return integrated(model, {"x": x}, {"x": r}, steps=method.steps, rule=method.rule, target=0)["x"]


def _occluded(method: Occlusion, model: onnx.ModelProto, x: Array, r: Array) -> Array:
    shape = x.shape[1:]
    front = shape[: len(shape) - len(method.window)]
    window = (*front, *method.window) if method.window else (1,) * len(shape)
    window = tuple(map(min, window, shape))
    step = (*front, *method.step) if method.step else window
    return occluded(model, {"x": x}, window=window, step=step, value=method.value, target=0)["x"]


def _expected(method: ExpectedGradients, model: onnx.ModelProto, x: Array, r: Array) -> Array:
    drawn = np.random.default_rng(method.seed).random((method.samples, 2))
    draws = [(a, int(u * len(r)), 1 / method.samples) for a, u in drawn]
    return expected(model, {"x": x}, {"x": r}, draws, target=0)["x"]


def _smooth(method: SmoothGrad, model: onnx.ModelProto, x: Array, r: Array) -> Array:
    noise = method.noise * np.random.default_rng(method.seed).standard_normal((method.samples, *x.shape[1:]))
    return np.mean([chain(model, {"x": x + e}, target=0)["x"] for e in noise], axis=0)


def _sampled(method: ShapleySampling, count: int) -> Any:
    rng = np.random.default_rng(method.seed)
    return coalitions.ordered([rng.permutation(count).tolist() for _ in range(method.samples)])


def _regressed(method: KernelShap, count: int) -> Any:
    """The documented draws: sizes first, then a permutation for each, and its complement."""
    if method.samples >= 2**count - 2:
        return coalitions.least_squares(None)
    rng, sizes = np.random.default_rng(method.seed), np.arange(1, count)
    share = 1 / (sizes * (count - sizes))
    drawn = rng.choice(sizes, size=(method.samples + 1) // 2, p=share / share.sum())
    half = [frozenset(rng.permutation(count)[:n].tolist()) for n in drawn]
    return coalitions.least_squares([*half, *(frozenset(range(count)) - s for s in half)])


def _replaced(rule: Callable[[Any, int], Any]) -> Plain:
    def plain(method: CoalitionMethod, model: onnx.ModelProto, x: Array, r: Array) -> Array:
        groups = columns(x.shape[1:]) if method.groups else None
        count = x.shape[-1] if method.groups else int(np.prod(x.shape[1:]))
        found = coalitions.values(model, {"x": x}, {"x": r}, rule(method, count), groups=groups, target=0)
        return found["x"]

    return plain


def columns(shape: tuple[int, ...]) -> dict[str, Array]:
    """Groups by the last axis, whose last column is read by nothing; not numbered from 0, nor in order."""
    return {"x": np.broadcast_to(7 * np.arange(shape[-1])[::-1] - 3, shape)}


def _cam(method: GradCam, model: onnx.ModelProto, x: Array, r: Array) -> Array:
    pooled = chain(model, {"x": x}, target=0)["x"].mean(axis=(2, 3), keepdims=True)
    return np.maximum((pooled * x).sum(axis=1, keepdims=True), 0)


PLAIN: dict[str, Plain] = {
    "deeplift": _deeplift,
    "epsilon-lrp": lambda m, model, x, r: x * chain(model, {"x": x}, target=0, slope=epsilon(m.epsilon))["x"],
    "exact-shapley": _replaced(lambda m, count: coalitions.shapley),
    "expected-gradients": _expected,
    "feature-ablation": _replaced(lambda m, count: coalitions.ablated),
    "kernel-shap": _replaced(_regressed),
    "shapley-sampling": _replaced(_sampled),
    "grad-cam": _cam,
    "gradient": lambda m, model, x, r: chain(model, {"x": x}, target=0)["x"],
    "guided-backprop": lambda m, model, x, r: chain(model, {"x": x}, target=0, guided=True)["x"],
    "integrated-gradients": _integrated,
    "occlusion": _occluded,
    "input-x-gradient": lambda m, model, x, r: x * chain(model, {"x": x}, target=0)["x"],
    "smooth-grad": _smooth,
    "x-gradient": lambda m, model, x, r: x * chain(model, {"x": x}, target=0)["x"],
    "saliency": lambda m, model, x, r: np.abs(chain(model, {"x": x}, target=0)["x"]),
}
"""The plain definition of every method; a method without one fails."""

TAKEN: dict[type[Method], tuple[str, ...]] = {XGradient: ("homogeneous",), GradCam: ("convolutions",)}
"""Networks of methods that don't take any."""
CASES = [
    pytest.param(method, net, id=f"{pass_text(method)} {net}")
    for cls in METHODS.values()
    for method in cls.cases()
    for net in TAKEN.get(cls, (*NETS, "attention"))
    if net != "attention" or "rule" not in pass_text(method)
]


def net(name: str) -> Net:
    return {**NETS, "attention": ATTENTION, "homogeneous": HOMOGENEOUS}[name]


def is_shared(case: Any) -> bool:
    method, name = case.values
    return isinstance(method, GradCam) or (
        isinstance(method, KernelShap) and method.samples < 2 ** net(name).shape[-1] - 2
    )


BY_MASKS = (Points.MASKS, Points.COALITIONS)
APART = [case for case in CASES if not (getattr(case.values[0], "window", ()) or is_shared(case))]
"""Those whose cells share nothing: not patches, regressions on a part of the sets, maps."""


@cache
def rows(name: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(7)
    shape = net(name).shape
    return rng.standard_normal((2, *shape)), rng.standard_normal((3, *shape))


@cache
def plain(method: Method, name: str) -> Array:
    x, r = rows(name)
    return PLAIN[method.name](method, net(name).model(), x, r)


def in_float64(method: Method, name: str, text: str) -> dict[str, Array]:
    """All outputs, by irshap's evaluator."""
    x, r = rows(name)
    lift, *rest = parse_pipeline(text, {"method": method})
    (widen,) = parse_pipeline("widen")
    (target,) = parse_pipeline('target{target="0"}')
    steps = [target if p.name == "target" else p for p in rest if p.gives == "graph"]
    passes, context = [lift, widen, *steps], Context(groups=groups(method, name) or {})
    given = References(r if method.points.references else None)
    graph = PassManager(passes, [bound(given, context, passes)]).run(net(name).model(), context)
    return evaluate(graph, {"x": x})


def groups(method: Method, name: str) -> Mapping[str, Array] | None:
    return columns(net(name).shape) if getattr(method, "groups", False) else None


PLAINEST = {
    Points.COALITIONS: "lift,target,@method,bind-references,lower",
    Points.SAMPLE: "lift,target,autodiff,@method,lower",
    Points.NEARBY: "lift,target,autodiff,@method,lower",
    Points.MASKS: "lift,target,@method,lower",
}


def naive(method: Method) -> str:
    """The plainest pipeline of a method."""
    return PLAINEST.get(method.points, "@naive")


def close(a: Array, b: Array, tolerance: float) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(("method", "name"), CASES)
def test_it_is_what_its_plain_definition_says(method: Method, name: str) -> None:
    close(in_float64(method, name, naive(method))["x_attributions"], plain(method, name), 1e-6)


@pytest.mark.parametrize(("method", "name"), CASES)
def test_optimized_equals_naive(method: Method, name: str) -> None:
    wanted = in_float64(method, name, naive(method))
    for pipeline in dict.fromkeys(for_method(method.points, device) for device in DEVICES):
        found = in_float64(method, name, pipeline)
        assert found.keys() == wanted.keys()
        for output, array in wanted.items():
            np.testing.assert_allclose(
                found[output], array, rtol=1e-9, atol=1e-9 * np.abs(array).max() + 1e-12
            )


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize(("method", "name"), CASES)
def test_the_file_sums_as_it_says(method: Method, name: str) -> None:
    x, r = (a.astype(np.float32) for a in rows(name))
    given = r if method.points.references else None
    compiled = irshap.compile(net(name).model(), given, target=0, method=method, groups=groups(method, name))
    explanation = compiled.explainer()(x)
    close(explanation.values, plain(method, name), 1e-4)
    total, prediction = explanation.total(), explanation.outputs["y"][:, 0]
    if method.sums_to is Sum.DIFFERENCE:
        assert explanation.base_values is not None
        if not method.remainder:
            close(total, prediction - explanation.base_values, 1e-5)
        elif explanation.completeness_error is not None:
            left = prediction - explanation.base_values - total
            np.testing.assert_allclose(explanation.completeness_error, left, rtol=1e-3, atol=1e-5)
    else:
        assert explanation.base_values is None
    if method.sums_to is Sum.OUTPUT:
        close(total, prediction, 1e-5)
    if method.sums_to is Sum.NOTHING:
        assert explanation.completeness_error is None
        assert not np.allclose(total, prediction, rtol=1e-3)


@pytest.mark.parametrize(("method", "name"), APART)
def test_what_f_does_not_read_gets_nothing(method: Method, name: str) -> None:
    found = in_float64(method, name, for_method(method.points, "cpu"))["x_attributions"]
    # T of a sample and of masked ones may round differently: they stand in batches of other sizes
    rounding = 1e-12 * np.abs(found).max() if method.points in BY_MASKS else 0.0
    assert np.abs(found[..., -1]).max() <= rounding
    assert found[..., :-1].any()


@pytest.mark.parametrize("cls", METHODS.values(), ids=list(METHODS))
def test_it_is_listed(cls: type[Method]) -> None:
    assert PASSES[cls.name] is cls
    assert cls.name in PLAIN
    assert f"`{cls.name}`" in PAGE
    for option in fields(cls):  # type: ignore[arg-type]
        assert f"`{option.name}`" in PAGE or option.name in (cls.__doc__ or "")
    for method in cls.cases():
        assert parse_pipeline(pass_text(method)) == (method,)


def test_a_method_without_a_facet_is_refused() -> None:
    with pytest.raises(TypeError, match=r"method Half lacks 2 facet\(s\): sums_to: a Sum.*score: def score"):

        class Half(LocalMethod):
            """Lacks what it sums to, and scores."""

            name = "half"

            def local(self, op: Op, cts: Any, at: Point, wrt: Any) -> tuple[Value, ...]:
                return op.derivative(cts, at, wrt)

            @classmethod
            def cases(cls) -> Any:
                return ()

    del PASSES["half"]
    assert "half" not in METHODS


def test_a_method_that_sums_to_the_output_has_a_certificate() -> None:
    """x dT/dx of a linear map without a bias is T itself."""

    @dataclass(frozen=True)
    class Euler(LocalMethod):
        """For the test alone."""

        name: ClassVar[str] = "euler"
        sums_to = Sum.OUTPUT

        def local(self, op: Op, cts: Any, at: Point, wrt: Any) -> tuple[Value, ...]:
            return op.derivative(cts, at, wrt)

        def score(self, m: Value, x: Value) -> Value:
            return m * x

        @classmethod
        def cases(cls) -> Any:
            yield cls()

    try:
        source = (
            '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (float[N, 2] y) {y = MatMul(x, w)}'
        )
        model = onnx.parser.parse_model(source)
        model.graph.initializer.append(numpy_helper.from_array(np.float32([[1, 2], [3, -1], [0, 5]]), "w"))
        x = np.float32([[1, 2, 3], [-1, 0, 2]])
        found = irshap.compile(model, method=Euler(), target=1).explainer()(x)
        np.testing.assert_allclose(found.total(), found.outputs["y"][:, 1], rtol=1e-6)
        assert found.base_values is None
    finally:
        del PASSES["euler"], METHODS["euler"]


TOKENS = """<ir_version: 8, opset_import: ["": 17]> g (int64[N, 4] t) => (float[N, 2] y)
    {e = Gather(table, t) m = ReduceMean<axes = [1], keepdims = 0>(e) h = Tanh(m) y = MatMul(h, w)}"""


def test_tokens() -> None:
    """What stands for a token adds up its embedding, where that means something."""
    model = onnx.parser.parse_model(TOKENS)
    rng = np.random.default_rng(1)
    for name, shape in {"table": (9, 3), "w": (3, 2)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    t = rng.integers(0, 9, (2, 4))
    found = irshap.compile(model, method="input-x-gradient", target=0).explainer()(t)
    by_embedding = irshap.compile(model, method="input-x-gradient", target=irshap.Target("0", wrt="e"))
    np.testing.assert_allclose(found.values, by_embedding.explainer()(t).values.sum(-1), rtol=1e-5)
    with pytest.raises(TargetError, match=r"input 't' is integer: it has no gradient.*wrt=e"):
        irshap.compile(model, method="gradient")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("gradiant", "no method is called 'gradiant'. did you mean gradient"),
        ("dce", "no method is called 'dce'"),
        ("gradient,dce", "no method is called 'gradient,dce'"),
        ("deeplift,dce", "no method is called"),
        ("epsilon-lrp{epsilon=-1}", "epsilon is -1.0, and must be a positive number"),
        ("epsilon-lrp{eps=1}", "pass epsilon-lrp has no option 'eps'. did you mean epsilon"),
    ],
)
def test_no_such_method(method: str, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        irshap.compile(NETS["dense"].model(), method=method)


def test_a_text_and_a_dataclass_are_one() -> None:
    model = NETS["dense"].model()
    a = irshap.compile(model, method=EpsilonLrp(epsilon=0.5), target=1)
    b = irshap.compile(model, method="epsilon-lrp{epsilon=0.5}", target=irshap.Target("1"))
    assert a.model == b.model
    assert "epsilon-lrp{epsilon=0.5}" in a.pipeline


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in METHODS)
    assert main(["methods", "epsilon-lrp"]) == 0
    assert "epsilon=0.0001" in capsys.readouterr().out
    assert main(["methods", "epsilon"]) == 2
    assert "did you mean epsilon-lrp" in capsys.readouterr().err
