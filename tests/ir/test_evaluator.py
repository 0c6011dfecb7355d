"""The numpy evaluator: values, symbols, memory, and messages for what doesn't fit."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import graphs, input_arrays

from irshap.errors import IRError, UserError
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Output, Value
from irshap.ir.dims import N, R, symbol
from irshap.ir.evaluator import bind_symbols, evaluate, evaluate_values
from irshap.ir.types import Array, DType, Tensor, TensorType
from irshap.ops.elementwise import Relu
from irshap.ops.program import Dims, Full, Input, Opaque
from irshap.text import parse_graph, print_graph

GRAPH = parse_graph(
    """graph @g
    %x = input{name="x"} : f32[N, 2]
    %r = input{name="r"} : f32[R, 2]
    %both = input{name="both"} : f32[N*R]
    %y = relu(%x) : f32[N, 2]
    %m = reduce_mean{axes=[0], keepdims=true}(%r) : f32[1, 2]
    %z = mul(%y, %m) : f32[N, 2]
    %d = dims{values=[N, 2*R + 1]} : i64[2]
    output "z" {role=model} = %z
    output "d" {role=model} = %d
    output "x" {role=model} = %x
    """
)
X, REFERENCES, BOTH = np.float32([[-1, 2]]), np.float32([[1, 1], [3, 5]]), np.zeros(2, np.float32)
INPUTS: dict[str, Array] = {"x": X, "r": REFERENCES, "both": BOTH}


def test_values() -> None:
    found = evaluate(GRAPH, INPUTS)
    assert list(found) == ["z", "d", "x"]
    np.testing.assert_array_equal(found["z"], np.float32([[0, 6]]))
    np.testing.assert_array_equal(found["d"], [1, 5])
    assert found["x"] is X


def test_symbols_are_bound_by_shapes() -> None:
    assert bind_symbols(GRAPH, INPUTS) == {N: 1, R: 2}


@settings(max_examples=60)
@given(graphs())
def test_every_result_has_its_declared_type_and_text_changes_nothing(graph: Graph) -> None:
    """The evaluator compares each array with its type, so running is the check."""
    inputs = input_arrays(graph)
    before, after = evaluate(graph, inputs), evaluate(parse_graph(print_graph(graph)), inputs)
    assert {k: Tensor(v) for k, v in before.items()} == {k: Tensor(v) for k, v in after.items()}


def test_keep_collects_every_value() -> None:
    kept: dict[Value, Array] = {}
    evaluate(GRAPH, INPUTS, keep=kept)
    assert set(kept) == set(GRAPH.values())


def test_arrays_are_freed_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Any]] = []
    alive: list[int] = []

    class Counted(np.ndarray[Any, Any]):
        pass

    def tracked(self: Relu, *arrays: Array) -> tuple[Array, ...]:
        gc.collect()
        alive.append(sum(ref() is not None for ref in made))
        array = np.maximum(arrays[0], 0).view(Counted)
        made.append(weakref.ref(array))
        return (array,)

    monkeypatch.setattr(Relu, "evaluate", tracked)
    with Builder() as b:
        (v,) = b.emit(Input("x"), types=(TensorType(DType.F32, (N,)),), names=("x",))
        for _ in range(6):
            v = -b.emit(Relu(), v)[0]
        graph = b.build("g", [Output("y", v)])
    evaluate(graph, {"x": np.ones(3, np.float32)})
    assert alive == [0] * 6


def test_only_what_is_wanted_runs() -> None:
    x, r = GRAPH.input("x"), GRAPH.input("r")
    mean = GRAPH.nodes[1].results[0]
    kept: dict[Value, Array] = {}
    found = evaluate_values(GRAPH.nodes, {r: REFERENCES}, [mean, r], {R: 2}, keep=kept)
    np.testing.assert_array_equal(found[mean], [[2, 3]])
    assert found[r] is REFERENCES
    assert set(kept) == {r, mean}
    with pytest.raises(IRError, match="relu: its operand %x"):
        evaluate_values(GRAPH.nodes, {r: REFERENCES}, [GRAPH.nodes[2].results[0]], {R: 2})
    with pytest.raises(IRError, match="depends on no node"):
        evaluate_values(GRAPH.nodes, {}, [x])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, r"input 'x': it is missing. given: 'r', 'both'"),
        (
            {"x": X.astype(np.float64)},
            r"input 'x': has element type f64, the graph takes f32\[N, 2\].*astype\('float32'\)",
        ),
        ({"x": X[0]}, r"input 'x': has shape \(2,\), the graph takes f32\[N, 2\]"),
        ({"x": np.float32([[1, 2, 3]])}, "input 'x': axis 1 has 3 elements, not 2"),
        ({"both": np.zeros(3, np.float32)}, r"input 'both': axis 0 has 3 elements, not 2 = N\*R"),
        ({"x": X[:0]}, r"input 'x': axis 0 \(N\) is empty"),
        ({"x": np.zeros((1, 2), "datetime64[s]")}, r"datetime64\[s\] are not supported"),
    ],
)
def test_inputs_that_do_not_fit(change: dict[str, Array | None], message: str) -> None:
    inputs = {k: v for k, v in {**INPUTS, **change}.items() if v is not None}
    with pytest.raises(UserError, match=message):
        evaluate(GRAPH, inputs)


def test_a_symbol_has_one_value() -> None:
    with Builder() as b:
        for name in "ab":
            b.emit(Input(name), types=(TensorType(DType.F32, (N,)),), names=(name,))
        graph = b.build("g", [])
    with pytest.raises(UserError, match="input 'b': axis 0 has 3 elements, not 2 = N, as input 'a' has it"):
        evaluate(graph, {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)})


def test_a_symbol_that_no_axis_gives() -> None:
    with Builder() as b:
        b.emit(Input("a"), types=(TensorType(DType.F32, (2 * N,)),), names=("a",))
        graph = b.build("g", [])
    with pytest.raises(UserError, match=r"input 'a': can't tell the symbols of axis 0 \(2\*N\)"):
        evaluate(graph, {"a": np.zeros(2, np.float32)})


def test_inputs_of_unknown_rank_are_taken_as_they_are() -> None:
    with Builder() as b:
        (a,) = b.emit(Input("a"), types=(TensorType(DType.F32, None),), names=("a",))
        graph = b.build("g", [Output("y", a)])
    assert evaluate(graph, {"a": X, "more": X})["y"] is X


def test_a_node_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'graph @g\n%x = input{name="x"} : f32[N]\n%y = relu(%x) : f32[N]   // act/1\noutput "y" = %y'
    graph, inputs = parse_graph(text), {"x": np.zeros(2, np.float32)}
    for result, message in [
        (lambda x: (x.reshape(7),), "act/1 .relu.: can't be evaluated: ValueError: cannot reshape"),
        (lambda x: (x, x), "act/1 .relu.: gives 2 results, not 1"),
        (lambda x: (x[:1],), r"act/1 .relu.: gives f32\[1\], not f32\[N\]"),
        (lambda x: (x.astype(np.float64),), r"gives f64\[2\], not f32\[N\]"),
    ]:
        monkeypatch.setattr(Relu, "evaluate", lambda self, x, result=result: result(x))
        with pytest.raises(IRError, match=message):
            evaluate(graph, inputs)


def test_a_pullback_says_why_it_has_no_value() -> None:
    graph = parse_graph(
        'graph @g\n%x = input{name="x"} : f32[N]\n'
        "%p = pullback{of=relu{}, wrt=[0], cotangents=1, inputs=1}(%x, %x, %x) : f32[N]   // act\n"
        'output "p" = %p'
    )
    with pytest.raises(IRError, match=r"act .pullback.: relu: a pullback has no value before a method"):
        evaluate(graph, {"x": np.zeros(2, np.float32)})


def test_opaque_nodes_bind_the_symbols_of_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of a NonZero's result is known only when it ran; what follows can use it."""
    k = symbol("K")
    op = Opaque(kind="X", domain="", opsets=(), proto=b"", present=(True,), outputs=(True,))
    monkeypatch.setattr(Opaque, "evaluate", lambda self, x: (x[x > 0],))
    with Builder() as b:
        (x,) = b.emit(Input("x"), types=(TensorType(DType.F32, (N,)),), names=("x",))
        (y,) = b.emit(op, x, types=(TensorType(DType.F32, (k,)),))
        (d,) = b.emit(Dims((k,)))
        (f,) = b.emit(Full(1.0, DType.F32, (k,)))
        graph = b.build("g", [Output("y", y + f), Output("d", d)])
    found = evaluate(graph, {"x": np.float32([1, -1, 3])})
    np.testing.assert_array_equal(found["y"], [2, 4])
    np.testing.assert_array_equal(found["d"], [2])
