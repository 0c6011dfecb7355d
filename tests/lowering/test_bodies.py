"""Ops that the standard defines by a function, lifted through that body: as the op itself, and complete."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from kernels import needs_opset
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import irshap
from irshap.ir.types import Array
from irshap.lowering import lift, lower
from irshap.lowering.bodies import body_of
from irshap.lowering.files.convert import ir_version_for
from irshap.ops.program import Opaque


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node_model(kind: str, operands: dict[str, Any], opset: int, outputs: int = 1, **attributes: Any) -> Any:
    """A model of one node, and values for its inputs: those of a given shape; arrays are constants."""
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(kind, list(operands), results, name="the_op", **attributes)
    shapes = {k: v for k, v in operands.items() if isinstance(v, tuple)}
    feeds = {k: draw(i, *v) for i, (k, v) in enumerate(shapes.items())}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(k, 1, ["N", *v[1:]]) for k, v in shapes.items()],
        [onnx.ValueInfoProto(name=n) for n in results],
        [numpy_helper.from_array(v, k) for k, v in operands.items() if isinstance(v, np.ndarray)],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version_for(imports))
    expected = ReferenceEvaluator(model).run(None, feeds)
    for i, (value, array) in enumerate(zip(model.graph.output, expected, strict=True)):
        open_sizes = [f"d{i}_{axis}" for axis in range(array.ndim)]
        value.type.CopyFrom(helper.make_tensor_type_proto(1, open_sizes))
    return model, feeds, expected


QKV = {"q": (2, 5, 32), "k": (2, 6, 32), "v": (2, 6, 32)}
HEADS = {"q": (2, 4, 5, 8), "k": (2, 2, 6, 8), "v": (2, 2, 6, 8)}
CACHE = {"cos": draw(8, 10, 4), "sin": draw(9, 10, 4), "at": np.arange(5)[None]}
CASES: dict[str, tuple[str, dict[str, Any], int, dict[str, Any]]] = {
    "shrink": ("Shrink", {"x": (3, 4)}, 9, {"lambd": 0.3, "bias": 0.1}),
    "mvn": ("MeanVarianceNormalization", {"x": (3, 4, 5, 2)}, 13, {"axes": [1, 2]}),
    "shrink, defaults": ("Shrink", {"x": (3, 4)}, 18, {}),
    "swiglu": ("SwiGLU", {"x": (2, 5, 8), "g": (2, 5, 8)}, 28, {}),
    "rotary": ("RotaryEmbedding", {"x": (2, 4, 5, 8)} | CACHE, 23, {}),
    "rotary, interleaved": ("RotaryEmbedding", {"x": (2, 4, 5, 8)} | CACHE, 23, {"interleaved": 1}),
    "rotary, in part": (
        "RotaryEmbedding",
        {"x": (2, 5, 32), "cos": draw(8, 10, 2), "sin": draw(9, 10, 2), "at": np.arange(5)[None]},
        23,
        {"rotary_embedding_dim": 4, "num_heads": 4},
    ),
    "linear attention": (
        "LinearAttention",
        {"q": (2, 5, 8), "k": (2, 5, 8), "v": (2, 5, 8)},
        27,
        {"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"},
    ),
    "causal convolution": (
        "CausalConvWithState",
        {"x": (2, 6, 5), "w": draw(7, 6, 1, 3), "b": draw(8, 6)},
        27,
        {"activation": "silu"},
    ),
    "crop": ("CenterCropPad", {"x": (2, 3, 6, 7), "size": np.array([5, 9])}, 18, {"axes": [2, 3]}),
}
THREE = {"q_num_heads": 4, "kv_num_heads": 4}
for _opset in (23, 24, 25):
    CASES |= {
        f"attention {_opset}, causal": ("Attention", HEADS, _opset, {"is_causal": 1, "softcap": 2.0}),
        f"attention {_opset}, bias": ("Attention", QKV | {"m": draw(7, 5, 6)}, _opset, THREE),
        f"attention {_opset}, mask": ("Attention", QKV | {"m": np.tri(5, 6) > 0}, _opset, THREE),
    }


def case_model(case: str) -> Any:
    kind, operands, opset, attributes = CASES[case]
    if opset > onnx.defs.onnx_opset_version():
        pytest.skip(f"onnx {onnx.__version__} has no opset {opset}")
    count = onnx.defs.get_schema(kind, opset).min_output
    return node_model(kind, operands, opset, count, **attributes)


@pytest.mark.parametrize("case", CASES)
def test_through_its_body(case: str) -> None:
    model, feeds, expected = case_model(case)
    graph = lift(model)
    assert all(n.op.modeled for n in graph.nodes)
    assert graph.outputs[0].value.name == "y0"
    found = ReferenceEvaluator(lower(graph)).run(None, feeds)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_adds_up_through_its_body(case: str) -> None:
    model, feeds, _ = case_model(case)
    needs_opset(model.opset_import[0].version)
    references = {k: draw(20 + i, 3, *v.shape[1:]) for i, (k, v) in enumerate(feeds.items())}
    single = len(feeds) == 1
    compiled = irshap.compile(model, references["x"] if single else references, target="sum[0]")
    explanation = compiled.explainer()(feeds["x"] if single else feeds)
    parts = [explanation.values] if single else explanation.values.values()
    largest = max(float(np.abs(v).max()) for v in parts)
    assert largest > 1e-2
    assert np.abs(explanation.completeness_error).max() < 1e-5 * largest


def test_further_results_and_caches() -> None:
    operands = QKV | {"": None, "pk": (2, 4, 3, 8), "pv": (2, 4, 3, 8)}
    model, feeds, expected = node_model("Attention", operands, 23, 3, q_num_heads=4, kv_num_heads=4)
    for found, wanted in zip(ReferenceEvaluator(lower(lift(model))).run(None, feeds), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_names_within_are_no_others() -> None:
    """What a body calls its tensors is neither taken for nor put in the place of the model's own."""
    text = "(float[n,3] x) => (float[n,3] y) { InputAddBias = Neg(x) s = Shrink(InputAddBias) y = Abs(s) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    named = {v.name: v.node.op.title for v in lift(model).values() if v.name}
    assert named["InputAddBias"] == "neg"
    assert "s" in named


