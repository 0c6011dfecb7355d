"""Nodes that irshap has no op for: they say why, and what stands behind them lifts and lowers."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest

from irshap.errors import ModelError
from irshap.lowering import lift, lower
from irshap.lowering.files.convert import Unconvertible, convert_node
from irshap.ops.program import Opaque


def parsed(text: str, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}]> g {text}')


def test_opaque_nodes_say_why() -> None:
    graph = lift(parsed("(float[2,3] x) => (float[2,3] y) { y = Bernoulli(x) }"))
    (node,) = graph.nodes
    assert isinstance(node.op, Opaque)
    assert node.op.why == "irshap has no rule for this op"


@pytest.mark.parametrize(
    "text",
    [
        # as a batch of N the first operand wouldn't fit the second: the product's type is open
        "(float[1,2,3] a, float[2,3,4] b) => (float[1,1] y) <int64[2] flat = {1, -1}, float[16,1] w = {1}> "
        '{ p = Einsum<equation="...ij,...jk->...ik">(a, b) f = Reshape(p, flat) q = MatMul(f, w) '
        "y = Sum(q) }",
        "(float[1,3] a, bool c) => (float[1,3] y) { p = made.up.Op(a) q = Bernoulli(p) y = Where(c, q, p) }",
    ],
    ids=["einsum", "made up"],
)
def test_what_stands_behind_an_open_type(text: str) -> None:
    model = parsed(text.replace("w = {1}", f"w = {{{', '.join(['1'] * 16)}}}"))
    model.opset_import.add(domain="made.up", version=1)
    assert [o.name for o in lower(lift(model)).graph.output] == ["y"]


def test_a_converted_node_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    convert = onnx.version_converter.convert_version

    def wrong(model: onnx.ModelProto, target: int) -> onnx.ModelProto:
        converted = convert(model, target)
        (mode,) = (a for a in converted.graph.node[0].attribute if a.name == "mode")
        mode.s = b"max"
        return converted

    text = "(float[1,1,6,6] x) => (float[1,1,2,2] y) <float[1,4] boxes = {0, 0, 4, 5}, int64[1] of = {0}> "
    text += '{ y = RoiAlign<mode="avg", output_height=2, output_width=2>(x, boxes, of) }'
    graph = lift(parsed(text, opset=10, ir=5), batch="keep")
    lower(graph, opset=16)
    monkeypatch.setattr("irshap.lowering.files.convert.version_converter.convert_version", wrong)
    with pytest.raises(ModelError, match="gives other numbers"):
        lower(graph, opset=16)


def test_a_node_that_the_converter_finds_wrong_is_refused() -> None:
    """onnx's errors have no common base: here it is one of shape inference."""
    cast = onnx.helper.make_node("Cast", ["x"], ["y"], to=99)
    kind = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [3])
    with pytest.raises(Unconvertible):
        convert_node(cast, (("", 9),), 16, {"x": kind, "y": kind})
