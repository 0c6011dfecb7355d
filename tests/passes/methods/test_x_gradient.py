"""X-Gradient, degrees of whole networks, and networks whose biases are taken out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import numpy_helper
from places import FAMILIES
from revealing import net, normal

import irshap
from irshap import demo
from irshap.attribution.homogeneity import homogeneity
from irshap.cli import main
from irshap.compiler.catalog import PassManager
from irshap.errors import NotDifferentiable
from irshap.ir.degrees import Broken
from irshap.ir.types import Array

pytestmark = pytest.mark.slow


def degree(model: onnx.ModelProto, scaled: str = "x") -> float | str | None:
    """That of the first output, or the title of the op that breaks it."""
    found = homogeneity(PassManager.from_text("lift,canonicalize").run(model))
    (first, *_) = found.outputs.values()
    of = first[scaled]
    return of.node.op.title if isinstance(of, Broken) else of


BODIES: dict[str, tuple[str, float | str | None]] = {
    "linear": ("y = MatMul(x, w)", 1),
    "bias": ("y = Gemm(x, w, b)", "gemm"),
    "zero bias": ("y = Gemm(x, w, zeros)", 1),
    "bias that is added": ("c = MatMul(x, w) y = Add(c, b)", "add"),
    "square": ("c = MatMul(x, w) y = Mul(c, c)", 2),
    "root": ("c = Mul(x, x) y = Sqrt(c)", 1),
    "cube": ("y = Pow(x, three)", 3),
    "quotient": ("s = ReduceSum(x, one) y = Div(x, s)", 0),
    "inverse": ("y = Div(b, x)", -1),
    "norm": ("s = ReduceL2(x, one) y = Div(x, s)", 0),
    "normalized": ("y = LayerNormalization(x, b)", "layer_norm"),
    "spelled relu": ("c = Greater(x, zero) y = Where(c, x, zeros)", 1),
    "maximum": ("c = MatMul(x, w) y = Max(x, c)", 1),
    "maximum with a bias": ("y = Max(x, b)", "max"),
    "threshold": ("c = Greater(x, b) y = Where(c, x, zeros)", "greater"),
    "gate": ("c = Sigmoid(x) y = Mul(c, x)", "swish"),
    "relu6": ("y = Clip(x, zero, three)", "clip"),
    "clipped below": ("y = Clip(x, zero)", 1),
    "residual": ("c = MatMul(x, w) d = Relu(c) y = Add(d, x)", 1),
    "of two degrees": ("c = Mul(x, x) y = Add(c, x)", "add"),
    "zero": ("c = Mul(x, zeros) y = Relu(c)", None),
    "constant": ("c = Sub(x, x) d = Mul(c, zero) y = Add(b, d)", 0),
    "attention": ("s = Softmax(x) y = Mul(s, x)", "softmax"),
    "sorted": ("v, i = TopK(x, k) c = Cast<to = 11>(i) y = Mul(v, c)", 1),
}


def model_of(body: str) -> onnx.ModelProto:
    return net(
        f"(double[N, 4] x) => (double[N, M] y) {{ {body} }}",
        w=normal(1, 4, 4),
        b=normal(2, 4),
        zeros=np.zeros(4),
        zero=np.array(0.0),
        three=np.array(3.0),
        one=np.array([1]),
        k=np.array([3]),
    )


@pytest.mark.parametrize("name", BODIES)
def test_degrees(name: str) -> None:
    body, wanted = BODIES[name]
    model = model_of(body)
    found = degree(model)
    assert found == wanted or (name == "gate" and found in ("swish", "sigmoid")), found
    if not isinstance(found, str) and found is not None:
        x, scale = np.abs(normal(3, 5, 4)), 3.0
        runner = onnx.reference.ReferenceEvaluator(model)
        (plain,), (scaled,) = (runner.run(["y"], {"x": a}) for a in (x, scale * x))
        np.testing.assert_allclose(scaled, plain * scale**found, rtol=1e-12)


def test_several_inputs() -> None:
    """A sum scales with both alone; a product with each."""
    head = "(double[N, 3] a, double[N, 3] b) => (double[N, 3] y)"
    summed, product = (net(f"{head} {{ y = {op}(a, b) }}") for op in ("Add", "Mul"))
    assert [degree(summed, name) for name in ("a", "b", "")] == ["add", "add", 1]
    assert [degree(product, name) for name in ("a", "b", "")] == [1, 1, 2]
    a, b = normal(1, 2, 3), normal(2, 2, 3)
    found = irshap.compile(product, method="x-gradient", target=0).explainer()({"a": a, "b": b})
    for values in found.values.values():  # half of the product each
        np.testing.assert_allclose(values[:, 0], a[:, 0] * b[:, 0] / 2)
    held = irshap.compile(product, method="x-gradient", target=irshap.Target("0", context="b"))
    np.testing.assert_allclose(held.explainer()({"a": a, "b": b}).values[:, 0], a[:, 0] * b[:, 0])
    with pytest.raises(NotDifferentiable, match=r"add.*degree 0 .a bias has 0. and 1.*x-dnn"):
        irshap.compile(summed, method="x-gradient", target=irshap.Target("0", context="b"))


def test_what_it_refuses() -> None:
    with pytest.raises(NotDifferentiable, match=r"/conv1/Conv \(conv\): x-gradient needs a target that"):
        irshap.compile(demo.model_path(), method="x-gradient")
    with pytest.raises(NotDifferentiable, match=r"positive degree in what is attributed: it has -1"):
        irshap.compile(model_of(BODIES["inverse"][0]), method="x-gradient", target=0)
    with pytest.raises(NotDifferentiable, match="it has 0"):
        irshap.compile(model_of(BODIES["quotient"][0]), method="x-gradient", target=0)


def test_an_interior_tensor_and_every_target() -> None:
    """Behind the last bias the demo's network scales."""
    model = onnx.load(demo.model_path())
    bias = next(t for t in model.graph.initializer if t.name.endswith("fc2.bias"))
    bias.CopyFrom(numpy_helper.from_array(np.zeros(10, np.float32), bias.name))
    relu = next(n.output[0] for n in reversed(model.graph.node) if n.op_type == "Relu")
    images = demo.digits()[0][:3]
    for target in ("all", "top-2", "argmax"):
        found = irshap.compile(
            model,
            method="x-gradient{emit=completeness_error}",
            target=irshap.Target(target, wrt=relu),
        ).explainer()(images)
        assert found.completeness_error is not None
        assert np.abs(found.completeness_error).max() < 1e-5
        assert found.base_values is None


