"""Dependence, batch axes, liveness and the critical path."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from strategies import BINDING, graphs

from irshap.cost.liveness import critical_path, digraph, live_bytes, peak
from irshap.errors import IRError, ModelError
from irshap.ir.batch import batch_axes
from irshap.ir.core import Graph, Value
from irshap.ir.dims import N, R, substitute
from irshap.ir.walks import active, jumps
from irshap.text import parse_graph
from irshap.text.printer import value_names


def parsed(text: str) -> tuple[Graph, dict[str, Value]]:
    graph = parse_graph("graph @g\n" + text)
    return graph, {name: value for value, name in value_names(graph).items()}


def test_the_view_has_an_edge_for_each_use() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[N]
        %y = mul(%x, %x) : f32[N]
        %z = relu(%y) : f32[N]"""
    )
    view = digraph(graph)
    assert view.number_of_edges(v["x"].node, v["y"].node) == 2
    assert [d["operand"] for *_, d in view.edges(v["x"].node, data=True)] == [0, 1]
    assert list(nx.topological_sort(view)) == [v[n].node for n in "xyz"]


def test_active_values_lie_between_source_and_sink() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[N, 3]
        %w = input{name="w"} : f32[N, 3]
        %side = relu(%w) : f32[N, 3]
        %y = mul(%x, %side) : f32[N, 3]
        %dead = relu(%x) : f32[N, 3]
        %i = argmax{axes=[1], keepdims=true}(%y) : i64[N, 1]
        %held = hold(%y) : f32[N, 3]
        %z = add(%y, %held) : f32[N, 3]
        %after = relu(%z) : f32[N, 3]"""
    )
    assert active(graph, [v["x"]], [v["z"]]) == {v["x"], v["y"], v["z"]}
    assert active(graph, [v["x"]], [v["i"]]) == set()
    assert active(graph, [v["x"]], [v["held"]]) == set()
    assert active(graph, [v["x"]], [v["x"]]) == {v["x"]}
    assert active(graph, [v["x"], v["w"]], [v["z"]]) == {v[n] for n in ("x", "w", "side", "y", "z")}


def test_jumps_are_where_a_change_leaves_the_float_values() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[N, 3]
        %c = input{name="c"} : f32[N, 3]
        %less = less(%x, %c) : bool[N, 3]
        %fixed = less(%c, %c) : bool[N, 3]
        %y = where(%less, %x, %c) : f32[N, 3]
        %z = where(%fixed, %y, %c) : f32[N, 3]
        %i = argmax{axes=[1], keepdims=true}(%z) : i64[N, 1]
        %f = cast{to=!f32}(%i) : f32[N, 1]
        %unused = where(%less, %c, %c) : f32[N, 3]"""
    )
    assert jumps(graph, [v["x"]], [v["z"]]) == [(v["y"].node, 0)]
    assert jumps(graph, [v["x"]], [v["f"]]) == [(v["y"].node, 0), (v["f"].node, 0)]
    assert jumps(graph, [v["c"]], [v["z"]]) == [(v["y"].node, 0), (v["z"].node, 0)]
    assert jumps(graph, [v["x"]], [v["i"]]) == [(v["y"].node, 0)]
    assert jumps(graph, [v["x"]], [v["less"]]) == []


