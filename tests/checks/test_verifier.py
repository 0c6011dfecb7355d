"""The verifier finds each kind of broken graph and shows the statement."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from strategies import graphs

from irshap.checks.verifier import verify
from irshap.errors import IRError
from irshap.ir.core import Graph, Node, Output, Value
from irshap.ir.dims import N
from irshap.ir.types import DType, TensorType
from irshap.ops.arithmetic import Add
from irshap.ops.elementwise import Relu
from irshap.ops.index import ArgMax
from irshap.ops.program import Input
from irshap.ops.shape import Concat
from irshap.pipeline.base import PROPERTIES, graph_property
from irshap.text import parse_graph

GRAPH = parse_graph(
    """graph @g
    %x = input{name="x"} : f32[N, 4]
    %y = relu(%x) : f32[N, 4]   // act
    %z = add(%y, %x) : f32[N, 4]
    output "z" {role=attribution, of="x"} = %z
    """
)
X, Y, Z = GRAPH.values()
KIND = TensorType(DType.F32, (N, 4))


def fault(graph: Graph) -> str:
    with pytest.raises(IRError) as caught:
        verify(graph)
    return str(caught.value)


@settings(max_examples=50)
@given(graphs(runnable=False))
def test_graphs_that_the_builder_makes_are_right(graph: Graph) -> None:
    verify(graph)


def test_a_use_before_the_definition() -> None:
    message = fault(replace(GRAPH, nodes=GRAPH.nodes[::-1]))
    assert message == "add: operand 0 is not defined above, in: %z = add(%y, %x) : f32[N, 4]"


def test_a_value_of_another_graph() -> None:
    node = Node(Relu(), (replace(X),), (KIND,), ("act",))
    message = fault(replace(GRAPH, nodes=(node,), outputs=()))
    assert message == "act (relu): operand 0 is not defined above, in: %0 = relu(%?x) : f32[N, 4]   // act"


def test_a_node_that_stands_twice() -> None:
    assert "stands in the graph twice" in fault(replace(GRAPH, nodes=(*GRAPH.nodes, GRAPH.nodes[0])))


@pytest.mark.parametrize(
    ("op", "operands", "types", "message"),
    [
        (Relu(), (X,), (TensorType(DType.F32, (N, 5)),), r"inferred as f32\[N, 4\], in: %0 = relu"),
        (Relu(), (X,), (KIND, KIND), "inferred as"),
        (Relu(), (X,), (), "a node has a result"),
        (ArgMax((1,), True), (X,), (TensorType(DType.F32, (N, 1)),), r"inferred as i64\[N, 1\]"),
        (Add(), (X,), (KIND,), "takes two operands"),
        (Concat(2), (X, X), (KIND,), "axis 2 is not one of 2"),
        (Concat(0), (), (KIND,), "needs an operand"),
        (Input("y"), (), (KIND,), "an input stands among the nodes"),
    ],
)
def test_types_are_inferred_again(
    op: Relu, operands: tuple[Value, ...], types: tuple[TensorType, ...], message: str
) -> None:
    with pytest.raises(IRError, match=message):
        verify(replace(GRAPH, nodes=(Node(op, operands, types),), outputs=()))


def test_an_op_that_stumbles_over_its_operands_is_a_misfit() -> None:
    """Rules unpack and index their operands: what they raise isn't a crash of the verifier."""
    message = fault(replace(GRAPH, nodes=(Node(ArgMax((1,), True), (X, X), (KIND,)),), outputs=()))
    assert "don't fit together" in message or "takes" in message


def test_dimensions_are_not_negative() -> None:
    node = Node(Input("n"), (), (TensorType(DType.F32, (-1,)),), names=("n",))
    assert "f32[-1] has a negative dimension" in fault(replace(GRAPH, inputs=(X, *node.results)))


def test_inputs() -> None:
    twin = Node(Input("x"), (), (KIND,), names=("x",))
    assert "two inputs are called 'x'" in fault(replace(GRAPH, inputs=(X, *twin.results)))
    assert "is the one result of an input node" in fault(replace(GRAPH, inputs=(X, Y)))
    other = Node(Input("a"), (), (KIND,), names=("b",))
    assert "the value of input 'a' is called 'b'" in fault(replace(GRAPH, inputs=(X, *other.results)))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ((Output("z", replace(Z)),), "output 'z': its value is not defined in the graph"),
        ((Output("z", Z), Output("z", Y)), "output 'z': outputs need names"),
        ((Output("", Z),), "output '': outputs need names"),
    ],
)
def test_outputs(outputs: tuple[Output, ...], message: str) -> None:
    assert message in fault(replace(GRAPH, outputs=outputs))


def test_properties_are_known_and_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irshap.pipeline.base.PROPERTIES", PROPERTIES)
    monkeypatch.setitem(PROPERTIES, "short-for-the-test", lambda g: "too long" if len(g.nodes) > 1 else None)
    graph = GRAPH.with_properties("short-for-the-test")
    assert fault(graph) == "graph @g: the graph isn't short-for-the-test: too long"
    verify(replace(graph, nodes=graph.nodes[:1], outputs=()))
    assert "did you mean short-for-the-test" in fault(GRAPH.with_properties("short-for-a-test"))
    with pytest.raises(TypeError, match="two properties"):
        graph_property("short-for-the-test")(lambda g: None)
