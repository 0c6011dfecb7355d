"""The rewrite driver: fixpoint, budget, reasons, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import graphs, input_arrays

from irshap.checks.verifier import verify
from irshap.errors import IRError
from irshap.ir.builder import Builder, current, emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import N
from irshap.ir.evaluator import evaluate
from irshap.ir.rewrite import Miss, NoMatch, Replacement, Rule, apply, live_nodes, map_nodes, rewrite
from irshap.ops.arithmetic import Abs, Add, Neg, Sub
from irshap.ops.elementwise import Exp, Relu
from irshap.ops.families import Elementwise
from irshap.ops.program import Constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.shape import Split
from irshap.text import parse_graph, print_graph


@rewrite(Neg)
def neg_of_neg(node: Node, x: Value) -> Replacement:
    """-(-x) = x"""
    return x.node.operands[0] if isinstance(x.node.op, Neg) else NoMatch(f"{x.node.op.mnemonic} is no neg")


@rewrite(Sub)
def sub_as_add(node: Node, a: Value, b: Value) -> Replacement:
    """a - b = a + (-b)"""
    return a + -b


@rewrite(Relu, Abs)
def sign_twice(node: Node, x: Value) -> Replacement:
    """relu(abs(x)) = abs(abs(x)) = abs(x), relu(relu(x)) = abs(relu(x)) = relu(x)"""
    return x if isinstance(x.node.op, Relu | Abs) else NoMatch("the operand may be negative")


RULES = (neg_of_neg, sub_as_add, sign_twice)


def graph_of(*statements: str, outputs: str = "y") -> Graph:
    lines = ["graph @g", '%x = input{name="x"} : f32[N]', '%w = input{name="w"} : f32[N]', *statements]
    return parse_graph("\n".join([*lines, *(f'output "{o}" = %{o}' for o in outputs.split())]))


def body(graph: Graph) -> list[str]:
    return print_graph(graph).splitlines()[3:]


def test_to_the_fixpoint() -> None:
    graph = graph_of(
        "%a = neg(%w) : f32[N]   // first",
        "%b = sub(%x, %a) : f32[N]   // second",
        "%c = relu(%b) : f32[N]",
        "%d = abs(%c) : f32[N]",
        "%y = relu(%d) : f32[N]",
    )
    found, fired = apply(graph, RULES)
    assert body(found) == [
        "%0 = add(%x, %w) : f32[N]   // second",
        "%c = relu(%0) : f32[N]",
        'output "y" {role=model} = %c',
    ]
    assert fired == {"sub_as_add": 1, "neg_of_neg": 1, "sign_twice": 2}
    verify(found)


def test_a_graph_that_no_rule_matches_is_returned_as_it_is() -> None:
    graph = graph_of("%y = exp(%x) : f32[N]", "%dead = neg(%y) : f32[N]")
    found, fired = apply(graph, RULES)
    assert found is graph
    assert not fired


def test_nodes_in_front_of_a_change_are_shared() -> None:
    graph = graph_of("%a = exp(%x) : f32[N]", "%b = neg(%a) : f32[N]", "%y = neg(%b) : f32[N]")
    found, fired = apply(graph, RULES)
    assert fired and found.nodes == graph.nodes[:1] and found.outputs[0].value is graph.nodes[0].results[0]
    assert map_nodes(graph) is graph
    assert map_nodes(graph, lambda node, mapping: None) is graph


def test_what_a_rule_emits_is_rewritten_too_and_inputs_stay() -> None:
    """0 - -(-w): the negation that sub_as_add makes meets the one below it in the next sweep."""
    graph = graph_of("%a = neg(%w) : f32[N]", "%b = neg(%a) : f32[N]", "%y = sub(%x, %a) : f32[N]")
    found, fired = apply(graph, RULES)
    assert [n.op for n in found.nodes] == [Add()]
    assert [v.name for v in found.inputs] == ["x", "w"]
    assert fired["neg_of_neg"] == 1


@settings(max_examples=40)
@given(graphs())
def test_rules_that_hold_keep_every_output(graph: Graph) -> None:
    found, _ = apply(graph, RULES)
    verify(found)
    assert apply(found, RULES)[0] is found
    inputs = input_arrays(graph)
    before, after = evaluate(graph, inputs), evaluate(found, inputs)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


def test_reasons_for_not_matching_are_recorded() -> None:
    misses: list[Miss] = []
    apply(graph_of("%a = exp(%x) : f32[N]", "%y = neg(%a) : f32[N]"), RULES, misses=misses)
    assert [(m.rule, m.node.label, m.reason) for m in misses] == [("neg_of_neg", "neg", "exp is no neg")]


@rewrite(Add)
def swap(node: Node, a: Value, b: Value) -> Replacement:
    """a + b = b + a"""
    return b + a


@rewrite(Exp)
def there(node: Node, x: Value) -> Replacement:
    """exp(x) = relu(exp(x))"""
    return emit1(Relu(), emit1(Exp(), x))


@rewrite(Relu)
def back(node: Node, x: Value) -> Replacement:
    """relu(exp(x)) = exp(x)"""
    return x if isinstance(x.node.op, Exp) else NoMatch("no exp")


def test_rules_that_cycle_are_named() -> None:
    graph = graph_of("%a = add(%x, %w) : f32[N]   // sum/1", "%y = exp(%a) : f32[N]")
    with pytest.raises(IRError, match=r"sum/1 \(add\): rewriting doesn't come to rest: swap fired again"):
        apply(graph, [*RULES, swap])
    with pytest.raises(IRError, match="there fired again"):
        apply(graph, [there, back], budget=50)


def test_the_budget_counts_firings() -> None:
    graph = graph_of(
        *(f"%v{i} = sub(%{f'v{i - 1}' if i else 'x'}, %w) : f32[N]" for i in range(9)), outputs="v8"
    )
    assert apply(graph, RULES, budget=9)[1]["sub_as_add"] == 9
    with pytest.raises(IRError, match="sub_as_add fired"):
        apply(graph, RULES, budget=8)


def test_a_rule_that_returns_its_own_node_has_not_fired() -> None:
    @rewrite(Elementwise)
    def same(node: Node, x: Value) -> Replacement:
        """f(x) = f(x)"""
        return current().emit(node.op, x)

    graph = graph_of("%y = exp(%x) : f32[N]")
    assert apply(graph, [same])[0] is graph


def test_a_rule_may_not_change_a_type() -> None:
    @rewrite(Exp)
    def wrong(node: Node, x: Value) -> Replacement:
        """exp(x) = sum of x"""
        return emit1(ReduceSum((0,), True), x)

    with pytest.raises(IRError, match=r"act .exp.: rule wrong made f32\[1\] of f32\[N\]. exp.x. = sum of x"):
        apply(graph_of("%y = exp(%x) : f32[N]   // act"), [wrong])


def test_faults_inside_a_rule_name_it() -> None:
    @rewrite(Exp)
    def broken(node: Node, x: Value) -> Replacement:
        """exp(x) = x x"""
        return emit1(Add(), x)

    with pytest.raises(IRError, match=r"^rule broken at act .exp.: act: add\(f32\[N\]\): takes two operands"):
        apply(graph_of("%y = exp(%x) : f32[N]   // act"), [broken])


def test_several_results() -> None:
    @rewrite(Split)
    def whole(node: Node, x: Value) -> Replacement:
        """split into one part = the operand"""
        return (x,) if len(node.results) == 1 else NoMatch("has several parts")

    text = """graph @g
        %x = input{name="x"} : f32[3]
        %a, %b = split{axis=0, sizes=[1, 2]}(%x) : f32[1], f32[2]
        %y = split{axis=0, sizes=[2]}(%b) : f32[2]
        output "y" = %y"""
    found, _ = apply(parse_graph(text), [whole])
    assert [n.op.mnemonic for n in found.nodes] == ["split"]
    assert found.outputs[0].value is found.nodes[0].results[1]


def test_a_rule_is_made_of_an_op_and_an_equation() -> None:
    assert isinstance(neg_of_neg, Rule)
    assert (neg_of_neg.name, neg_of_neg.ops, neg_of_neg.equation) == ("neg_of_neg", (Neg,), "-(-x) = x")
    with pytest.raises(TypeError, match="rule f lacks a docstring: its equation"):

        @rewrite(Neg)
        def f(node: Node, x: Value) -> Replacement:
            return x

    with pytest.raises(TypeError, match="names the op classes"):
        rewrite()
    with pytest.raises(TypeError, match="names the op classes"):
        rewrite(lambda node: node)  # type: ignore[arg-type]


def test_live_nodes() -> None:
    graph = graph_of("%a = neg(%x) : f32[N]", "%b = exp(%x) : f32[N]", "%y = neg(%a) : f32[N]")
    assert [n.op.mnemonic for n in live_nodes(graph).nodes] == ["neg", "neg"]
    exp = graph.nodes[1].results[0]
    assert len(live_nodes(graph, [exp]).nodes) == 3
    assert live_nodes(graph).inputs == graph.inputs
    assert not any(isinstance(n.op, Constant) for n in live_nodes(graph).nodes)


def test_nodes_are_mapped_in_order_and_copied_otherwise() -> None:
    graph = graph_of("%a = exp(%x) : f32[N]   // first", "%y = neg(%a) : f32[N]   // second")
    seen = []

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
        seen.append((node.op.mnemonic, len(mapping)))
        return (emit1(Abs(), mapping[node.operands[0]]),) if isinstance(node.op, Neg) else None

    found = map_nodes(graph, visit)
    assert seen == [("input", 0), ("input", 1), ("exp", 2), ("neg", 3)]
    assert body(found)[:2] == ["%a = exp(%x) : f32[N]   // first", "%0 = abs(%a) : f32[N]   // second"]
    assert body(map_nodes(graph)) == body(graph)
    assert [v.shape for v in map_nodes(graph, binding={N: 7}).values()] == [(7,)] * 4


def test_what_is_mapped_stays_and_what_nobody_reads_is_left_out() -> None:
    graph = graph_of("%a = exp(%x) : f32[N]", "%b = exp(%w) : f32[N]", "%y = neg(%b) : f32[N]")
    x, w = graph.inputs
    a, b, y = (n.results[0] for n in graph.nodes)

    def visit(node: Node, mapping: Mapping[Value, Value]) -> Sequence[Value | None] | None:
        return [None] if node.results[0] is a else None

    with Builder() as builder:
        mapping = builder.extend(graph.statements, {w: x, b: w}, visit)
    assert mapping[b] is w
    assert mapping[w] is x
    assert mapping[y].node.operands == (w,)
    assert a not in mapping
    assert [n.op.mnemonic for n in builder.nodes] == ["neg"]
