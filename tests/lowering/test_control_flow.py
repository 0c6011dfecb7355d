"""Loops, branches and sequences that are decided while lifting: nothing of them is left in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.errors import UserError
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session
from irshap.ops.program import Opaque


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')


def check(model: onnx.ModelProto, *shape: int, opaque: frozenset[str] = frozenset()) -> None:
    graph = lift(model)
    assert {n.op.title for n in graph.nodes if not n.op.modeled} == opaque
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for a, b in zip(Session(model).run({"x": x}), Session(lower(graph)).run({"x": x}), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


HEAD = (
    "int64 three = {3}, int64 two = {2}, int64 one = {1}, int64 zero = {0}, bool yes = {1}, int64[1] v1 = {1}"
)
STEP = "body = step (int64 i, bool on, float[n,4] h) => (bool more, float[n,4] next"


@pytest.mark.parametrize(
    "loop",
    [
        # a number of trips
        f"y = Loop(three, yes, x) <{STEP}) {{ a = Tanh(h) next = Add(a, x) more = Identity(on) }}>",
        # until something that is computed from the trip's number is false; without a limit
        f'y = Loop("", yes, x) <{STEP}) {{ a = Tanh(h) next = Add(a, x) more = Less(i, two) }}>',
        # both: here the limit comes first, and there the condition
        f"y = Loop(three, yes, x) <{STEP}) {{ next = Sin(h) more = Less(i, three) }}>",
        f"y = Loop(three, yes, x) <{STEP}) {{ next = Sin(h) more = Less(i, zero) }}>",
        # no trip at all
        f"z = Loop(zero, yes, x) <{STEP}) {{ next = Sin(h) more = Identity(on) }}> y = Neg(z)",
        # what each trip gives, one after the other
        "s = Loop(three, yes) <body = step (int64 i, bool on) => (bool more, float[n,4] row) "
        "{ c = Cast<to=1>(i) row = Mul(x, c) more = Identity(on) }> y = ReduceMean<axes=[0], keepdims=0>(s)",
        # a trip's number as an index
        f"y = Loop(three, yes, x) <{STEP}) {{ c = Gather<axis=1>(x, i) u = Unsqueeze(c, v1) next = Mul(h, u) "
        "more = Identity(on) }>",
        # a loop in a loop
        f"y = Loop(two, yes, x) <{STEP}) {{ next = Loop(three, yes, h) <body = inner (int64 j, bool go, "
        "float[n,4] k) => (bool again, float[n,4] l) { l = Sin(k) again = Identity(go) }> more = "
        "Identity(on) }>",
    ],
)
def test_loops_whose_trips_are_known(loop: str) -> None:
    check(parsed(f"(float[n,4] x) => (float[n,4] y) <{HEAD}> {{ {loop} }}"), 3, 4)


def test_loops_in_loops_that_would_become_too_many() -> None:
    inner = (
        "next = Loop(k, yes, h) <body = inner (int64 j, bool go, float[n,4] a) => (bool again, float[n,4] b) "
    )
    inner += "{ b = Sin(a) again = Identity(go) }> more = Identity(on)"
    loop = f"k = Constant<value = int64 {{1500}}>() y = Loop(k, yes, x) <{STEP}) {{ {inner} }}>"
    graph = lift(parsed(f"(float[n,4] x) => (float[n,4] y) <{HEAD}> {{ {loop} }}"))
    assert [n.op.title for n in graph.nodes if not n.op.modeled] == ["Loop"]


def test_other_loops_stay() -> None:
    """As many trips as there are samples, or as a value says; and a loop that would fill the memory."""
    loop = f"y = Loop(k, yes, x) <{STEP}) {{ next = Sin(h) more = Identity(on) }}>"
    for trips in (
        "s = Shape(x) k = Gather(s, zero)",
        "m = ReduceMax<keepdims=0>(x) k = Cast<to=7>(m)",
        "k = Constant<value = int64 {1000000000}>()",
    ):
        graph = lift(parsed(f"(float[n,4] x) => (float[n,4] y) <{HEAD}> {{ {trips} {loop} }}"))
        assert {n.op.title for n in graph.nodes if not n.op.modeled} == {"Loop"}


SEQUENCES = {
    "put together": "q = SequenceConstruct(x, a) y = SequenceAt(q, one)",
    "inserted": "e = SequenceEmpty() q = SequenceInsert(e, x) r = SequenceInsert(q, a, zero) y = "
    "SequenceAt(r, zero)",
    "from the end": "q = SequenceConstruct(x, a) y = SequenceAt(q, minus)",
    "erased": "q = SequenceConstruct(x, a, x) r = SequenceErase(q, zero) s = SequenceErase(r) y = "
    "SequenceAt(s, zero)",
    "split": "q = SplitToSequence<axis=1>(x, two) b = SequenceAt(q, zero) c = SequenceAt(q, one) y = "
    "Concat<axis=1>(c, b)",
    "split in single ones": "q = SplitToSequence<axis=1, keepdims=0>(x) b = SequenceAt(q, three) "
    "c = Unsqueeze(b, v1) y = Mul(x, c)",
    "split as told": "q = SplitToSequence<axis=1>(x, parts) b = SequenceAt(q, one) y = Concat<axis=1>(b, b, "
    "b, b)",
    "joined": "q = SplitToSequence<axis=1>(x, two) y = ConcatFromSequence<axis=1>(q)",
    "stacked": "q = SequenceConstruct(x, a) s = ConcatFromSequence<axis=0, new_axis=1>(q) "
    "y = ReduceMax<axes=[0], keepdims=0>(s)",
    "counted": "q = SequenceConstruct(x, a) l = SequenceLength(q) f = Cast<to=1>(l) y = Mul(x, f)",
    "filled by a loop": "e = SequenceEmpty() q = Loop(three, yes, e) <body = step (int64 i, bool on, "
    "seq(float[n,4]) s) => (bool more, seq(float[n,4]) t) { c = Cast<to=1>(i) r = Add(x, c) t = "
    "SequenceInsert(s, r) "
    "more = Identity(on) }> y = SequenceAt(q, two)",
}


@pytest.mark.parametrize("body", SEQUENCES.values(), ids=list(SEQUENCES))
def test_sequences_of_which_all_is_known(body: str) -> None:
    more = "int64 minus = {-1}, int64[2] parts = {3, 1}"
    check(parsed(f"(float[n,4] x) => (float[n,4] y) <{HEAD}, {more}> {{ a = Neg(x) {body} }}"), 3, 4)


def test_a_scripted_loop_is_explained_once_its_trips_are_set() -> None:
    model = parsed(
        f"(float[n,4] x, int64 k) => (float[n,4] y) <{HEAD}> "
        f"{{ y = Loop(k, yes, x) <{STEP}) {{ a = Tanh(h) next = Mul(a, x) more = Identity(on) }}> }}"
    )
    x, references = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    explanation = irshap.compile(irshap.Model(model, set={"k": 3}), references, target=1).explainer()(x)
    (expected,) = Session(model).run({"x": x, "k": np.array(3)})
    np.testing.assert_allclose(explanation.outputs["y"], expected, rtol=1e-5)
    assert np.abs(explanation.completeness_error).max() < 1e-6 < np.abs(explanation.total()).max()


SCAN_BODY = "b (float[n,2] s, float[n,2] a) => (float[n,2] t, float[n,2] o) { t = Add(s, a) o = Tanh(t) }"


@pytest.mark.parametrize(
    "words",
    [
        "scan_input_axes=[1], scan_output_axes=[1]",
        "scan_input_axes=[-2], scan_output_axes=[-1]",
        "scan_input_axes=[1], scan_output_axes=[1], scan_input_directions=[1]",
        "scan_input_axes=[1], scan_output_axes=[2], scan_output_directions=[1]",
    ],
)
def test_scans_whose_steps_are_known(words: str) -> None:
    scan = f"Scan<body={SCAN_BODY}, num_scan_inputs=1, {words}>"
    first = "s = ReduceMax<axes=[1], keepdims=0>(x)"
    check(parsed(f"(float[n,3,2] x) => (float[n,a,b] y) {{ {first} e, y = {scan}(s, x) }}"), 2, 3, 2)


def test_a_scan_over_an_open_axis_stays() -> None:
    scan = f"Scan<body={SCAN_BODY}, num_scan_inputs=1, scan_input_axes=[1]>"
    first = "s = ReduceMax<axes=[1], keepdims=0>(x)"
    model = parsed(f"(float[n,t,2] x) => (float[t,n,2] y) {{ {first} e, y = {scan}(s, x) }}")
    assert [n.op.title for n in lift(model).nodes if isinstance(n.op, Opaque)] == ["Scan"]


def test_a_branch_that_an_input_chooses_says_how_to_choose_it() -> None:
    """A sampling rate, say: with its value the branch is read."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x, int64 rate) => (float[N,3] y)
        <int64 high = {16000}> {
            is = Equal(rate, high)
            y = If(is) <then_branch = a () => (float[N,3] u) { u = Tanh(x) },
                        else_branch = b () => (float[N,3] v) { v = Relu(x) }>
        }"""
    )
    references = np.zeros((1, 3), np.float32)
    with pytest.raises(
        UserError, match=r"input rate chooses a branch at run time; give its value .set rate=VALUE"
    ):
        irshap.compile(model, references)
    found = irshap.compile(irshap.Model(model, set={"rate": 16000}), references, target="0")
    x = np.float32([[0.5, 1, 2]])
    np.testing.assert_allclose(found.explainer()(x).values, [[np.tanh(0.5), 0, 0]], atol=1e-6)
