"""Ops of each opset that changed them: they lift to modeled ops and compute what ONNX Runtime does."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from kernels import needs_opset
from onnx import helper

from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.lowering import lift, lower
from irshap.ops.program import Opaque

X = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
IMAGE = np.random.default_rng(1).standard_normal((2, 6, 3, 3)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.5)


def f32(*values: float) -> Array:
    return np.array(values, np.float32)


def scalar(value: float) -> Array:
    return np.array(value, np.float32)


# op, opset, inputs (None: left out; the first is the model's input, others are constants), attributes
CASES: list[tuple[str, int, list[Array | None], dict[str, Any]]] = [
    ("Celu", 12, [X], {}),
    ("Clip", 7, [X], {"min": -0.5, "max": 0.5}),
    ("Clip", 7, [X], {"max": 0.5}),
    ("Clip", 10, [X], {}),
    ("Clip", 11, [X, scalar(-0.5), scalar(0.5)], {}),
    ("Clip", 12, [X, None, scalar(0.5)], {}),
    ("Clip", 13, [X, scalar(0.25)], {}),
    ("Clip", 13, [X, scalar(0.5), scalar(-0.5)], {}),
    ("Clip", 13, [np.arange(6).reshape(2, 3), np.array(1), np.array(4)], {}),
    ("Elu", 7, [X], {}),
    ("Erf", 9, [X], {}),
    ("Gelu", 20, [X], {}),
    ("Gelu", 20, [X], {"approximate": "tanh"}),
    ("GroupNormalization", 21, [IMAGE, f32(1, 2, 3, 4, 5, 6), f32(0, 1, -1, 0, 1, 2)], {"num_groups": 2}),
    ("HardSigmoid", 7, [X], {}),
    ("HardSigmoid", 7, [X], {"alpha": 0.5, "beta": 0.6}),
    ("HardSwish", 14, [X * 3], {}),
    ("Hardmax", 7, [X], {}),
    ("Hardmax", 11, [X], {"axis": 2}),
    ("Hardmax", 13, [X], {}),
    ("InstanceNormalization", 7, [IMAGE, f32(1, 2, 3, 4, 5, 6), f32(0, 1, -1, 0, 1, 2)], {"epsilon": 0.01}),
    ("IsInf", 10, [f32(np.inf, -np.inf, 1.0)[:, None]], {"detect_negative": 0}),
    ("IsNaN", 9, [X], {}),
    ("LRN", 7, [IMAGE], {"size": 3}),
    ("LayerNormalization", 17, [X, f32(1, 2, 3, 4), f32(0, 1, 2, 3)], {}),
    ("LayerNormalization", 17, [X, np.ones((3, 4), np.float32)], {"axis": 1, "epsilon": 0.5}),
    ("LeakyRelu", 7, [X], {}),
    ("LeakyRelu", 16, [X], {"alpha": 0.3}),
    ("LogSoftmax", 7, [X], {}),
    ("LogSoftmax", 13, [X], {"axis": 0}),
    ("LpNormalization", 7, [X], {}),
    ("LpNormalization", 7, [X], {"axis": 1, "p": 1}),
    ("LpNormalization", 7, [X * 0], {}),
    ("Max", 8, [X], {}),
    ("Max", 8, [X, X[0], X[0, :1]], {}),
    ("Mean", 8, [X], {}),
    ("Mean", 13, [X, X[0], X[0, :1]], {}),
    ("Min", 8, [X, X[0], X[0, :1]], {}),
    ("Mish", 18, [X], {}),
    ("Mod", 10, [X, f32(0.5, -0.5, 1, -1)], {"fmod": 1}),
    ("PRelu", 7, [X, f32(0.1, 0.2, 0.3, 0.4)], {}),
    ("PRelu", 9, [X, np.array([[0.1], [0.2], [0.3]], np.float32)], {}),
    ("Pow", 7, [POSITIVE, scalar(0.3)], {}),
    ("Pow", 12, [X, np.array(3)], {}),
    ("Pow", 13, [POSITIVE, X[0]], {}),
    ("Pow", 15, [X, np.array([2, 1, 3, 0])], {}),
    ("RMSNormalization", 23, [X, f32(1, 2, 3, 4)], {}),
    ("Round", 11, [X * 4], {}),
    ("Selu", 7, [X], {}),
    ("Softmax", 7, [X], {}),
    ("Softmax", 7, [X], {"axis": 2}),
    ("Softmax", 11, [X], {"axis": -2}),
    ("Softmax", 11, [X[:, :, :1]], {}),
    ("Softmax", 11, [X], {"axis": 0}),
    ("Softmax", 13, [X], {}),
    ("Softmax", 13, [X], {"axis": 1}),
    ("Softplus", 7, [X], {}),
    ("Softsign", 7, [X], {}),
    ("Sum", 8, [X, X[0], X[0, :1]], {}),
    ("Swish", 24, [X], {"alpha": 2.0}),
    ("ThresholdedRelu", 10, [X], {}),
]


def model_of(op: str, opset: int, inputs: list[Array | None], attributes: dict[str, Any]) -> onnx.ModelProto:
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    constants = [
        onnx.numpy_helper.from_array(a, n)
        for a, n in zip(inputs[1:], names[1:], strict=True)
        if a is not None
    ]
    x = inputs[0]
    assert x is not None
    declared = helper.make_tensor_value_info(
        "x0", helper.np_dtype_to_tensor_dtype(x.dtype), ["batch", *x.shape[1:]]
    )
    node = helper.make_node(op, names, ["y"], name="tested", **attributes)
    graph = helper.make_graph([node], "model", [declared], [onnx.ValueInfoProto(name="y")], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    (found,) = onnx.shape_inference.infer_shapes(model).graph.output
    # onnx doesn't infer GroupNormalization: a result like its operand
    known = found.type.HasField("tensor_type")
    model.graph.output[0].CopyFrom(found if known else declared)
    model.graph.output[0].name = "y"
    return model


def run(model: onnx.ModelProto, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x0": x})[0])


@pytest.mark.parametrize(
    ("op", "opset", "inputs", "attributes"), CASES, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(CASES)]
)
def test_lifts(op: str, opset: int, inputs: list[Array | None], attributes: dict[str, Any]) -> None:
    needs_opset(opset)
    model = model_of(op, opset, inputs, attributes)
    x = inputs[0]
    assert x is not None
    graph = lift(model)
    assert not [n for n in graph.nodes if isinstance(n.op, Opaque)], "it lifts as opaque"
    expected = run(model, x)
    lowered = lower(graph)
    onnx.checker.check_model(lowered, full_check=True)
    for found in (run(lowered, x), evaluate(graph, {"x0": x})["y"]):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
