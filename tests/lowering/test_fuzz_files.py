"""A few hundred broken files, and the smallest that failed; tests/bench/fuzz_files.py runs any number."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from fuzz_files import MUTATIONS, Outcome, fixtures, generated, mutated, outcome
from onnx import TensorProto, helper, parser

import irshap
from irshap.errors import ModelError, NotDifferentiable, ReferencesError, UserError
from irshap.lowering import lift
from irshap.lowering.files.arrays import dtype_of
from irshap.lowering.files.load import infer_shapes

COUNT, COMPILED = 300, 5


def test_broken_files_are_compiled_or_refused() -> None:
    models = [*fixtures(20_000), *generated(30)]
    found: list[tuple[int, Outcome]] = []
    for seed in range(COUNT):
        found.append((seed, outcome(mutated(models, seed), whole=seed % COMPILED == 0)))
    assert not [(seed, f) for seed, f in found if f.kind == "internal error"]
    kinds = Counter(f.kind for _, f in found)
    # refusing everything would pass, too
    assert kinds["lifted"] + kinds["compiled"] >= COUNT // 10
    assert kinds["compiled"] >= 1
    assert kinds["refused"] >= COUNT // 3


def test_a_seed_gives_the_same_file() -> None:
    models = generated(5)
    files = [mutated(models, seed) for seed in range(60)]
    assert files == [mutated(models, seed) for seed in range(60)]
    assert len({*files, *models}) > 40
    assert len(MUTATIONS) > 20


def test_a_fault_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lift_fails(source: bytes) -> None:
        raise KeyError("v1")

    monkeypatch.setattr("fuzz_files.lift", lift_fails)
    assert outcome(b"") == Outcome("internal error", "KeyError", "'v1'")


def test_a_node_whose_operand_has_no_type() -> None:
    """Nothing tells what an op of another domain gives: neither does inference of the node behind it."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17, "zoo": 1]>
    g (float[N,3] x) => (int64[2,k] y) {
        h = zoo.Strange(x)
        y = NonZero(h)
    }""")
    assert [o.name for o in lift(model).outputs] == ["y"]


def test_a_node_whose_operands_are_of_the_wrong_type() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,3] x, int64[N,3] k) => (float[N,3] y) { [sum] y = Add(x, k) }""")
    with pytest.raises(ModelError, match=r"sum.* \(Add\): is not a valid node: B has inconsistent type"):
        lift(model)


@pytest.mark.parametrize("place", ["input", "initializer"])
def test_an_element_type_without_arrays(place: str) -> None:
    code = getattr(TensorProto, "FLOAT6E2M3", 99)
    with pytest.raises(ModelError, match=r"has tensors of the element type .*which irshap can't read"):
        dtype_of(code)
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,3] x) => (float[N,3] y) <float[3] w = {1,2,3}> { y = Add(x, w) }""")
    if place == "input":
        model.graph.input[0].type.tensor_type.elem_type = code
    else:
        model.graph.initializer[0].CopyFrom(
            TensorProto(name="w", dims=[3], data_type=code, int32_data=[1, 2, 3])
        )
    with pytest.raises(ModelError, match="element type"):
        lift(model)


def test_negative_dimensions_are_unknown_ones() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[1,3] x) => (float[1,3] y) { y = Relu(x) }""")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -(2**31)
    assert lift(model).inputs[0].rank == 2


def test_an_axis_of_any_length_takes_no_time() -> None:
    """Values in arithmetic are propagated one by one: not of an axis of 2^62."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N] x) => (float[N] y) <float[1] one = {1}> { y = Add(x, one) }""")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2**62
    assert infer_shapes(model) is not None
    with pytest.raises(UserError):
        irshap.compile(model, np.zeros((1, 3), np.float32))


def test_an_input_too_large_to_try() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[1,2,2] x) => (float[1,2,2] y) { y = Relu(x) }""")
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim[1:]:
            dim.dim_value = 2**30
    assert "has a result of" in lift(model).source.batch


def test_a_window_too_large_to_try() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 22]>
    g (float[1,1,4] x) => (float[1,1,4] y) {
        y = LpPool<auto_pad = "SAME_LOWER", kernel_shape = [2147483648]>(x)
    }""")
    assert "has a window of 2147483648 elements" in lift(model).source.batch


WINDOWS = ["kernel_shape = [-1]", "kernel_shape = [9]", "kernel_shape = [2], strides = [0]"]


@pytest.mark.parametrize("attributes", WINDOWS)
def test_windows_that_do_not_exist(attributes: str) -> None:
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,2,4] x) => (float[N,2,k] y) {{ [pool] y = MaxPool<{attributes}>(x) }}""")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(UserError):
        irshap.compile(model, np.zeros((1, 2, 4), np.float32))


def test_an_input_that_is_no_tensor_beside_a_batch_of_1() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (optional(float[1,3]) o, float[1,3] x) => (float[1,3] y) {
        there = OptionalHasElement(o)
        f = Cast<to = 1>(there)
        y = Add(x, f)
    }""")
    assert "input 'o' is no tensor of a known rank" in lift(model).source.batch


