"""Models in half precision: explained in float32, finite and complete at hard values."""

from __future__ import annotations

from functools import cache
from typing import Any

import flat
import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import pytest
from two_world_cases import normal

import irshap
from irshap.ir.builder import Builder
from irshap.ir.core import Output
from irshap.ir.dims import N
from irshap.ir.evaluator import evaluate
from irshap.ir.types import DType, TensorType
from irshap.ops.program import Input, Opaque
from irshap.pipeline.manager import PassManager

BODIES = {
    "layer norm": "h = LayerNormalization <axis = -1, epsilon = 1e-12> (x, gamma, beta)",
    "layer norm by parts": """m = ReduceMean <axes = [-1]> (x) a = Sub (x, m) q = Mul (a, a)
        p = ReduceMean <axes = [-1]> (q) e = Add (p, eps) s = Sqrt (e) h = Div (a, s)""",
    "norm in float32": """l = Cast <to = 1> (x) q = Mul (l, l) p = ReduceMean <axes = [-1]> (q)
        e = Add (p, tiny) s = Sqrt (e) d = Div (l, s) k = Cast <to = KIND> (d) h = Mul (k, gamma)""",
    "attention": """q = MatMul (x, w) k = MatMul (x, u) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul (q, t)
        p = Softmax <axis = -1> (s) v = MatMul (x, w) h = MatMul (p, v)""",
    "smooth": """a = MatMul (x, w) g = Sigmoid (a) b = Mul (a, g) t = Tanh (b) e = Exp (t) l = Softplus (e)
        h = Sqrt (l)""",
    "written-out softplus": "c = Greater (x, twenty) l = Softplus (x) h = Where (c, x, l)",
}
KINDS = {"float16": (10, np.dtype(np.float16)), "bfloat16": (16, np.dtype(ml_dtypes.bfloat16))}
X, R = normal(10, 2, 3, 4), normal(11, 3, 3, 4)
CONSTANT = np.repeat(normal(12, 3, 3, 1), 4, axis=-1)
VALUES = {
    "random": (X, R),
    "constant references": (X, CONSTANT),
    "constant samples": (CONSTANT[:2], R),
    "zero references": (X, np.zeros((1, 3, 4))),
    "zeros": (np.zeros((2, 3, 4)), np.zeros((1, 3, 4))),
    "the sample itself": (X, X[:1]),
    "nearly the sample": (X, X[:1] * 1.01),
}


