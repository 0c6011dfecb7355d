"""Loops: their bodies in text, under the verifier and under passes, and as ONNX subgraphs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from irshap.checks.instruments import VerifyNumeric
from irshap.checks.verifier import verify
from irshap.errors import IRError, ParseError
from irshap.ir.batch import batch_axes
from irshap.ir.core import Graph
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.lowering import lift, lower
from irshap.ops.scan import Scan
from irshap.pipeline.manager import PassManager
from irshap.text import parse_graph, print_graph

TEXT = """graph @g
%x = input{name="x"} : f32[N, 4]
%start = full{value=0.0, dtype=!f32, shape=[N, 4]} : f32[N, 4]
%rows = constant{value=dense<f32[3, 2], [1.0, -2.0, 3.0, 0.5, 4.0, -1.0]>} : f32[3, 2]
%y = scan{carried=1, scanned=1, body={
  graph @outer
  %sum = input{name="sum"} : f32[N, 4]
  %row = input{name="row"} : f32[2]
  %x = input{name="x"} : f32[N, 4]
  %y = scan{carried=1, scanned=1, body={
    graph @inner
    %sum = input{name="sum"} : f32[N, 4]
    %factor = input{name="factor"} : f32[]
    %x = input{name="x"} : f32[N, 4]
    %two = constant{value=dense<f32[], [2.0]>} : f32[]   // scale
    %a = mul(%x, %two) : f32[N, 4]   // scale
    %b = reshape{shape=[2*N, 2]}(%a) : f32[2*N, 2]
    %c = mul(%b, %factor) : f32[2*N, 2]
    %d = reshape{shape=[N, 4]}(%c) : f32[N, 4]
    %unused = neg(%d) : f32[N, 4]
    %e = add(%sum, %d) : f32[N, 4]
    output "next" {role=model} = %e
  }}(%sum, %row, %x) : f32[N, 4]   // inner loop
  output "next" {role=model} = %y
}}(%start, %rows, %x) : f32[N, 4]   // outer loop
output "y" {role=model} = %y
"""
X = np.arange(8, dtype=np.float32).reshape(2, 4) - 3
Y = X * 2 * 5.5


def runs(graph: Graph, x: Array) -> Array:
    """What ONNX Runtime makes of the lowered graph."""
    model = lower(graph)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_loop_in_a_loop() -> None:
    graph = parse_graph(TEXT)
    assert print_graph(graph) == TEXT
    verify(graph)
    np.testing.assert_array_equal(evaluate(graph, {"x": X})["y"], Y)
    np.testing.assert_array_equal(runs(graph, X), Y)
    assert batch_axes(graph).axis(graph.outputs[0].value) == 0


def test_values_of_a_body_are_its_own() -> None:
    with pytest.raises(ParseError, match="%rows is not defined above"):
        parse_graph(TEXT.replace("(%sum, %row, %x) : f32[N, 4]   // inner", "(%sum, %rows, %x) : f32[N, 4]"))
    with pytest.raises(ParseError, match="scan"):
        parse_graph(TEXT.replace('%row = input{name="row"} : f32[2]', '%row = input{name="row"} : f32[3]'))


def test_deeply_nested_text_is_refused() -> None:
    text = "graph @g\n" + "%x = scan{body={graph @b\n" * 1000
    with pytest.raises(ParseError, match="nested deeper"):
        parse_graph(text)


@pytest.mark.parametrize("closing", ["", "}", "output"])
def test_a_body_that_does_not_end_is_refused(closing: str) -> None:
    with pytest.raises(ParseError):
        parse_graph("graph @g\n%y = scan{carried=0, scanned=1, body={graph @b\n" + closing)


def test_equal_bodies_are_equal_ops() -> None:
    first, second = (parse_graph(TEXT).nodes[-1].op for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    other = parse_graph(TEXT.replace("[2.0]", "[2.5]")).nodes[-1].op
    assert first != other


def test_the_verifier_goes_into_bodies() -> None:
    graph = parse_graph(TEXT)
    scan = graph.nodes[-1].op
    assert isinstance(scan, Scan)
    broken = replace(scan, body=replace(scan.body, nodes=()))
    node = replace(graph.nodes[-1], op=broken)
    outputs = (replace(graph.outputs[0], value=node.results[0]),)
    with pytest.raises(IRError, match="not defined"):
        verify(replace(graph, nodes=(*graph.nodes[:-1], node), outputs=outputs))


def test_passes_go_into_bodies() -> None:
    graph = PassManager.from_text("canonicalize,dce", [VerifyNumeric()]).run(parse_graph(TEXT))
    text = print_graph(graph)
    assert "neg" not in text
    assert text.count("= scan{") == 2
    assert "// inner loop" in text


def test_sizes_are_computed_once_outside() -> None:
    """2 N is known before the loop; only what the body computes itself is computed there."""
    model = lower(
        parse_graph(
            TEXT.replace("shape=[2*N, 2]", "shape=[2*N, 2, 1]").replace("f32[2*N, 2]", "f32[2*N, 2, 1]")
        )
    )
    (node,) = (n for n in model.graph.node if n.op_type == "Scan")
    (body,) = (a.g for a in node.attribute if a.name == "body")
    assert "Shape" in [n.op_type for n in model.graph.node]
    assert "Shape" not in [n.op_type for n in body.node]


def test_a_lowered_loop_lifts_step_by_step() -> None:
    graph = lift(lower(parse_graph(TEXT)))
    assert all(n.op.modeled and n.op.mnemonic != "scan" for n in graph.nodes)
    np.testing.assert_allclose(runs(graph, X), Y, rtol=1e-6)
    assert batch_axes(graph).axis(graph.outputs[0].value) == 0
