"""samples-last: convolutions by trained weights as products, pooling by halves, and what lies between."""

from __future__ import annotations

import numpy as np
import pytest

from irshap.checks.instruments import VerifyNumeric
from irshap.compiler.catalog import PassManager
from irshap.ir.core import Graph
from irshap.ir.evaluator import evaluate
from irshap.text import parse_graph

CONVOLUTIONS = {
    "strides, pads, dilations": (
        "conv{strides=[2, 3], pads=[[0, 1], [2, 0]], dilations=[2, 1]}(%x, %w, %b)",
        ("f32[N, 3, 8, 9]", "f32[4, 3, 3, 2]", "f32[4]"),
        "f32[N, 4, 3, 4]",
    ),
    "no patches": (
        "conv{strides=[1, 1], pads=[[0, 0], [0, 0]], dilations=[1, 1]}(%x, %w)",
        ("f64[N, 3, 2, 2]", "f64[4, 3, 1, 1]", "f64[4]"),
        "f64[N, 4, 2, 2]",
    ),
    "one result channel": (
        "conv{strides=[1, 2], pads=[[1, 1], [0, 1]], dilations=[1, 1]}(%x, %w, %b)",
        ("f32[N, 5, 4, 5]", "f32[1, 5, 3, 2]", "f32[1]"),
        "f32[N, 1, 4, 3]",
    ),
    "transposed": (
        "conv_transpose{strides=[2, 3], pads=[[0, 1], [1, 0]], dilations=[1, 1], group=1, out=[8, 10]}"
        "(%x, %w, %b)",
        ("f32[N, 2, 4, 4]", "f32[2, 3, 3, 2]", "f32[3]"),
        "f32[N, 3, 8, 10]",
    ),
    "transposed to one channel": (
        "conv_transpose{strides=[2], pads=[[1, 1]], dilations=[2], group=1, out=[9]}(%x, %w)",
        ("f32[N, 4, 4]", "f32[4, 1, 3]", "f32[1]"),
        "f32[N, 1, 9]",
    ),
    "by weights": (
        "conv_weights{strides=[2, 3], pads=[[0, 1], [2, 0]], dilations=[2, 1], group=1, kernel=[3, 2]}"
        "(%x, %w)",
        ("f32[N, 3, 8, 9]", "f32[N, 4, 3, 4]", "f32[1]"),
        "f32[4, 3, 3, 2]",
    ),
    "in parts": (
        "conv{strides=[1, 1], pads=[[1, 1], [1, 1]], dilations=[1, 1]}(%x, %w, %b)",
        ("f64[N, 16, 7, 8]", "f64[2, 16, 3, 3]", "f64[2]"),
        "f64[N, 2, 7, 8]",
    ),
    "in parts, transposed": (
        "conv_transpose{strides=[1, 1], pads=[[1, 1], [1, 1]], dilations=[1, 1], group=1, out=[9, 9]}"
        "(%x, %w)",
        ("f64[N, 8, 9, 9]", "f64[8, 4, 3, 3]", "f64[4]"),
        "f64[N, 4, 9, 9]",
    ),
    "in parts, by weights": (
        "conv_weights{strides=[1, 1], pads=[[1, 1], [1, 1]], dilations=[1, 1], group=1, kernel=[3, 3]}"
        "(%x, %w)",
        ("f64[N, 16, 7, 8]", "f64[N, 2, 7, 8]", "f64[1]"),
        "f64[2, 16, 3, 3]",
    ),
    "three axes": (
        "conv{strides=[1, 1, 1], pads=[[1, 0], [0, 1], [1, 1]], dilations=[1, 1, 1]}(%x, %w)",
        ("f32[N, 2, 3, 2, 3]", "f32[2, 2, 2, 2, 2]", "f32[1]"),
        "f32[N, 2, 3, 2, 4]",
    ),
}


def optimized(text: str, passes: str = "samples-last") -> tuple[Graph, dict[str, int]]:
    """What the passes make, which is equal on seeded inputs, and what they count."""
    manager = PassManager.from_text(passes, [VerifyNumeric()])
    made = manager.run(parse_graph(text))
    first = manager.report.passes[0]
    assert first.verified == "numeric"
    return made, dict(first.statistics)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_are_what_they_were(name: str) -> None:
    call, (x, w, b), y = CONVOLUTIONS[name]
    made, counted = optimized(f"""graph @g
%x = input{{name="x"}} : {x}
%w = input{{name="w", kind="parameter"}} : {w}
%b = input{{name="b", kind="parameter"}} : {b}
%y = {call} : {y}
output "y" = %y
""")
    assert counted == {"convolutions": 1}
    assert not [n for n in made.nodes if n.op.mnemonic.startswith("conv")]
    picks = sum(n.op.mnemonic == "gather" for n in made.nodes)
    assert picks > 1 if name.startswith("in parts") else picks <= 2