def x_dnn(source: Path, folder: Path) -> Path:
    path = folder / "x.onnx"
    assert main(["x-dnn", str(source), str(path)]) == 0
    return path


@pytest.mark.parametrize("name", ["digits", "resnet", "vgg_bn", "densenet"])
def test_an_x_dnn(name: str, tmp_path: Path) -> None:
    """x-gradient is integrated gradients against zeros, and scales with the sample."""
    source = Path(demo.model_path()) if name == "digits" else FAMILIES / f"{name}_torchscript.onnx"
    path = x_dnn(source, tmp_path)
    samples: Array = (
        demo.digits()[0][:3] if name == "digits" else np.load(FAMILIES / f"{name}.npz")["inputs.input"]
    )
    explainer = irshap.compile(path, method="x-gradient", target=1).explainer()
    found = explainer(samples)
    (outputs,) = found.outputs.values()
    np.testing.assert_allclose(found.total(), outputs[:, 1], rtol=1e-4, atol=1e-4)
    steps = irshap.compile(path, np.zeros_like(samples[:1]), method="integrated-gradients{steps=3}", target=1)
    close = 1e-5 * np.abs(found.values).max()
    np.testing.assert_allclose(found.values, steps.explainer()(samples).values, rtol=0, atol=close)
    np.testing.assert_allclose(explainer(3 * samples).values, 3 * found.values, rtol=0, atol=9 * close)


def test_remove_bias_leaves_the_weights() -> None:
    """What is left is the difference to the model's value without the sample, for one affine layer."""
    model = net(
        """(double[N, 2, 4] x) => (double[N, 3, 2] y)
        { a = Sub(x, m) b = BatchNormalization(a, s, t, u, v)
          c = Conv<pads = [1, 0]>(b, w, k) y = Add(c, k2) }""",
        m=normal(1, 2, 1),
        s=normal(2, 2),
        t=normal(3, 2),
        u=normal(4, 2),
        v=np.abs(normal(5, 2)),
        w=normal(6, 3, 2, 4),
        k=normal(7, 3),
        k2=normal(8, 3, 1),
    )
    made = PassManager.from_text("lift,remove-bias,canonicalize,dce,lower").run(model)
    x = normal(9, 5, 2, 4)
    runner, without = (onnx.reference.ReferenceEvaluator(m) for m in (model, made))
    plain, zero = (runner.run(None, {"x": a})[0] for a in (x, np.zeros_like(x)))
    np.testing.assert_allclose(without.run(None, {"x": x})[0], plain - zero, rtol=1e-9)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["homogeneity", str(demo.model_path())]) == 0
    assert "/conv1/Conv" in capsys.readouterr().out
    path = x_dnn(Path(demo.model_path()), tmp_path)
    assert "without the biases of 5 ops" in capsys.readouterr().out
    assert main(["homogeneity", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"outputs": {"logits": {"image": {"degree": 1.0}}}}
    assert main(["homogeneity", str(path), "--values"]) == 0
    assert "/pool1/MaxPool" in capsys.readouterr().out
    assert main(["x-dnn", str(path), str(path)]) == 2
    assert "it would overwrite the model" in capsys.readouterr().err
