"""What lift and lower promise of any model: names, types, metadata, odd and hostile models, equal bytes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper
from places import FAMILIES

import irshap
from irshap.errors import ModelError, UserError
from irshap.ir.types import Array
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session
from irshap.lowering.lift import Lift
from irshap.ops.program import Constant
from irshap.pipeline.base import Context
from irshap.text import parse_graph, print_graph


def parsed(text: str, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["": {opset}]> g {text}')


def names(values: object) -> list[str]:
    return [v.name for v in values]  # type: ignore[attr-defined]


def round_trip(model: onnx.ModelProto, opset: int = 0, **feeds: Array) -> onnx.ModelProto:
    """The lowered model, after it gave what the original gives."""
    lowered = lower(lift(model, batch="keep"), opset=opset)
    onnx.checker.check_model(lowered, full_check=True)
    for a, b in zip(Session(model).run(feeds), Session(lowered).run(feeds), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    return lowered


def f32(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# --- names, types, order ---


def test_inputs_and_outputs_keep_names_types_and_order() -> None:
    model = parsed(
        "(float[n,3] b, int64[k] unused, float[n,3] a) => (float[n,3] y, float[n,3] x, int64[2] s) "
        "{ x = Sub(a, b) y = Relu(x) s = Shape(y) }"
    )
    lowered = round_trip(model, a=f32(2, 3), b=f32(2, 3) * 2, unused=np.zeros(4, np.int64))
    assert names(lowered.graph.input) == ["b", "unused", "a"]
    assert names(lowered.graph.output) == ["y", "x", "s"]
    assert [str(v.type).replace("\n", "") for v in lowered.graph.input] == [
        str(v.type).replace("\n", "") for v in model.graph.input
    ]
    assert [v.type.tensor_type.elem_type for v in lowered.graph.output] == [1, 1, 7]


def test_outputs_that_are_inputs_initializers_or_the_same() -> None:
    model = parsed(
        "(float[2] x) => (float[2] x, float[2] w, float[2] y, float[2] z, float[2] v) "
        "<float[2] w = {1,2}> { y = Relu(x) z = Identity(y) v = Identity(w) }"
    )
    lowered = round_trip(model, x=f32(2))
    assert names(lowered.graph.output) == ["x", "w", "y", "z", "v"]


def test_an_input_returned_under_another_name() -> None:
    lowered = round_trip(parsed("(float[2] x) => (float[2] y) { y = Identity(x) }"), x=f32(2))
    assert [n.op_type for n in lowered.graph.node] == ["Identity"]


def test_initializers_that_are_inputs_are_constants() -> None:
    model = parsed("(float[2] x, float[2] w) => (float[2] y) <float[2] w = {3,4}> { y = Mul(x, w) }", ir=3)
    assert names(model.graph.input) == ["x", "w"]
    lowered = lower(lift(model))
    assert names(lowered.graph.input) == ["x"]
    (found,) = Session(lowered).run({"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(found, [3, 4])


def test_optional_outputs_left_out() -> None:
    model = parsed(
        "(float[3,1,2] x) => (float[1,1,2] h) <float[1,8,2] w, float[1,8,2] r> "
        "{ o, h = LSTM<hidden_size=2>(x, w, r) }"
    )
    model.graph.node[0].output[0] = ""
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(f32(1, 8, 2), name) for name in "wr")
    lowered = round_trip(model, x=f32(3, 1, 2))
    (node,) = (n for n in lowered.graph.node if n.op_type == "LSTM")
    assert list(node.output) == ["", "h"]


ODD_NAMES = ["a b", "x/y:0", "größe", "入力", "%x", "constant_0", 'with "quotes"', "new\nline", "1", "N"]


def test_odd_names() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Add", [ODD_NAMES[0], ODD_NAMES[5]], [ODD_NAMES[1]], name=ODD_NAMES[2]),
            helper.make_node("Relu", [ODD_NAMES[1]], [ODD_NAMES[3]], name=ODD_NAMES[3]),
            helper.make_node("Mul", [ODD_NAMES[3], ODD_NAMES[4]], [ODD_NAMES[6]], name=ODD_NAMES[7]),
            helper.make_node("Abs", [ODD_NAMES[6]], [ODD_NAMES[8]]),
        ],
        ODD_NAMES[7],
        [helper.make_tensor_value_info(ODD_NAMES[0], 1, [ODD_NAMES[0], ODD_NAMES[3]])],
        [helper.make_tensor_value_info(ODD_NAMES[i], 1, [ODD_NAMES[0], ODD_NAMES[3]]) for i in (6, 8)],
        [numpy_helper.from_array(np.float32([2.0]), ODD_NAMES[i]) for i in (5, 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    lowered = round_trip(model, **{ODD_NAMES[0]: f32(2, 3)})
    assert names(lowered.graph.output) == [ODD_NAMES[6], ODD_NAMES[8]]
    text = print_graph(lift(model))
    assert print_graph(parse_graph(text)) == text
    again = lower(parse_graph(text))
    assert names(again.graph.input) == [ODD_NAMES[0]]
    assert names(again.graph.output) == [ODD_NAMES[6], ODD_NAMES[8]]


def test_node_names_are_unique_and_kept() -> None:
    model = parsed("(float[2] x) => (float[2] z) { [a] y = Relu(x) [a] w = Bernoulli(y) [b] z = Neg(w) }")
    assert names(lower(lift(model)).graph.node) == ["a", "a_1", "b"]


def test_names_of_nodes_tell_the_model_from_its_explanation() -> None:
    text = "(float[N,2] x) => (float[N,2] y) { h = Relu(x) g = Tanh(h) y = Neg(g) }"
    model, references = parsed(text), np.zeros((2, 2), np.float32)
    for node, name in zip(model.graph.node, ("/a", "a", "forward/b"), strict=True):
        node.name = name
    for passes in ("@naive", "@default"):
        explained = irshap.compile(model, references, passes=passes).model.graph
        found = names(explained.node)
        assert len(set(found)) == len(found)
        made = {o: n for n in explained.node for o in n.output}
        # what the model's own output needs, and nothing else, is called forward
        needed, todo = set(), ["y"]
        while todo:
            if (node := made.get(todo.pop())) is not None:
                needed.add(node.name)
                todo += node.input
        assert needed == {name for name in found if name.startswith("forward/")}
        assert {name for name in found if name not in needed} == {
            n for n in found if n.startswith("explain/")
        }
    again = lower(lift(irshap.compile(model, references).model)).graph
    assert not [name for name in names(again.node) if "explain/explain" in name]
    assert not [name for name in names(lower(lift(model)).graph.node) if name.startswith("explain/")]


def test_what_the_model_says_of_itself() -> None:
    model = parsed("(float[2] x) => (float[2] y) { y = Relu(x) }")
    model.producer_name, model.producer_version, model.doc_string = "maker", "1.2", "what\nfor"
    for key, value in (("b", "2"), ("a", "1")):
        model.metadata_props.add(key=key, value=value)
    graph = lift(model)
    assert (graph.source.opset, graph.source.producer, graph.source.doc) == (17, "maker 1.2", "what\nfor")
    lowered = lower(parse_graph(print_graph(graph)), metadata={"a": "new"})
    assert (lowered.producer_name, lowered.doc_string) == ("irshap", "what\nfor")
    assert [(p.key, p.value) for p in lowered.metadata_props] == [("a", "new"), ("b", "2")]


# --- opsets ---


@pytest.mark.parametrize(("opset", "written"), [(9, 13), (13, 13), (15, 15), (19, 19)])
def test_the_lowest_opset_that_serves(opset: int, written: int) -> None:
    lowered = lower(lift(parsed("(float[n,2] x) => (float[n,2] y) { y = Relu(x) }", opset)))
    (entry,) = lowered.opset_import
    assert entry.version == written
    assert lowered.ir_version == {13: 7, 15: 8, 19: 9}[written]


def test_a_model_of_opaque_nodes_stays_at_its_opset() -> None:
    words = 'mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0, ngram_counts=[0]'
    text = f"TfIdfVectorizer<{words}, ngram_indexes=[0,1], pool_int64s=[4,7]>"
    model = parsed(f"(int64[2,3] x) => (float[2,2] y) {{ y = {text}(x) }}", opset=9, ir=4)
    lowered = round_trip(model, x=np.array([[4, 7, 4], [1, 7, 2]]))
    assert lowered.opset_import[0].version == 9
    assert lowered.ir_version == 4


def test_opaque_nodes_are_converted() -> None:
    # axes became an input at 13, where Softmax also stopped to flatten around its axis
    model = parsed(
        "(bool c, float[2,1,3] x) => (float[2,3] y) { y = If(c) "
        "<then_branch = t () => (float[2,3] a) { a = Squeeze<axes=[1]>(x) }, "
        "else_branch = e () => (float[2,3] b) { q = Softmax<axis=1>(x) b = Squeeze<axes=[1]>(q) }> }",
        opset=11,
        ir=6,
    )
    for c in (True, False):
        lowered = round_trip(model, opset=18, c=np.array(c), x=f32(2, 1, 3))
        assert lowered.opset_import[0].version == 18
    # what is converted can be several nodes
    several = parsed(
        "(float[2,3] x) => (int64[a] y, float[2,3] z) { y = Scatter(i, i, i) z = Relu(x) }", 9, 4
    )
    several.graph.initializer.append(numpy_helper.from_array(np.int64([0, 1]), "i"))
    round_trip(several, x=f32(2, 3))


def test_what_cannot_be_converted_is_refused() -> None:
    body = "b (float s, float[3] e) => (float t, float u) { t = Add(s, s) u = Identity(s) }"
    scan = parsed(
        f"(float[1] i, float[1,2,3] x) => (float[1] o, float[1,2] y) "
        f"{{ o, y = Scan<num_scan_inputs=1, body = {body}>(, i, x) }}",
        opset=8,
        ir=3,
    )
    graph = lift(scan, batch="keep")
    with pytest.raises(
        ModelError, match=r"Scan changed between opset 8 and 13, .* means something else since 9"
    ):
        lower(graph, opset=13)


def test_what_is_converted_to_something_else_is_refused() -> None:
    # onnx 1.23 forgets that Hardmax flattened around its axis
    model = parsed(
        "(bool c, float[2,1,3] x) => (float[2,1,3] y) { y = If(c) "
        "<then_branch = t () => (float[2,1,3] a) { a = Neg(x) }, "
        "else_branch = e () => (float[2,1,3] b) { b = Hardmax<axis=1>(x) }> }",
        opset=11,
        ir=6,
    )
    with pytest.raises(ModelError, match=r"If changed .* Hardmax means something else since 13"):
        lower(lift(model, batch="keep"), opset=13)


# --- subgraphs ---


def test_subgraphs_whose_names_clash_with_outer_ones() -> None:
    model = parsed(
        "(bool c, float[2] x) => (float[2] y, float[2] z) { h = Relu(x) y = If(c) "
        "<then_branch = t () => (float[2] u) { constant_0 = Neg(h) u = Add(constant_0, x) }, "
        "else_branch = e () => (float[2] v) { g_1 = Exp(h) v = Mul(g_1, x) }> z = Add(h, w) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1, 2]), "w"))
    for c in (True, False):
        round_trip(model, c=np.array(c), x=f32(2))


def test_deep_subgraphs() -> None:
    body = "b = Neg(x)"
    for depth in range(15):
        # each level's result is b of the level within
        inner = f"then_branch = t{depth} () => (float[2] b) {{ {body} }}"
        other = f"else_branch = e{depth} () => (float[2] d) {{ d = Exp(x) }}"
        body = f"b = If(c) <{inner}, {other}>".replace("b = If", f"b{depth} = If") + f" b = Abs(b{depth})"
    model = parsed(f"(bool c, float[2] x) => (float[2] y) {{ {body} y = Relu(b) }}")
    for c in (True, False):
        round_trip(model, c=np.array(c), x=f32(2))


# --- hostile models ---


def limited(model: onnx.ModelProto, megabytes: int = 50) -> onnx.ModelProto:
    """The lowered model; fails if the round trip takes more memory or time than its size allows."""
    tracemalloc.start()
    start = time.process_time()
    try:
        lowered = lower(Lift(constants=2**62).run(model, Context()))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < megabytes * 2**20
    assert time.process_time() - start < 20
    return lowered


HUGE = [
    "(int64[1] x) => (float[n] y) <int64[1] s = {1000000000000}> { y = ConstantOfShape(s) }",
    "(float[1] x) => (float[n] y) <int64[1] s = {1000000000000}> { y = Expand(x, s) }",
    "(float[1] x) => (float[n] y) <int64[1] s = {1000000000000}, float[1] w = {1}> { y = Expand(w, s) }",
    "(float[1] x) => (float[n] y) <int64[1] s = {1000000000000}, float[1] w = {1}> { y = Tile(w, s) }",
    "(float[1] x) => (int64[n] y) <int64 a = {0}, int64 b = {1000000000000}, int64 d = {1}> "
    "{ y = Range(a, b, d) }",
    "(float[1] x) => (float[n] y) <int64[2] s = {0,1000000000000}, float[1] w = {1}> { y = Pad(w, s) }",
    "(float[1] x) => (float[n] y) <int64[2] s = {0,1000000000000}, float[1] w = {1}> "
    '{ y = Pad<mode="edge">(w, s) }',
    "(int64[2] x) => (float[n,m] y) <int64 s = {1000000000000}, float[2] w = {0,1}> { y = OneHot(x, s, w) }",
    "(int64[1] x) => (float[n,m] y) <int64[1] i = {0}, int64 s = {1000000000000}, float[2] w = {0,1}> "
    "{ y = OneHot(i, s, w) }",
    "(float[1,1] x) => (float[n,m] y) <float[1,1,2,2] w = {1,2,3,4}, float[4] s = {1,1,1000000,1000000}> "
    "{ y = Resize(w, , s) }",
    "(float[1000000000000] x) => (float[n] y) { y = Relu(x) }",
    "(float[1] x) => (int64[n] y) <int64[1] s = {1000000000000}> { a = ConstantOfShape(s) y = Shape(a) }",
    "(float[1] x) => (int64[n,m] y) <int64[1] s = {1000000000000}> { a = ConstantOfShape(s) y = NonZero(a) }",
    "(float[1] x) => (float[n] y) <int64[2] s = {1000000,1000000}, int64[1] f = {-1}> "
    "{ a = ConstantOfShape(s) y = Reshape(a, f) }",
    "(float[1] x) => (float[n,m] y) <int64[2] s = {1000000,1000000}> "
    "{ a = ConstantOfShape(s) y = EyeLike(a) }",
    "(float[1] x) => (float[n,m] y) <int64[2] s = {1000000,1000000}> "
    "{ k = Constant<value_int=0>() a = ConstantOfShape(s) y = CumSum(a, k) }",
]


@pytest.mark.parametrize("text", HUGE)
def test_huge_tensors_are_not_made(text: str) -> None:
    limited(parsed(text))


def test_a_huge_sparse_initializer() -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([1.0]), "w"),
        numpy_helper.from_array(np.int64([5]), "w_indices"),
        [10**6, 10**6],
    )
    model = parsed("(float[1] x) => (float[n,m] y) { y = Identity(x) }")
    model.graph.node[0].input[0] = "w"
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(ModelError, match=r"10{12} elements"):
        lift(model)


def test_data_that_does_not_fit_its_dims() -> None:
    model = parsed("(float[3] x) => (float[3] y) <float[3] w = {1,2,3}> { y = Add(x, w) }")
    model.graph.initializer[0].dims[:] = [10**9, 3]
    with pytest.raises(ModelError):
        lift(model)


MALFORMED = [
    "(float[3] x) => (float[3] y) { y = Add(x, z) z = Relu(x) }",
    "(float[3] x) => (float[3] y) { y = Add(x, y) }",
    "(float[3] x) => (float[3] y) { y = Relu(x) y = Neg(x) }",
    "(float[3] x) => (float[3] y) { y = Add(x, missing) }",
    "(float[3] x) => (float[3] z) { y = Relu(x) }",
    "(float[3] x) => (float[3] y) { y = Relu(x, x) }",
    "(float[3] x) => (float[3] y) { y = NoSuchOp(x) }",
    "(float[3] x, float[3] x) => (float[3] y) { y = Relu(x) }",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_graphs_are_refused(text: str) -> None:
    with pytest.raises(UserError):
        lower(lift(parsed(text)))


ODD_ATTRIBUTES = [
    "(float[2,3] x) => (float[a,b] y) { y = Transpose<perm=[5,7]>(x) }",
    "(float[2,3] x) => (float[a,b] y) { y = Transpose<perm=[0]>(x) }",
    "(float[2,3] x) => (float[a,b] y) { y = Concat<axis=9>(x, x) }",
    "(float[2,3] x) => (float[a,b] y) { y = Softmax<axis=-9>(x) }",
    "(float[1,1,4,4] x) => (float[a,b,c,d] y) { y = MaxPool<kernel_shape=[2]>(x) }",
    "(float[1,1,4,4] x) => (float[a,b,c,d] y) { y = MaxPool<kernel_shape=[2,2], strides=[0,0]>(x) }",
    "(float[1,1,4,4] x) => (float[a,b,c,d] y) { y = AveragePool<kernel_shape=[2,2], pads=[1]>(x) }",
    "(float[2,3] x) => (float[a,b] y) { y = Cast<to=77>(x) }",
    "(float[2,3] x) => (float[a,b] y) <int64[3] s = {-1,-1,2}> { y = Reshape(x, s) }",
    "(float[2,3] x) => (float[a,b] y) <int64[2] s = {4,4}> { y = Reshape(x, s) }",
    "(float[2,3] x) => (float[a,b] y) <int64[1] s = {-3}> { y = Reshape(x, s) }",
    "(float[2,3] x) => (float[a,b] y) <int64[1] a = {0}, int64[1] d = {0}> { y = Slice(x, a, a, a, d) }",
    "(int64[2] x) => (int64[a] y) <int64[1] z = {0}, int64[1] o = {1}> { q = Div(o, z) y = Mul(x, q) }",
    '(float[2,3] x) => (float[a] y) { y = Einsum<equation="ij->">(x, x) }',
    "(float[2,3] x) => (float[a,b] y) { y = MatMul(x, x) }",
    "(float[2,3] x) => (float[a,b] y) <int64[2] s = {2,2}> { y, z = Split<axis=1>(x, s) }",
    "(float[2,3] x) => (float[a,b] y) <int64 i = {99}> { y = Gather(x, i) }",
]


@pytest.mark.parametrize("text", ODD_ATTRIBUTES)
def test_nodes_that_make_no_sense_stay_as_they_are_or_are_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        lower(lift(parsed(text)))


# --- element types ---


@pytest.mark.parametrize("dtype", ["float16", "float", "double"])
def test_float_types(dtype: str) -> None:
    model = parsed(
        f"({dtype}[n,4] x) => ({dtype}[n,3] y) <{dtype}[4,3] w = {{1,2,3,4,5,6,7,8,9,1,2,3}}> "
        "{ a = MatMul(x, w) b = Softmax(a) c = Abs(a) y = Add(b, c) }"
    )
    numpy = {"float16": np.float16, "float": np.float32, "double": np.float64}[dtype]
    round_trip(model, x=f32(3, 4).astype(numpy))


@pytest.mark.parametrize("code", ["BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4", "STRING", "BOOL", "COMPLEX64"])
def test_constants_of_any_type(code: str) -> None:
    kind = getattr(TensorProto, code)
    values = [b"a", b"\xc3\xa4", b""] if code == "STRING" else [1, 0, 1]
    tensor = helper.make_tensor("w", kind, [3], values)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2]), helper.make_tensor_value_info("w", kind, [3])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    lowered = lower(lift(model))
    (found,) = lowered.graph.initializer
    assert found.data_type == kind
    np.testing.assert_array_equal(numpy_helper.to_array(found), numpy_helper.to_array(tensor))


# --- speed ---


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Relu", "Bernoulli"])
def test_a_long_chain(kind: str) -> None:
    count = 10_000
    tensors = ["x", *(f"t{i}" for i in range(1, count)), "y"]
    graph = helper.make_graph(
        [helper.make_node(kind, [a], [b]) for a, b in pairwise(tensors)],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    start = time.process_time()
    lowered = lower(lift(model))
    assert time.process_time() - start < 15
    assert len(lowered.graph.node) == count


def test_weights_are_copied_once() -> None:
    weights = np.random.default_rng(0).standard_normal((512, 4096)).astype(np.float32)
    model = parsed("(float[n,512] x) => (float[n,4096] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    tracemalloc.start()
    graph = lift(model)
    lifted = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lifted < 2.5 * weights.nbytes
    assert sum(isinstance(n.op, Constant) for n in graph.nodes) == 1


# --- determinism ---

SCRIPT = """
import hashlib, pathlib, sys
import numpy as np
import irshap.compiler.catalog
from irshap.lowering import lift, lower
for path in map(pathlib.Path, sys.argv[1:]):
    models = [lower(lift(path))]
    shape = [d if isinstance(d, int) else 3 for d in lift(path).inputs[0].shape]
    if path.stem.split("_")[0] in ("vgg", "resnet", "encoder"):
        references = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        method = "deeplift{emit=completeness_error}"
        models += [irshap.compile(path, references, method=method).model for _ in range(2)]
    print(*(hashlib.sha256(m.SerializeToString(deterministic=True)).hexdigest() for m in models))