@cache
def model(name: str, kind: str) -> onnx.ModelProto:
    code, dtype = KINDS[kind]
    body = BODIES[name].replace("KIND", str(code))
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> toy ({kind}[N,3,4] x) => ({kind}[N,2] y)
        {{ {body} f = Reshape (h, apart) y = MatMul (f, o) }}"""
    )
    arrays = {"w": normal(1, 4, 4), "u": normal(2, 4, 4), "o": normal(4, 12, 2), "gamma": normal(5, 4)}
    arrays |= {"beta": normal(6, 4), "eps": np.array(1e-4), "twenty": np.array(20.0)}
    for key, array in arrays.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(dtype), key))
    for key, array in {"apart": np.array([-1, 12]), "tiny": np.float32(1e-6)}.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), key))
    onnx.checker.check_model(parsed)
    return parsed


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BODIES)
def test_finite_and_complete(name: str, kind: str, values: str) -> None:
    """As in float32, up to the digits that huge multipliers of constant rows cost there, too."""
    x, r = (a.astype(KINDS[kind][1]) for a in VALUES[values])
    found = []
    for passes in ("@naive", "@default", "@cuda"):
        graph = flat.compile(model(name, kind), r, passes=passes, emit="completeness_error").graph
        raw = evaluate(graph, {"x": x})
        assert raw["y"].dtype == x.dtype
        assert raw["x_attributions"].dtype == raw["base_values"].dtype == np.float32
        assert np.isfinite(raw["x_attributions"]).all()
        scale = np.abs(raw["x_attributions"]).sum((1, 2)) + np.abs(raw["y"].astype(np.float32)).max(1)
        assert np.all(np.abs(raw["completeness_error"]) <= 1e-5 * scale)
        if values in ("the sample itself", "zeros"):
            assert np.all(raw["x_attributions"][0] == 0)
        found.append(raw["x_attributions"])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-5 * np.abs(found[0]).max() + 1e-6)


@pytest.mark.parametrize("name", BODIES)
def test_in_onnx_runtime(name: str) -> None:
    x, r = (a.astype(np.float16) for a in (X, R))
    for how in ({}, {"passes": "@naive"}, {"device": "cuda"}, {"fp16": True}, {"strategy": "recompute"}):
        found = irshap.compile(model(name, "float16"), r, **how).explainer()(x)
        assert found.outputs["y"].dtype == np.float16
        scale = np.abs(found.values).sum((1, 2)) + np.abs(found.outputs["y"].astype(np.float32)).max(1)
        assert np.all(np.abs(found.completeness_error) <= 1e-2 * scale)
    plain = irshap.compile(model(name, "float16"), method="gradient").explainer()(x)
    assert plain.values.dtype == np.float32
    assert np.isfinite(plain.values).all()


@pytest.mark.parametrize("kind", KINDS)
def test_large_weights_stay_in_half(kind: str) -> None:
    """And what isn't one of them is stored as it is."""
    code, dtype = KINDS[kind]
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> toy ({kind}[N,64] x) => ({kind}[N,64] y)
        {{ a = MatMul (x, w) h = Relu (a) y = MatMul (h, u) }}"""
    )
    for i, key in enumerate("wu"):
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(normal(i, 64, 64).astype(dtype), key))
    x, r = normal(3, 4, 64).astype(np.float32), normal(4, 200, 64).astype(np.float32)
    compiled, again = (irshap.compile(parsed, r, strategy="recompute") for _ in range(2))
    assert compiled.model.SerializeToString() == again.model.SerializeToString()
    onnx.checker.check_model(compiled.model, full_check=True)
    large = [t for t in compiled.model.graph.initializer if len(t.raw_data) >= 8192]
    assert {t.data_type for t in large} == {code}
    found = compiled.explainer()(x)
    assert np.abs(found.values).max() > 0
    expected = evaluate(compiled.graph, {"x": x.astype(dtype)})["x_attributions"]
    np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_interior_tensors_and_names() -> None:
    x, r = (a.astype(np.float16) for a in (X, R))
    for wrt, shape in (("x", (2, 3, 4)), ("h", (2, 3, 4)), ("x,h", (2, 3, 4))):
        compiled = irshap.compile(model("attention", "float16"), r, target=irshap.Target(wrt=wrt))
        raw: dict[str, Any] = compiled.explainer()(x).raw
        names = [n for n in raw if n.endswith("_attributions")]
        assert names == [f"{n}_attributions" for n in wrt.split(",")]
        assert all(raw[n].shape == shape for n in names)


@pytest.mark.parametrize("name", BODIES)
def test_bfloat16_in_onnx_runtime(name: str) -> None:
    """It has no kernels for the model itself; the explained one runs, and takes and gives float32 arrays."""
    x, r = X.astype(np.float32), R.astype(np.float32)
    explainer = irshap.compile(model(name, "bfloat16"), r).explainer()
    found = explainer(x)
    graph = flat.compile(model(name, "bfloat16"), r).graph
    expected = evaluate(graph, {"x": x.astype(ml_dtypes.bfloat16)})
    np.testing.assert_allclose(found.outputs["y"], expected["y"].astype(np.float32), rtol=1e-2, atol=1e-6)
    largest = np.abs(expected["x_attributions"]).max()
    np.testing.assert_allclose(found.values, expected["x_attributions"], rtol=0, atol=1e-4 * largest)
    again = explainer(x.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(again.values, found.values)


def test_what_has_no_known_rank_keeps_its_type() -> None:
    """It is read by nodes that irshap doesn't model: no cast can stand between."""
    node = onnx.helper.make_node("Op", ["x"], ["o"], domain="made.up")
    made = Opaque("Op", "made.up", (("made.up", 1),), node.SerializeToString(), (True,), (True,))
    with Builder() as b:
        (x,) = b.emit(Input("x"), types=(TensorType(DType.F16, (N, 3)),), names=("x",))
        (o,) = b.emit(made, x, types=(TensorType(DType.F16, None),))
        graph = b.build("g", [Output("o", o)])
    (output,) = PassManager.from_text("single").run(graph).outputs
    assert str(output.value.type) == "f16[*]"
