"""The text format: an exact round trip, deterministic names, and errors that tell the place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import SAMPLES, TEXT, graphs, tensors

from irshap.checks.verifier import verify
from irshap.errors import IRError, ParseError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, Output, Role, Source
from irshap.ir.dims import N, symbol
from irshap.ir.types import DType, ForeignType, Tensor, TensorType, Type
from irshap.ops.arithmetic import Add
from irshap.ops.elementwise import Elu, Relu
from irshap.ops.pool import MaxPool
from irshap.ops.program import Constant, Dims, Full, Input, Opaque, Pullback
from irshap.ops.reduce import ReduceSum
from irshap.ops.shape import Pad, Reshape
from irshap.text import parse_graph, print_graph, print_op

F32 = DType.F32


def structure(graph: Graph) -> Any:
    """All of a graph but the names of values: what a round trip must keep."""
    number = {v: i for i, v in enumerate(graph.values())}

    def node(n: Node) -> Any:
        return type(n.op), print_op(n.op), [number[v] for v in n.operands], n.types, n.origin

    outputs = [(o.name, number[o.value], o.role, o.of) for o in graph.outputs]
    nodes = [node(v.node) for v in graph.inputs] + [node(n) for n in graph.nodes]
    return graph.name, graph.properties, graph.source, [v.name for v in graph.inputs], nodes, outputs


def check_round_trip(graph: Graph) -> Graph:
    text = print_graph(graph)
    back = parse_graph(text)
    assert print_graph(back) == text
    assert structure(back) == structure(graph)
    return back


def small(op: Any, *types: Type, given: tuple[Type, ...] | None = None, **kinds: Any) -> Graph:
    """A graph of one op on inputs of these types."""
    with Builder() as b:
        operands = [b.emit(Input(f"x{i}"), types=(t,), names=(f"x{i}",))[0] for i, t in enumerate(types)]
        results = b.emit(op, *operands, types=given, **kinds)
        return b.build("main", [Output("y", results[0])])


@given(graphs(runnable=False))
def test_round_trip(graph: Graph) -> None:
    verify(check_round_trip(graph))


@given(tensors())
@example(Tensor(np.array(-0.0)))
@example(Tensor(np.uint32([0x7FC00001, 0xFFC00000, 0x7F800001]).view(np.float32)))
@example(Tensor(np.float32([1e-45, 3.4028235e38, 0.1, 16777216, 1e-38])))
@example(Tensor(np.int64([-(2**63), 2**63 - 1])))
@example(Tensor(np.uint64([2**64 - 1])))
@example(Tensor(np.array(["", '"', "\ud800", "a\nb", "\\"], dtype=object)))
def test_tensors_keep_every_bit(tensor: Tensor) -> None:
    back = check_round_trip(small(Constant(tensor))).nodes[0].op
    assert isinstance(back, Constant)
    assert back.value == tensor
    assert back.value.array.dtype == tensor.array.dtype


def test_the_samples_of_every_op() -> None:
    for sample in SAMPLES:
        types = sample.types or tuple(Tensor(a).type for a in sample.operands)
        if "N" not in str(sample.op):
            check_round_trip(small(sample.op, *types))


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Relu(), "relu"),
        (Elu(), "elu"),
        (Elu(0.5), "elu{alpha=0.5}"),
        (Elu(float("-inf")), "elu{alpha=-inf}"),
        (Full(-0.0, F32, (N, 2)), "full{value=-0.0, dtype=!f32, shape=[N, 2]}"),
        (ReduceSum((0, 2), False), "reduce_sum{axes=[0, 2], keepdims=false}"),
        (Dims((5,), scalar=True), "dims{values=[5], scalar=true}"),
        (Dims(()), "dims{values=[]}"),
        (Input("a\n", of="b"), r'input{name="a\n", of="b"}'),
        (
            MaxPool((2,), (1,), ((0, 1),), (1,)),
            "max_pool{kernel=[2], strides=[1], pads=[[0, 1]], dilations=[1]}",
        ),
        (Pullback(Relu(), (0,), 1, 1), "pullback{of=relu{}, wrt=[0], cotangents=1, inputs=1}"),
        (Constant(Tensor(np.float32([0.1, 1e-7]))), "constant{value=dense<f32[2], [0.1, 1e-07]>}"),
        (Constant(Tensor(np.bool_(True))), "constant{value=dense<bool[], [true]>}"),
        (Constant(Tensor(["a", '"'])), r'constant{value=dense<str[2], ["a", "\""]>}'),
    ],
)
def test_ops_as_text(op: Any, text: str) -> None:
    assert print_op(op) == text


def test_a_default_is_left_out_only_when_it_is_the_same() -> None:
    """1 == True and 0.0 == -0.0, but they don't print alike."""
    assert print_op(Elu(1)) == "elu{alpha=1}"
    assert parse_graph(print_graph(small(Elu(1), TensorType(F32, (N,))))).nodes[0].op == Elu(1.0)


