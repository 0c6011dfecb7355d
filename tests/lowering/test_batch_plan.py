"""Which axis is the batch, and what a user may say of it, of open axes and of scalar inputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from irshap.errors import ModelError
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session


def parsed(text: str, initializers: str = "") -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')


def types(model: onnx.ModelProto, **said: str) -> list[str]:
    graph = lift(model, **said)  # type: ignore[arg-type]
    return [str(v.type) for v in (*graph.inputs, *(o.value for o in graph.outputs))]


@pytest.mark.parametrize("size", [-1, None])
@pytest.mark.parametrize("name", ["?", "-1", "None", ""])
def test_axes_that_are_open_in_ways_of_their_own(size: int | None, name: str) -> None:
    """Each is an axis of its own, whatever the writer put there."""
    model = parsed("(float[n,t,3] x) => (float[n,t,3] y) { y = Relu(x) }")
    for dim in model.graph.input[0].type.tensor_type.shape.dim[:2]:
        dim.Clear()
        if size is not None:
            dim.dim_value = size
        else:
            dim.dim_param = name
    assert types(model) == ["f32[N, unknown_1, 3]"] * 2


def test_names_of_one_batch_in_inputs_and_outputs() -> None:
    """As tf2onnx names it: another one for each tensor."""
    model = parsed(
        "(float[unk__9,3] x, float[unk__10,3] z) => (float[unk__11,3] y) { y = Add(x, z) }",
    )
    assert types(model) == ["f32[N, 3]"] * 3
    apart = parsed("(float[a,3] x, float[b,3] z) => (float[c,3] y) { y = Concat<axis=0>(x, z) }")
    assert lift(apart).source.batch == "the inputs have several leading dimensions: 'a' and 'b'"


def test_a_batch_that_the_outputs_lead_with() -> None:
    model = parsed(
        "(float[time,batch,3] x, float[2,batch,3] h) => (float[batch,3] y, float[time,batch,3] z) "
        "{ s = ReduceMean<axes=[0], keepdims=0>(h) z = Relu(x) t = ReduceMean<axes=[0], keepdims=0>(x) "
        "y = Add(s, t) }"
    )
    assert types(model) == ["f32[time, N, 3]", "f32[2, N, 3]", "f32[N, 3]", "f32[time, N, 3]"]


SEQUENCE = "(float[t,n,3] x) => (float[t,n,3] y) { y = Relu(x) }"


def test_a_batch_is_named() -> None:
    assert types(parsed(SEQUENCE)) == ["f32[N, n, 3]"] * 2
    assert types(parsed(SEQUENCE), batch_axes="y=1") == ["f32[t, N, 3]"] * 2
    assert types(parsed(SEQUENCE), batch_axes="x=1") == ["f32[t, N, 3]"] * 2


def test_a_batch_of_1_on_another_axis() -> None:
    model = parsed(
        "(float[5,1,3] x) => (float[1,15] y) "
        "{ t = Transpose<perm=[1,0,2]>(x) s = Constant<value = int64[2] {1, 15}>() y = Reshape(t, s) }"
    )
    assert lift(model).source.batch == "the inputs' leading dimensions are fixed: 'x' has 5"
    graph = lift(model, batch_axes="x=1")
    assert graph.source.batch == ""
    assert [str(v.type) for v in (graph.inputs[0], graph.outputs[0].value)] == ["f32[5, N, 3]", "f32[N, 15]"]
    # rows on axis 1 of the result, too
    moved = parsed("(float[5,1,3] x) => (float[5,1,3] y) { y = Relu(x) }")
    assert types(moved, batch_axes="x=1") == ["f32[5, N, 3]"] * 2


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"batch_axes": "z=1"}, "no input or output is called 'z'"),
        ({"batch_axes": "x=3"}, "'x' has no axis 3"),
        ({"batch_axes": "x"}, "doesn't say the axis of a batch"),
        ({"dims": "t=-1"}, "t=-1 is no size"),
        ({"dims": "u=3"}, "no input has an open axis 'u'"),
        ({"dims": "t=many"}, "doesn't say the size of an axis"),
        ({"set": "w=3"}, "input 'w': the model has no such input"),
        ({"set": "x=3"}, "only an input of one element can be set"),
        ({"set": "k=half"}, "'half' is no int64"),
    ],
)
def test_what_cannot_be_said(said: dict[str, str], why: str) -> None:
    model = parsed("(float[n,t,3] x, int64 k) => (float[n,t,3] y) { c = Cast<to=1>(k) y = Mul(x, c) }")
    with pytest.raises(ModelError, match=why.replace("'", "'")):
        lift(model, **said)  # type: ignore[arg-type]


def test_sizes_of_open_axes() -> None:
    model = parsed(
        "(float[n,seq len,3] x, int64[n,seq len] m) => (float[n,4] y) { y = Relu(x) }".replace("seq len", "t")
    )
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "seq len"
    assert types(model, dims="seq_len=7")[:2] == ["f32[N, 7, 3]", "i64[N, 7]"]
    assert types(model, dims="seq len=7")[:2] == ["f32[N, 7, 3]", "i64[N, 7]"]
    unnamed = parsed("(float[n,?,3] x) => (float[n,?,3] y) { y = Relu(x) }")
    assert types(unnamed, dims="x[1]=7") == ["f32[N, 7, 3]"] * 2


BRANCHES = """(float[n,3] x, int64 rate) => (float[n,3] y)
<int64 wide = {16000}>
{
    c = Equal(rate, wide)
    y = If(c) <
        then_branch = yes () => (float[n,3] z) { a = Relu(x) z = Neg(a) },
        else_branch = no () => (float[n,3] z) { a = Abs(x) z = Identity(a) }
    >
}"""


def test_a_branch_that_a_scalar_input_chooses() -> None:
    """A sampling rate, say: set, it is gone, and so is the branch."""
    model = parsed(BRANCHES)
    assert [n.op.title for n in lift(model).nodes if not n.op.modeled] == ["If"]
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    for rate in (16000, 8000):
        graph = lift(model, set=f"rate={rate}")
        assert [v.name for v in graph.inputs] == ["x"]
        assert {n.op.mnemonic for n in graph.nodes} <= {"relu", "neg", "abs"}
        (expected,) = Session(model).run({"x": x, "rate": np.array(rate)})
        np.testing.assert_array_equal(Session(lower(graph)).run({"x": x})[0], expected)


def test_a_branch_within_a_branch_has_names_of_its_own() -> None:
    model = parsed(
        """(float[n,3] x) => (float[n,3] y)
        {
            s = Shape(x) i = Constant<value = int64 {1}>() d = Gather(s, i) e = Size(d) c = Equal(e, i)
            y = If(c) <
                then_branch = yes () => (float[n,3] z) {
                    a = Relu(x)
                    z = If(c) <
                        then_branch = yes2 () => (float[n,3] z2) { b = Neg(a) z2 = Exp(b) },
                        else_branch = no2 () => (float[n,3] z2) { b = Abs(a) z2 = Exp(b) }
                    >
                },
                else_branch = no () => (float[n,3] z) { a = Abs(x) z = Exp(a) }
            >
        }"""
    )
    assert [n.op.mnemonic for n in lift(model).nodes] == ["relu", "neg", "exp"]


@pytest.mark.parametrize("names", [("", ""), ("unk__1", "unk__2"), ("t", ""), ("t", "t")])
def test_a_length_that_inputs_share_under_other_names(names: tuple[str, str]) -> None:
    """A sequence and its mask: only as one length do they go together."""
    model = parsed(
        "(float[n,t,3] x, float[n,t] m) => (float[n,3] y) <int64[1] two = {2}, int64[1] one = {1}> "
        "{ u = Unsqueeze(m, two) a = Mul(x, u) y = ReduceSum<keepdims=0>(a, one) }"
    )
    for value, name in zip(model.graph.input, names, strict=True):
        dim = value.type.tensor_type.shape.dim[1]
        dim.Clear()
        if name:
            dim.dim_param = name
    graph = lift(model)
    assert all(n.op.modeled for n in graph.nodes)
    x, mask = (v.shape[1] for v in graph.inputs)
    assert x == mask


def test_states_whose_batch_has_no_name() -> None:
    """[layers, ?, states] beside [?, features]: that their open axis is the batch, too, is tried."""
    body = "{ s = ReduceMean<axes=[0], keepdims=0>(h) y = Mul(x, s) }"
    model = parsed(f"(float[?,3] x, float[2,?,3] h) => (float[?,3] y) {body}")
    assert types(model) == ["f32[N, 3]", "f32[2, N, 3]", "f32[N, 3]"]
    # of one that isn't, rows alone and together differ
    body = "{ s = ReduceMean<axes=[0,1], keepdims=0>(h) t = Bernoulli(s) y = Mul(x, t) }"
    model = parsed(f"(float[?,3] x, float[2,?,3] h) => (float[?,3] y) {body}")
    assert types(model)[1] == "f32[2, unknown_1, 3]"


def test_a_batch_is_not_squeezed_away() -> None:
    """Also where one sample's would be: rows are what each gives alone, with the batch that it had."""
    model = parsed("(float[n,1,3] x) => (float[n,3] y) { y = Squeeze(x) }")
    assert types(model) == ["f32[N, 1, 3]", "f32[N, 3]"]
    assert [n.op.title for n in lift(model, batch="keep").nodes] == ["Squeeze"]
    open_length = parsed("(float[n,t,1] x) => (float[n,t] y) { y = Squeeze(x) }")
    assert [n.op.title for n in lift(open_length).nodes] == ["Squeeze"]


def test_lengths_that_need_not_agree_stay_apart() -> None:
    text = "(float[n,s,3] x, float[n,t,3] z) => (float[n,3] y) "
    text += (
        "{ a = ReduceMean<axes=[1], keepdims=0>(x) b = ReduceMean<axes=[1], keepdims=0>(z) y = Add(a, b) }"
    )
    assert types(parsed(text))[:2] == ["f32[N, s, 3]", "f32[N, t, 3]"]