def test_the_batch_moves_through_ops() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[N, 3, 4]
        %w = constant{value=dense<f32[4], [1.0, 2.0, 3.0, 4.0]>} : f32[4]
        %t = transpose{perm=[1, 0, 2]}(%x) : f32[3, N, 4]
        %m = mul(%t, %w) : f32[3, N, 4]
        %s = reduce_sum{axes=[0], keepdims=false}(%m) : f32[N, 4]
        %r = reshape{shape=[4*N]}(%s) : f32[4*N]"""
    )
    axes = batch_axes(graph)
    assert {n: axes.axis(v[n]) for n in v} == {"x": 0, "w": None, "t": 1, "m": 1, "s": 0, "r": 0}


def test_mixed_rows_are_an_error_only_for_who_asks() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[N, 3]
        %y = relu(%x) : f32[N, 3]
        %bad = reduce_mean{axes=[0], keepdims=true}(%y) : f32[1, 3]   // norm/Mean
        %late = sub(%y, %bad) : f32[N, 3]"""
    )
    axes = batch_axes(graph)
    assert axes.axis(v["y"]) == 0
    assert axes.reason(v["y"]) is None
    assert axes.reason(v["late"]) == "norm/Mean (reduce_mean): reduces over the batch"
    for name in ("bad", "late"):
        with pytest.raises(ModelError, match=r"^norm/Mean \(reduce_mean\): .*reduces over the batch"):
            axes.axis(v[name])
    other, u = parsed('%x = input{name="x"} : f32[N, 3]')
    with pytest.raises(IRError, match="is no value of the graph"):
        axes.axis(u["x"])
    assert batch_axes(other).axis(u["x"]) == 0


def test_bytes_alive() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[N, 4]
        %w = constant{value=dense<f32[2], [1.0, 2.0]>} : f32[2]
        %a = relu(%x) : f32[N, 4]
        %view = reshape{shape=[2*N, 2]}(%a) : f32[2*N, 2]
        %b = mul(%view, %w) : f32[2*N, 2]
        %c = cast{to=!f64}(%b) : f64[2*N, 2]
        %unused = relu(%b) : f32[2*N, 2]
        output "b" = %b
        output "c" = %c"""
    )
    found = live_bytes(graph)
    size = 16 * N
    wanted = {
        "w": size,
        "a": 2 * size,
        "view": 2 * size,
        "b": 3 * size,
        "c": 4 * size,
        "unused": 5 * size,
    }
    assert dict(found.rows) == {v[n].node: s for n, s in wanted.items()}
    assert found.constants == 8
    assert found.unknown == ()
    assert peak(graph, {N: 10}) == (800, v["unused"].node)


def test_bytes_that_are_not_known() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[*]
        %s = input{name="s"} : sequence<00>
        %y = relu(%x) : f32[*]
        %z = input{name="z"} : f32[R]
        output "y" = %y"""
    )
    assert live_bytes(graph).unknown == (v["x"], v["s"], v["y"])
    with pytest.raises(IRError, match=r"4\*R bytes: a dimension symbol has no number"):
        peak(graph, {N: 2})
    assert peak(graph, {R: 2}) == (8, v["y"].node)
    assert peak(parse_graph("graph @empty"), {}) == (0, None)


@settings(max_examples=50)
@given(graphs())
def test_bytes_with_numbers_are_the_symbolic_ones(graph: Graph) -> None:
    rows, numbers = live_bytes(graph).rows, live_bytes(graph, BINDING).rows
    assert [(n, substitute(s, BINDING)) for n, s in rows] == list(numbers)
    if numbers:
        assert peak(graph, BINDING)[0] == max(s for _, s in numbers)


def test_the_critical_path() -> None:
    graph, v = parsed(
        """%x = input{name="x"} : f32[N]
        %c = full{value=1.0, dtype=!f32, shape=[N]} : f32[N]
        %a = relu(%x) : f32[N]
        %b = relu(%a) : f32[N]
        %d = exp(%x) : f32[N]
        %e = add(%b, %d) : f32[N]
        %f = mul(%c, %c) : f32[N]"""
    )
    assert critical_path(graph) == [v[n].node for n in "abe"]
    heavy = {v["d"].node: 5.0, v["c"].node: 3.0}
    assert critical_path(graph, lambda node: heavy.get(node, 1.0)) == [v[n].node for n in "de"]
    heavy[v["c"].node] = 9.0
    assert critical_path(graph, lambda node: heavy.get(node, 1.0)) == [v[n].node for n in "cf"]
    assert critical_path(parse_graph("graph @empty")) == []