def opaque(proto: bytes) -> Opaque:
    return Opaque(
        kind="At",
        domain="ai.onnx.ml",
        opsets=(("", 17),),
        proto=proto,
        present=(True, False),
        outputs=(True,),
        captures=("a", "b"),
    )


def test_opaque_nodes_and_foreign_types() -> None:
    op = opaque(b"\x00\xffproto")
    foreign = ForeignType("sequence", b"\x01\xfe")
    unknown = TensorType(DType.BF16, None)
    graph = small(op, foreign, ForeignType("optional", b""), given=(unknown,))
    back = check_round_trip(graph)
    assert back.nodes[0].op == op
    assert back.inputs[0].type == foreign
    assert back.nodes[0].types == (unknown,)


def test_outputs_roles_properties_and_source() -> None:
    graph = small(Relu(), TensorType(F32, (N,)))
    (y,) = graph.nodes[0].results
    outputs = (Output('lo"gits', y), Output("x_attributions", y, Role.ATTRIBUTION, "x0"))
    graph = Graph(
        "a name", graph.inputs, graph.nodes, outputs, frozenset({"target", "canonical"}), Source(17, "t")
    )
    text = print_graph(graph)
    assert text.startswith('graph @"a name" {canonical, target}\nsource {opset=17, producer="t"}\n')
    assert text.endswith(
        'output "lo\\"gits" {role=model} = %0\noutput "x_attributions" {role=attribution, of="x0"} = %0\n'
    )
    check_round_trip(graph)


@given(st.lists(TEXT | st.text('a,"/ \\\n', max_size=8), max_size=4))
@example(["a, b", "", " ", "//", "conv 1", 'say "x"', "naïve", "\ud800"])
def test_origins_may_be_any_text(origin: list[str]) -> None:
    graph = small(Relu(), TensorType(F32, (N,)), origin=tuple(origin))
    assert check_round_trip(graph).nodes[0].origin == tuple(origin)


def test_plain_origins_read_well() -> None:
    graph = small(Relu(), TensorType(F32, (N,)), origin=("fc1/MatMul", "fc 1", "a,b"))
    assert print_graph(graph).splitlines()[2] == '%0 = relu(%x0) : f32[N]   // fc1/MatMul, fc 1, "a,b"'


def test_names_are_unique_and_stable() -> None:
    hints = ["x", "x", "a/b c", "12", "", None, "x_1", "é", "x0", "v.1"]
    with Builder() as b:
        (x,) = b.emit(Input("x0"), types=(TensorType(F32, (N,)),), names=("x0",))
        values = [b.emit(Full(float(i), F32, ()), names=(h,))[0] for i, h in enumerate(hints)]
        graph = b.build("g", [Output("y", emit1(Add(), x, values[0]))])
    names = [line.split(" =")[0] for line in print_graph(graph).splitlines()[1:-1]]
    expected = ["%x0", "%x", "%x_1", "%a_b_c", "%_12", "%0", "%1", "%x_1_1", "%_", "%x0_1", "%v.1", "%2"]
    assert names == expected
    back = check_round_trip(graph)
    assert [v.name for v in back.values()] == [None if n[1:].isdigit() else n[1:] for n in expected]


def test_the_name_of_an_input_is_kept_whatever_it_is() -> None:
    with Builder() as b:
        kind = TensorType(F32, (N,))
        values = [b.emit(Input(n), types=(kind,), names=(n,))[0] for n in ("in:0", "in/0", "0")]
        back = check_round_trip(b.build("g", [Output("y", v) for v in values]))
    assert [v.name for v in back.inputs] == ["in:0", "in/0", "0"]
    assert back.input("in/0") is back.inputs[1]