POOLED = """graph @g
%x = input{name="x"} : f32[N, 2, 4, 6]
%g = input{name="g"} : f32[N, 2, 2, 3]
%w = input{name="w", kind="parameter"} : f32[2, 2, 1, 1]
%s = input{name="s", kind="parameter"} : f32[2]
%c = conv{strides=[1, 1], pads=[[0, 0], [0, 0]], dilations=[1, 1]}(%x, %w) : f32[N, 2, 4, 6]
%mean, %var = batch_moments(%c) : f32[2], f32[2]
%n = batch_norm{epsilon=1e-05}(%c, %s, %s, %mean, %var) : f32[N, 2, 4, 6]
%r = relu(%n) : f32[N, 2, 4, 6]
%m, %i = max_pool{POOL}(%r) : f32[N, 2, 2, 3], i64[N, 2, 2, 3]
%at = reshape{shape=[N, 2, 6]}(%i) : i64[N, 2, 6]
%gs = reshape{shape=[N, 2, 6]}(%g) : f32[N, 2, 6]
%up = scatter_add{axis=2, size=24, distinct=true}(%gs, %at) : f32[N, 2, 24]
%xs = reshape{shape=[N, 2, 24]}(%x) : f32[N, 2, 24]
%down = gather_elements{axis=2}(%xs, %at) : f32[N, 2, 6]
%flat = reshape{shape=[N, 12]}(%m) : f32[N, 12]
%square = gemm{trans_b=true}(%flat, %flat) : f32[N, N]
%mass = reduce_sum{axes=[0, 2], keepdims=false}(%r) : f32[2, 6]
%each = reduce_sum{axes=[1, 2, 3], keepdims=false}(%r) : f32[N]
%wide = reduce_mean{axes=[0], keepdims=true}(%r) : f32[1, 2, 4, 6]
output "up" = %up
output "down" = %down
output "square" = %square
output "mass" = %mass
output "each" = %each
output "wide" = %wide
""".replace("POOL", "kernel=[2, 2], strides=[2, 2], pads=[[0, 0], [0, 0]], dilations=[1, 1]")


def test_what_lies_between_keeps_the_layout() -> None:
    made, _ = optimized(POOLED)
    kinds = [n.op.mnemonic for n in made.nodes]
    # relu leaves many zeros, of which a window's first is the maximum: scatter tells which was taken
    assert not {"max_pool", "scatter_add", "gather_elements"} & set(kinds)
    assert kinds.count("gemm") == 2


def test_positions_that_are_read_otherwise_are_still_made() -> None:
    text = POOLED + 'output "i" = %i\n'
    made, _ = optimized(text)
    assert "max_pool" in [n.op.mnemonic for n in made.nodes]


def test_ties_go_to_the_first_in_the_window() -> None:
    made, _ = optimized(POOLED)
    rng = np.random.default_rng(0)
    # whole numbers, so that windows often have two maxima
    given = {"x": rng.integers(0, 2, (3, 2, 4, 6)), "g": rng.normal(size=(3, 2, 2, 3))}
    given |= {"w": np.eye(2).reshape(2, 2, 1, 1), "s": np.ones(2)}
    feeds = {name: array.astype(np.float32) for name, array in given.items()}
    wanted, found = (evaluate(g, feeds) for g in (parse_graph(POOLED), made))
    np.testing.assert_array_equal(found["up"], wanted["up"])


@pytest.mark.parametrize(
    ("why", "weights", "passes"),
    [
        ("its weights are constant", "constant{value=dense<f32[1, 1, 1], [2.0]>}", "samples-last"),
        ("patches would be large", 'input{name="w", kind="parameter"}', "samples-last{largest=1}"),
    ],
)
def test_what_stays(why: str, weights: str, passes: str) -> None:
    text = f"""graph @g
%x = input{{name="x"}} : f32[N, 1, 4]
%w = {weights} : f32[1, 1, 1]
%y = conv{{strides=[2], pads=[[0, 0]], dilations=[1]}}(%x, %w) : f32[N, 1, 2]
output "y" = %y
"""
    made, counted = optimized(text, passes)
    assert [n.op.mnemonic for n in made.nodes if n.op.mnemonic != "constant"] == ["conv"], why
    assert not counted
