"""Kinds of broken models that mutated files have shown: each is refused, or carried through."""

from __future__ import annotations

import resource
from contextlib import suppress

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.errors import ModelError, NotDifferentiable, TargetError, UserError
from irshap.ir.types import DType, TensorType
from irshap.lowering import lift
from irshap.lowering.lift import Lift
from irshap.lowering.unbatch import _together
from irshap.ops.pool import MaxPool
from irshap.pipeline.base import Context

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


CARRIED = {
    "parts of a sequence counted in floats": (
        "(float[N,4] x) => (float[N,4] y) <float[2] s = {1, 3}> "
        "{ q = SplitToSequence<axis=1>(x, s) y = ConcatFromSequence<axis=1>(q) }"
    ),
    "a map over what is no sequence": (
        "(float[N,4] x) => (float[N,4] y) { y = SequenceMap<body = b (float[N,4] a) => (float[N,4] c) "
        "{ c = Relu(a) }>(x) }"
    ),
    "a power of 2^31": (
        "(float[N,1,4] x) => (float[N,1,3] y) { y = LpPool<kernel_shape=[2], p=2147483647>(x) }"
    ),
    "steps of a scan that don't fit together": (
        "(float[3,4] x) => (float[3,2,m] y) { y = Scan<num_scan_inputs = 1, "
        "body = b (float[4] a) => (float[2,k] c) { p = NonZero(a) c = Cast<to=1>(p) }>(x) }"
    ),
}


@pytest.mark.parametrize("name", CARRIED)
def test_carried_through_as_it_is(name: str) -> None:
    graph = lift(parsed(CARRIED[name]))
    assert not all(n.op.modeled for n in graph.nodes)


def test_absent_inputs_at_the_end_are_none() -> None:
    """Given some, ONNX Runtime's DFT ends the process in a fault."""
    graph = lift(parsed('(float[1,4,4,1] x) => (float[1,4,4,2] y) { y = DFT(x, "", "") }', opset=20))
    assert all(n.op.modeled for n in graph.nodes)


def test_vectors_as_long_as_a_node_makes_them() -> None:
    """onnx's inference would list the elements of 3 Gi sizes, behind an op that irshap hasn't."""
    model = parsed(
        """(float[2,3] x) => (float[2,3] y, float[k] z) <int64[1] low = {-3221225472}> {
        r = Shape(x) n = Size(r) long = Sub(n, low) v = ConstantOfShape<value: tensor = int64[1] {2}>(long)
        c = Concat<axis=0>(v, low) y = Relu(x) z = made.up.Op(c) }"""
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Lift(constants=2**62).run(model, Context())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**19  # KiB


def test_many_tensors_that_dont_line_up() -> None:
    """How a batch goes through them isn't looked for among all choices of an axis of each: 2^40 here."""
    parts = [f"t{i}" for i in range(40)]
    made = " ".join(f"{t} = Relu(x)" for t in parts)
    model = parsed(
        f"(float[1,2] x) => (float[a,b] y) <float[1,3] w = {{1,2,3}}> "
        f"{{ {made} z = Concat<axis=0>({', '.join(parts)}, w) y = Relu(z) }}"
    )
    assert not all(n.op.modeled for n in lift(model).nodes)


OF_FLOATS = ["Softmax(c)", "LogSoftmax(c)", "ReduceLogSum(c)", "Round(c)", "Pow(c, c)", "LpNormalization(c)"]


@pytest.mark.parametrize("op", [*OF_FLOATS, "LayerNormalization(c, c)"])
def test_constants_that_an_op_does_not_take(op: str) -> None:
    model = parsed(
        "(float[N,2] x) => (float[N,2] y) <int64[2] c = {3, -2}> "
        f"{{ z = {op} f = Cast<to=1>(z) y = Add(x, f) }}"
    )
    with suppress(UserError):
        irshap.compile(model, np.zeros((1, 2), np.float32))


def test_a_feature_that_no_sample_has() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 1]> g (float[N,3] x) => (float[N,1] y)
        <int64[1] at = {2147483648}> { y = ai.onnx.ml.ArrayFeatureExtractor(x, at) }"""
    )
    with pytest.raises(UserError, match="index 2147483648 is out of range for an axis of 3"):
        irshap.compile(model, np.zeros((1, 3), np.float32))


def test_a_size_below_zero() -> None:
    model = parsed(
        """(float[N,3,4] x) => (float[N,4,4] y) <int64[3] times = {1, -5, 1}> {
        t = Tile(x, times) u = Transpose<perm=[0,2,1]>(t) y = MatMul(u, t) }"""
    )
    # onnx 1.22 still infers a size of -15, and then the batch counts as lost
    with pytest.raises((NotDifferentiable, TargetError), match=r"tile.*f32\[N, -15, 4\]"):
        irshap.compile(model, np.zeros((1, 3, 4), np.float32))


def test_an_output_that_single_samples_give_without_axes() -> None:
    """The batch is lost on the way, and of one sample the result is a scalar."""
    with pytest.raises(ModelError, match="can't be joined"):
        _together([np.float32(1.0), np.float32(2.0)], 0, True)


FAILING = {
    "ScatterND": "<int64[1,1] i = {9}, float[1] u = {1}> { q = ScatterND(c, i, u) y = Mul(x, q) }",
    "ScatterElements": "<int64[1] i = {9}, float[1] u = {1}> { q = ScatterElements(c, i, u) y = Mul(x, q) }",
    "Gather": "<int64[6] i = {0, 1, 2, 3, 4, 9}> { q = Gather(c, i) y = Mul(x, q) }",
    "GatherElements": "<int64[6] i = {0, 1, 2, 3, 4, 9}> { q = GatherElements(c, i) y = Mul(x, q) }",
    "GatherND": "<int64[6,1] i = {0, 1, 2, 3, 4, 9}> { q = GatherND(c, i) y = Mul(x, q) }",
}


@pytest.mark.parametrize("kind", FAILING)
def test_an_index_that_no_element_has(kind: str) -> None:
    """The node is told, not the references, on which it doesn't depend."""
    inits = "float[6] c = {1, 2, 3, 4, 5, 6}, "
    text = FAILING[kind].replace("<", f"<{inits}", 1)
    model = parsed(f"(float[N,6] x) => (float[N,6] y) {text}")
    with pytest.raises(ModelError, match=f"q \\({kind}\\): its index 9 is out of range for an axis of 6"):
        irshap.compile(model, np.zeros((1, 6), np.float32), target=0)
    # what no output needs is never run
    unread = parsed(f"(float[N,6] x) => (float[N,6] y) {text.replace('Mul(x, q)', 'Relu(x)')}")
    assert irshap.compile(unread, np.zeros((1, 6), np.float32), target=0)