def test_dimensions_are_printed_in_normal_form() -> None:
    m = symbol("M")
    graph = small(Full(0.0, F32, (N * (m + 1), (N + 1) // 2)))
    assert print_graph(graph).splitlines()[1].endswith(": f32[M*N + N, floor(N/2 + 1/2)]")
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)


def test_statements_that_a_builder_would_merge_stay_apart() -> None:
    text = (
        "graph @g\n%0 = full{value=0.0, dtype=!f32, shape=[]} : f32[]\n"
        '%1 = full{value=-0.0, dtype=!f32, shape=[]} : f32[]\noutput "y" {role=model} = %0\n'
    )
    assert print_graph(parse_graph(text)) == text


def test_elided_text_is_for_people_only() -> None:
    graph = small(Constant(Tensor(np.zeros(1000, np.float32))))
    text = print_graph(graph, elide=True)
    assert "constant{value=dense<f32[1000], elided>}" in text
    with pytest.raises(ParseError, match=r"2:.*elided when the text was printed; print all of it \(--full\)"):
        parse_graph(text)
    graph = small(opaque(bytes(1000)), given=(TensorType(F32, ()),))
    with pytest.raises(ParseError, match="bytes were elided"):
        parse_graph(print_graph(graph, elide=True))


def test_small_tensors_are_never_elided() -> None:
    graph = small(Constant(Tensor(np.arange(16))))
    assert print_graph(graph, elide=True) == print_graph(graph)


def test_free_layout_and_comments() -> None:
    graph = parse_graph(
        """// RUN: nothing
        graph @g { }
        // the input
        %x = input { name = "x" } : f32[ N , 2*N,Max(1, N - 3) ]
        %y = pad{before=[0,
            0, 1], after=[0, 0, 0],
            value=inf}( %x )
            : f32[N, 2*N, Max(1, N - 3) + 1] // one
        // no origin of anything
        output "y" = %y // nor this
        """
    )
    assert graph.nodes[0].op == Pad((0, 0, 1), (0, 0, 0), float("inf"))
    assert graph.nodes[0].origin == ("one",)
    assert graph.outputs[0].role is Role.MODEL
    check_round_trip(graph)


HEAD = 'graph @g\n%x = input{name="x"} : f32[N, 4]\n'


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "1:1", "expected 'graph @name'"),
        ("graph g", "1:7", "expected '@'"),
        ("graph @g\nhello", "2:1", "expected a statement"),
        (HEAD + "%y = rellu(%x) : f32[N, 4]", "3:6", r"unknown op 'rellu'. did you mean relu"),
        (HEAD + "%y = relu(%xx) : f32[N, 4]", "3:11", "%xx is not defined above. did you mean x"),
        (HEAD + "%y = relu(%y) : f32[N, 4]", "3:11", "%y is not defined above"),
        (HEAD + "%x = relu(%x) : f32[N, 4]", "3:1", "%x is defined twice"),
        (HEAD + "%y, %y = relu(%x) : f32[N, 4]", "3:5", "%y is defined twice"),
        (HEAD + "%y, %z = relu(%x) : f32[N, 4]", "3:10", r"2 result\(s\) with 1 type"),
        (
            HEAD + "%y = relu(%x) : f32[N, 5]",
            "3:6",
            r"relu\(f32\[N, 4\]\) gives f32\[N, 4\], not f32\[N, 5\]",
        ),
        (HEAD + "%y = relu(%x) : f64[N, 4]", "3:6", "gives f32"),
        (HEAD + "%y = relu(%x, %x) : f32[N, 4]", "3:6", "takes one tensor"),
        (HEAD + "%y = add(%x) : f32[N, 4]", "3:6", r"add\(f32\[N, 4\]\): takes two operands"),
        (HEAD + "%y = conv(%x) : f32[N, 4]", "3:10", "conv needs strides, pads, dilations"),
        (
            HEAD + "%y = elu{alhpa=1.0}(%x) : f32[N, 4]",
            "3:10",
            "unknown attribute of elu 'alhpa'. did you mean alpha",
        ),
        (HEAD + "%y = elu{alpha=1.0, alpha=2.0}(%x) : f32[N, 4]", "3:21", "given twice"),
        (HEAD + '%y = elu{alpha="1"}(%x) : f32[N, 4]', "3:16", "attribute alpha of elu is no float"),
        (HEAD + "%y = elu{alpha=true}(%x) : f32[N, 4]", "3:16", "is no float"),
        (HEAD + "%y = elu{alpha=N}(%x) : f32[N, 4]", "3:16", "is no float"),
        (HEAD + "%y = concat{axis=1.0}(%x) : f32[N, 4]", "3:18", "is no int"),
        (HEAD + "%y = transpose{perm=[0, N]}(%x) : f32[N, 4]", "3:21", "is no tuple"),
        (HEAD + "%y = dilate{axis=9, step=2}(%x) : f32[N, 4]", "3:6", "don't fit together"),
        (HEAD + "%y = cast{to=!f33}(%x) : f32[N, 4]", "3:15", "unknown element type 'f33'"),
        (HEAD + "%y = relu(%x) : g32[N, 4]", "3:17", "unknown element type 'g32'"),
        (HEAD + "%y = relu(%x) : f32[N, -4]", "3:24", "a dimension can't be negative"),
        (HEAD + "%y = relu(%x) : f32[N, N.real]", "3:24", "is no dimension"),
        (HEAD + "%y = relu(%x) : f32[N, __import__('os')]", "3:24", "expected a value|no dimension"),
        (HEAD + "%y = relu(%x) : f32[N 4]", "3:21", "is no dimension"),
        (HEAD + "%y = relu(%x) f32[N, 4]", "3:15", "expected ':', found 'f32"),
        (HEAD + "%y = relu(%x", "3:13", "expected ',' or '\\)', the line ends here"),
        (HEAD + '%y = relu(%x) : f32[N, 4] // "a', "3:30", "no string"),
        (
            HEAD + "%y = pullback{of=relu, wrt=[0], cotangents=1, inputs=1}(%x) : f32[N, 4]",
            "3:18",
            "is no Op",
        ),
        (HEAD + 'output "y" {role=modell} = %x', "3:18", "unknown role 'modell'. did you mean model"),
        (HEAD + 'output "y" {rule=model} = %x', "3:13", "an output has no 'rule'"),
        (HEAD + "output y = %x", "3:8", "the output's name as a string"),
        (HEAD + 'output "\\q" = %x', "3:8", "no string"),
    ],
)
def test_errors_tell_place_and_cause(text: str, where: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        parse_graph(text)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("literal", "message"),
    [
        ("dense<f32[999999999999], [1.0]>", "holds 999999999999 elements, 1 were given"),
        ('dense<f32[999999, 999999, 999999], base64"AAAAAA==">', "elements, 1 were given"),
        ("dense<f32[N], [1.0]>", "known and static"),
        ("dense<f32[*], [1.0]>", "known and static"),
        ("dense<f32[2], [1.0]>", "holds 2 elements, 1 were given"),
        ('dense<f32[2], base64"AAAA">', "no whole number of f32"),
        ('dense<f32[1], base64"A">', "no base64"),
        ('dense<f32[1], base64"AAA AA==">', "no base64"),
        ('dense<bool[1], base64"Ag==">', "stands for no bool"),
        ('dense<i4[1], base64"fw==">', "stands for no i4"),
        ('dense<str[1], base64"AAAA">', "is written as a list"),
        ("dense<str[1], [1]>", "expected a string"),
        ('dense<str[2], ["a"]>', "holds 2 elements, 1"),
        ("dense<i8[1], [128]>", "doesn't fit into i8"),
        ("dense<u4[1], [-1]>", "doesn't fit into u4"),
        ("dense<u64[1], [-1]>", "no list of u64|doesn't fit into u64"),
        ("dense<i64[1], [9223372036854775808]>", "no list of i64"),
        ("dense<i64[1], [1.5]>", "no list of i64"),
        ("dense<f32[1], [one]>", "no list of f32"),
        ("dense<bool[1], [1]>", "no list of bool"),
        ("dense<c64[1], [1.0]>", "is written as base64"),
        ("dense<f32[1], [1.0>", "expected ']', found '>"),
        ("dense<f32[1] [1.0]>", "expected ','"),
        ("dense<seq<00>, [1.0]>", "a dense value is a tensor"),
        ("dense<f32[1], 1.0>", "expected a list in brackets or base64"),
        ("1.0", "is no Tensor"),
        ("[" * 100_000, "nested deeper than 32"),
        ("relu{" * 10, "unknown attribute of relu"),
    ],
)
def test_hostile_values_are_refused(literal: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_graph(f'graph @g\n%x = constant{{value={literal}}} : f32[1]\noutput "y" = %x\n')


PROGRAM = print_graph(
    parse_graph(
        HEAD
        + """%r = reshape{shape=[N, 4, 1]}(%x) : f32[N, 4, 1]
        %y, %i = max_pool{kernel=[1], strides=[1], pads=[[0, 1]], dilations=[1]}(%r)
            : f32[N, 4, 2], i64[N, 4, 2]
        %c = constant{value=dense<f32[2], [1.0, -inf]>} : f32[2]   // a, "b c"
        %d = full{value=1.5, dtype=!f32, shape=[floor(N/2), Max(1, N)]} : f32[floor(N/2), Max(1, N)]
        %p = pullback{of=relu{}, wrt=[0], cotangents=1, inputs=1}(%x, %x, %x) : f32[N, 4]
        output "y" {role=attribution, of="x"} = %y
        """
    )
)
JUNK = [
    "",
    "0",
    "9" * 50,
    "-",
    "N",
    "[",
    "]",
    "{",
    "(",
    ")",
    ",",
    '"',
    "%",
    "//",
    "\n",
    "none",
    "f32[*]",
    "\0",
    "é",
]


@settings(max_examples=300)
@given(
    st.integers(0, len(PROGRAM)),
    st.integers(0, 12),
    st.sampled_from(JUNK),
)
def test_damaged_text_gives_a_graph_or_a_parse_error(start: int, cut: int, inserted: str) -> None:
    text = PROGRAM[:start] + inserted + PROGRAM[start + cut :]
    try:
        graph = parse_graph(text)
    except ParseError as error:
        assert error.where is not None
    else:
        assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)


def test_attributes_that_no_text_stands_for_are_refused() -> None:
    with pytest.raises(IRError, match="an attribute can't be a list"):
        print_op(Reshape([1, 2]))  # type: ignore[arg-type]