"""


@pytest.mark.slow
def test_equal_bytes_under_any_hash_seed() -> None:
    folder = FAMILIES
    paths = sorted(map(str, folder.glob("*_batch1.onnx")))
    found = set()
    for seed in ("0", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, *paths],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(run.stdout)
    assert len(found) == 1
    lines = found.pop().splitlines()
    assert len(lines) == len(paths)
    assert all(len(set(line.split()[1:])) <= 1 for line in lines)


@pytest.mark.parametrize(
    "kind", ["AveragePool<count_include_pad=1,", "AveragePool<", "LpPool<p=2,", "MaxPool<"]
)
def test_a_window_larger_than_the_image_takes_what_is_there(kind: str) -> None:
    """As the last pool of networks does that is as wide as their channels; a second axis has two windows."""
    made = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["": 22]> g (float[N,2,2,7] x) => (float[N,2,1,a] y)
        {{ y = {kind} ceil_mode=1, kernel_shape=[9,4], strides=[9,4]>(x) }}"""
    )
    x = f32(3, 2, 2, 7)
    graph = lift(made)
    assert all(n.op.mnemonic != "opaque" for n in graph.nodes)
    np.testing.assert_allclose(
        Session(lower(graph)).run({"x": x})[0], Session(made).run({"x": x})[0], rtol=1e-6
    )