VARYING = {
    "ScatterND": "<int64[1,2] i = {0, 9}, float[1] u = {1}> { q = ScatterND(x, i, u) y = Relu(q) }",
    "ScatterElements": """<int64[1,1] i = {9}, float[1,1] u = {1}> {
    q = ScatterElements<axis=1>(x, i, u) y = Relu(q) }""",
    "Gather": "<int64[2] i = {0, 9}> { q = Gather<axis=1>(x, i) y = Relu(q) }",
    "GatherElements": "<int64[1,2] i = {0, 9}> { q = GatherElements<axis=1>(x, i) y = Relu(q) }",
    "GatherND": "<int64[1,2,1] i = {0, 9}> { q = GatherND<batch_dims=1>(x, i) y = Relu(q) }",
}


@pytest.mark.parametrize("kind", VARYING)
def test_an_index_that_no_sample_has(kind: str) -> None:
    model = parsed(f"(float[1,6] x) => (float[1,M] y) {VARYING[kind]}")
    with pytest.raises(ModelError, match=f"q \\({kind}\\): its index 9 is out of range for an axis of 6"):
        irshap.compile(model, np.zeros((1, 6), np.float32), target=0)


def test_a_window_that_is_left_out() -> None:
    """Of [1, 1, 6] windows begin at 0, 4 and 8: ONNX leaves out the last, ONNX Runtime counts it."""
    model = parsed(
        """(float[1,1,6] x) => (float[1,3] y) <float[2,3] w = {1, 2, 3, 4, 5, 6}> {
        p = MaxPool<kernel_shape=[1], strides=[4], ceil_mode=1>(x)
        e = Exp(p) f = Flatten(e) y = MatMul(f, w) }"""
    )
    with pytest.raises(UserError, match=r"p \(max_pool\) leaves out a window .*ceil_mode=0, and pads"):
        irshap.compile(model, np.zeros((1, 1, 6), np.float32), target=0)


@pytest.mark.parametrize(
    ("size", "pads", "dropped"),
    [(6, (0, 0), True), (5, (0, 0), False), (4, (0, 1), True), (4, (1, 0), False)],
)
def test_which_windows_are_left_out(size: int, pads: tuple[int, int], dropped: bool) -> None:
    pool = MaxPool((1 if size > 4 else 2,), (4,), (pads,), (1,), ceil=True)
    found = pool.dropped(TensorType(DType.F32, (1, 1, size)))
    assert (found == 0) is dropped
