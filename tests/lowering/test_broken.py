"""Kinds of broken models that mutated files have shown: each is refused, or carried through."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.errors import ModelError, UserError
from irshap.lowering import lift

BROKEN = {
    "an axis that no tensor has": (
        "(float[N,3] x, float[3] s) => (float[N,3] y) "
        "{ y = LayerNormalization<axis=9223372036854775807>(x, s) }",
        "no tensor has an axis",
    ),
    "more outputs than are said": (
        "(float[N,6] x) => (float[N,a] y, float[N,b] z, float[N,c] w) "
        "{ y, z, w = Split<axis=1, num_outputs=2>(x) }",
        "has 3 outputs, and num_outputs=2",
    ),
}


def parsed(text: str, opset: int = 18) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "made.up": 1]> g {text}')


@pytest.mark.parametrize("name", BROKEN)
def test_refused_before_inference_ends_the_process(name: str) -> None:
    text, why = BROKEN[name]
    with pytest.raises(ModelError, match=why):
        lift(parsed(text))


def test_choices_among_values_of_no_known_shape() -> None:
    """What a router's positions pick from may come of an op that irshap doesn't model."""
    model = parsed(
        """(float[N,3] x, float[N,3] z) => (float[N,2] y)
        <int64[1] two = {2}, float[3,3] w = {1,2,3,4,5,6,7,8,9}> {
        l = MatMul(x, w) v, i = TopK(l, two) o = made.up.Op(z) y = GatherElements<axis=1>(o, i) }"""
    )
    references = {n: np.zeros((1, 3), np.float32) for n in ("x", "z")}
    with pytest.raises(UserError):
        irshap.compile(model, references)


def test_an_axis_that_is_added_twice() -> None:
    model = parsed(
        "(float[N,3] x) => (float[N,3] y) <int64[2] at = {1, 1}> { u = Unsqueeze(x, at) y = Relu(x) }"
    )
    model.graph.output.add(name="u")
    model.graph.output[1].type.tensor_type.elem_type = 1
    model.graph.output[1].type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
    with pytest.raises(UserError, match="an axis is twice"):
        irshap.compile(model, np.zeros((1, 3), np.float32), target=irshap.Target(output="u"))


def test_not_takes_truth_values() -> None:
    from irshap.ir.core import TypeMismatch
    from irshap.ir.types import DType, TensorType
    from irshap.ops.logic import Not

    with pytest.raises(TypeMismatch, match="truth values"):
        Not().infer(TensorType(DType.F32, (2,)))
