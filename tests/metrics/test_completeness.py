"""`irshap verify` and its API: what is complete passes, and what is broken is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flat
import numpy as np
import onnx
import onnx.parser
import pytest
from places import FIXTURES

from irshap import demo
from irshap.checks.instruments import VerifyTypes
from irshap.cli import main
from irshap.errors import UserError
from irshap.metrics.account import account
from irshap.metrics.completeness import check_completeness
from irshap.ops.elementwise import Relu, Sigmoid
from irshap.ops.softmax import Softmax
from irshap.passes import conv_adjoint
from irshap.passes.methods.deeplift import DeepLift
from irshap.pipeline.manager import PassManager

pytestmark = pytest.mark.slow

PIPELINES = ("@naive", "@default")


def family(name: str) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    data = np.load(FIXTURES / "families" / f"{name.rpartition('_')[0]}.npz")
    (key,) = (
        (str(k) for k in data["input_names"] if str(k) != "embedded") if "text" not in name else ("tokens",)
    )
    model = FIXTURES / "families" / f"{name}.onnx"
    return model, {key: data[f"references.{key}"]}, {key: data[f"inputs.{key}"]}


@pytest.mark.parametrize("passes", PIPELINES)
@pytest.mark.parametrize("rule", ["rescale", "reveal-cancel", "mixed"])
def test_a_complete_model(passes: str, rule: str) -> None:
    found = flat.check_completeness(*family("vgg_dynamo"), passes=passes, rule=rule)
    assert found.ok
    assert found.runtime == "ONNX Runtime"
    assert found.error.shape == found.allowed.shape == (4,)
    assert found.tolerance == 1e-4
    assert (found.losses, found.cause, found.gaps) == ((), "", ())


def test_in_float64_and_for_several_classes() -> None:
    data = np.load(FIXTURES / "digits_f64.npz")
    given = data["references.image"][:3], data["inputs.image"][:4]
    found = flat.check_completeness(FIXTURES / "digits_f64.onnx", *given, target="top-3")
    assert found.ok
    # ONNX Runtime has no convolution in float64
    assert (found.tolerance, found.runtime, found.error.shape) == (1e-9, "irshap's evaluator", (4, 3))
    assert np.abs(found.error).max() < 1e-12


@pytest.mark.parametrize("passes", PIPELINES)
@pytest.mark.parametrize(
    ("op", "facet", "broken", "name", "node"),
    [
        (Relu, "chord", lambda s, x, x0, y, y0: s.slope(x, y), "resnet_dynamo", "relu"),
        (Softmax, "secant", lambda s, c, a, a0, w: s.derivative(c, a, w), "text_torchscript", "softmax"),
    ],
)
def test_a_broken_rule_is_named(
    op: Any, facet: str, broken: Any, name: str, node: str, passes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(op, facet, broken)
    found = flat.check_completeness(*family(name), passes=passes)
    assert not found.ok
    assert f"({node})" in found.losses[0].where
    assert found.losses[0].where in found.cause
    assert {loss.where.partition(" (")[2] for loss in found.losses} == {f"{node})"}
    gaps = [loss.gap for loss in found.losses]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 1e-3


def test_a_broken_rule_of_reveal_cancel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Relu.sharing

    def sharing(self: Any, *args: Any) -> Any:
        return original(Sigmoid(), *args)

    monkeypatch.setattr(Relu, "sharing", sharing)
    found = flat.check_completeness(*family("vgg_dynamo"), rule="reveal-cancel")
    assert not found.ok
    assert "(relu)" in found.losses[0].where


def test_a_rule_that_gives_nan_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relu, "chord", lambda s, x, x0, y, y0: (y - y0) / (x - x))
    found = flat.check_completeness(*family("vgg_dynamo"))
    assert not found.ok
    assert "(relu)" in found.losses[0].where


def test_a_broken_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = conv_adjoint.flip_weights
    monkeypatch.setattr(conv_adjoint, "flip_weights", lambda *args: original(*args)[:, ::-1])
    found = flat.check_completeness(*family("vgg_dynamo"))
    assert not found.ok
    assert found.losses == ()
    assert "after conv-adjoint" in found.cause


def toy(body: str, inputs: str = "float[N,3] x") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> toy ({inputs}) => (float[N,3] y) {{ {body} }}'
    )


X, R = np.float32([[0.5, 1.25, -1], [2, 0.1, 0.7]]), np.float32([[0.25, 1, 1]])


def test_rounding_is_told_from_a_wrong_rule() -> None:
    body = "c = Constant <value = float {1e6}> () s = Sigmoid (x) a = Add (s, c) y = Sub (a, c)"
    found = flat.check_completeness(
        toy(body), R, X, passes="lift,target,autodiff,deeplift,bind-references,lower"
    )
    assert not found.ok
    assert found.losses == ()
    assert "rounding" in found.cause


def test_what_was_left_out_on_request() -> None:
    found = flat.check_completeness(toy("r = Hardmax (x) y = Add (r, x)"), R, X, on_incomplete="residual")
    assert not found.ok
    assert [g.where for g in found.gaps] == ["r (hardmax)"]
    assert "r (hardmax)" in found.cause


def test_the_account_of_every_op() -> None:
    graph = PassManager.from_text("lift,target").run(toy("a = Sigmoid (x) b = Mul (a, x) y = Neg (b)"))
    found = account(graph, lambda g: {"x": X, "x_references": R})
    assert {loss.where.partition(" (")[0] for loss in found} >= {"a", "b", "y"}
    assert all(loss.gap <= 1e-6 * loss.flow for loss in found)


def test_what_does_not_fit() -> None:
    model = toy("y = Sigmoid (x)")
    with pytest.raises(UserError, match="no such input 'z'"):
        flat.check_completeness(model, R, {"z": X})
    with pytest.raises(UserError, match="shape"):
        flat.check_completeness(model, R, X[:, :2])
    with pytest.raises(UserError, match="need samples"):
        flat.check_completeness(model, R, X[:0])
    with pytest.raises(
        UserError, match=r"attributions of gradient don't sum.*take one that sums: deeplift, "
    ):
        flat.check_completeness(model, None, X, passes="@gradient")


def test_other_methods_that_sum() -> None:
    smooth = toy("a = Sigmoid (x) y = Tanh (a)")
    found = check_completeness(smooth, R, X, method="integrated-gradients")
    assert found.ok
    rough = check_completeness(smooth, R, X, method="integrated-gradients{steps=2}")
    assert not rough.ok
    assert "but for its quadrature" in rough.cause
    assert check_completeness(smooth, R, X, method="integrated-gradients{steps=2}", tolerance=0.2).ok
    assert check_completeness(smooth, R, X, method="exact-shapley").ok
    # x-gradient sums to f(x) itself, and has no base
    scaled = check_completeness(toy("a = Relu (x) y = Neg (a)"), None, X, method="x-gradient")
    assert scaled.ok
    assert not scaled.base_values.any()
    np.testing.assert_allclose(scaled.total, scaled.prediction)


@pytest.mark.parametrize("name", ["digits", "digits_f64"])  # in ONNX Runtime, and in the evaluator
def test_samples_that_hold_no_number_are_named(name: str) -> None:
    data = np.load(FIXTURES / "digits_f64.npz")
    model = demo.model_path() if name == "digits" else FIXTURES / "digits_f64.onnx"
    x = data["inputs.image"][:2].copy()
    x[1, 0, 2, 3] = np.nan
    with pytest.raises(UserError, match=r"input 'image': sample 1 holds nan at \[0, 2, 3\]"):
        flat.check_completeness(model, data["references.image"], x)


def test_float16_is_widened() -> None:
    model = toy("y = Sigmoid (x)", "float[N,3] x")
    half = onnx.TensorProto.FLOAT16
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = half
    graph = PassManager.from_text("lift,widen").run(model)
    assert all(v.dtype.value == "f64" for v in graph.values())


def test_widening_leaves_opaque_nodes_alone() -> None:
    body = "d = Det (m) y = Add (x, d)"
    model = toy(body, "float[N,3] x, float[2,2] m")
    graph = PassManager.from_text("lift,widen", [VerifyTypes()]).run(model)
    assert graph.output(graph.outputs[0].role).value.dtype.value == "f64"


class Shell:
    def __init__(self, folder: Path, capsys: Any) -> None:
        self.folder, self.capsys = folder, capsys
        np.save(folder / "x.npy", X)
        np.save(folder / "r.npy", R)
        onnx.save(toy("s = Relu (x) y = Add (s, x)"), folder / "m.onnx")
        onnx.save(toy("r = Hardmax (x) y = Add (r, x)"), folder / "loose.onnx")

    def run(self, model: str, *args: str) -> tuple[int, str, str]:
        paths = [str(self.folder / n) for n in (model, "r.npy", "x.npy")]
        code = main(["verify", paths[0], "--references", paths[1], "--inputs", paths[2], *args])
        out, err = self.capsys.readouterr()
        return code, out, err


@pytest.fixture
def shell(tmp_path: Path, capsys: Any) -> Shell:
    return Shell(tmp_path, capsys)


def test_the_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = shell.run("m.onnx", "--rows", "1")
    assert (code, err) == (0, "")
    assert "worst error" in out
    assert "allowed, in sample" in out
    assert "1 more rows" in out
    code, out, _ = shell.run("m.onnx", "--json")
    assert code == 0
    assert (json.loads(out)["ok"], len(json.loads(out)["rows"])) == (True, 2)
    monkeypatch.setattr(Relu, "chord", lambda s, x, x0, y, y0: s.slope(x, y) * 2.0)
    code, out, err = shell.run("m.onnx")
    assert code == 1
    assert "s (relu)" in out
    assert err.startswith("error: 2 of 2 completeness errors are beyond tolerance: the rule of s (relu)")
    code, out, err = shell.run("m.onnx", "--json")
    assert (code, json.loads(out)["losses"][0]["where"]) == (1, "s (relu)")


def test_the_command_on_what_is_left_out(shell: Shell) -> None:
    code, out, err = shell.run("loose.onnx")
    assert (code, out) == (2, "")
    assert "r (hardmax)" in err
    code, out, err = shell.run("loose.onnx", "--on-incomplete", "residual")
    assert code == 1
    assert "left out on request: r (hardmax)" in out
    code, _, _ = shell.run("m.onnx", "--tolerance", "-1")
    assert code == 2


def test_the_option_is_the_pass_s(shell: Shell) -> None:
    assert DeepLift().on_incomplete == "error"
    code, _, err = shell.run("m.onnx", "--rule", "resale")
    assert code == 2
    assert "resale" in err