def test_a_body_with_an_op_without_a_form_is_left_and_says_so() -> None:
    text = "(int64 n, int64 step) => (int64[k] y) { zero = Sub(n, n) y = Range(zero, n, step) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    (op,) = (n.op for n in lift(model).nodes if isinstance(n.op, Opaque))
    assert op.kind == "Range"
    assert op.why.startswith("the body of its definition has Loop")


def test_a_map_over_a_sequence_whose_items_are_known() -> None:
    body = "m (float[n,3] a, float[3] b) => (float[n,3] c) { d = Mul(a, b) c = Tanh(d) }"
    text = (
        "(float[n,6] x) => (float[n,6] y) <float[3] w = {1, 2, 3}> "
        "{ parts = SplitToSequence<axis=1>(x, size) "
        f"all = SequenceMap<body={body}>(parts, w) y = ConcatFromSequence<axis=1>(all) }}"
    )
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    model.graph.initializer.append(numpy_helper.from_array(np.int64(3), "size"))
    graph = lift(model)
    assert all(n.op.modeled for n in graph.nodes)
    x = draw(0, 2, 6)
    (found,) = ReferenceEvaluator(lower(graph)).run(None, {"x": x})
    np.testing.assert_allclose(found, np.tanh(x * np.tile([1, 2, 3], 2)), rtol=1e-5)


def test_an_op_that_its_opset_lacks_has_no_body() -> None:
    node = helper.make_node("LayerNormalization", ["x", "w"], ["y"])
    assert body_of(node, [None, None], 13, ()) is None