def test_a_sequence_beside_what_is_attributed() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (seq(float[N,3]) s, float[N,3] x) => (float[N,3] y, int64 n) {
        y = Relu(x)
        n = SequenceLength(s)
    }""")
    assert irshap.compile(model, np.zeros((1, 3), np.float32)).model.graph.output[0].name == "y"


def test_a_strided_slice_of_nothing() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,4] x) => (float[N,1] y)
    <int64[1] at = {4}, int64[1] end = {4}, int64[1] axis = {1}, int64[1] step = {2}> {
        none = Slice(x, at, end, axis, step)
        sum = ReduceSum<keepdims = 1>(none, axis)
        first = ReduceMax<keepdims = 1, axes = [1]>(x)
        y = Add(sum, first)
    }""")
    explanation = irshap.compile(model, np.zeros((1, 4), np.float32)).explainer()(np.eye(4, dtype=np.float32))
    np.testing.assert_allclose(explanation.total(), 1.0)


def test_references_that_the_model_fails_on() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (int64[N,2] ids) => (float[N,2] y) <float[3,1] table = {1,2,3}, int64[1] axis = {2}> {
        [look] rows = Gather(table, ids)
        flat = Squeeze(rows, axis)
        y = Exp(flat)
    }""")
    with pytest.raises(ReferencesError, match=r"look.*can't be computed on the references.*IndexError"):
        irshap.compile(model, np.array([[0, 7]]))


def test_an_attribute_that_is_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[1,1,4] x) => (float[1,1,2] y)
    <float[1,1,3] w = {1,2,3}> { y = Conv<auto_pad = "VALID">(x, w) }""")
    for attribute in model.graph.node[0].attribute:
        attribute.s = b"\xff"
    with pytest.raises(UserError):
        irshap.compile(model, np.zeros((1, 1, 4), np.float32))
    assert capfd.readouterr() == ("", "")


def test_gathering_from_an_empty_axis() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,0] x, int64[1] at) => (float[N,1] y) { [pick] y = Gather<axis = 1>(x, at) }""")
    with pytest.raises(NotDifferentiable, match="has nothing to pick from"):
        irshap.compile(model, np.zeros((1, 0), np.float32))


def test_a_slice_of_an_axis_of_negative_size() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,4] x) => (float[N,k] y)
    <int64[1] at = {3}, int64[1] end = {0}, int64[1] axis = {1}, int64[1] step = {-1}> {
        y = Slice(x, at, end, axis, step)
    }""")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1
    assert len(infer_shapes(model).graph.input[0].type.tensor_type.shape.dim) == 2


BOTH = ["[any] h = zoo.Any(x) y = zoo.Both(h, h)", "[any] h, k = zoo.Any(x) y = zoo.One(k)"]


@pytest.mark.parametrize("nodes", BOTH, ids=["read twice", "beside another result"])
def test_a_tensor_of_unknown_rank_on_the_path(nodes: str) -> None:
    model = parser.parse_model(f"""<ir_version: 10, opset_import: ["": 17, "zoo": 1]>
    g (float[N,4] x) => (float[N,4] y) <float h> {{ {nodes} }}""")
    model.graph.value_info.append(helper.make_tensor_value_info("k", TensorProto.FLOAT, ["N", 4]))
    for value in model.graph.value_info[:1]:
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(NotDifferentiable, match=r"any \(Any\): .*whose rank nothing tells"):
        irshap.compile(model, np.zeros((1, 4), np.float32))


LACKING = [
    helper.make_node("Einsum", ["x", ""], ["y"], "op", equation="ni,i->n"),
    helper.make_node("Add", ["", "x"], ["y"], "op"),
    helper.make_node("Concat", ["x", ""], ["y"], "op", axis=1),
]


@pytest.mark.parametrize("node", LACKING, ids=lambda node: node.op_type)
def test_an_input_that_an_op_must_have(node: Any) -> None:
    """ONNX Runtime crashes on some of them."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }""")
    model.graph.node[0].CopyFrom(node)
    with pytest.raises(
        ModelError, match=r"node 'op' \(.*\): lacks its input|\(op\)'s input 0 is marked single"
    ):
        lift(model)


def test_an_input_that_an_op_may_lack() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,4] x, float one) => (float[N,4] y) { y = Clip(x, one) }""")
    model.graph.node[0].input[:] = ["x", "", "one"]
    assert lift(model).outputs[0].name == "y"


def test_a_normalization_of_endless_reach() -> None:
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
    g (float[N,2,2] x) => (float[N,2,2] y) { [lrn] y = LRN<size = 2147483647>(x) }""")
    with pytest.raises(NotDifferentiable, match=r"lrn .*up to 1024 are written out"):
        irshap.compile(model, np.ones((1, 2, 2), np.float32))
