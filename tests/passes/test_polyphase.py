"""Phases of strided adjoints: for any kernel, stride and padding the same, or left as they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from irshap.checks.equivalence import check_same
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Output, Role
from irshap.ir.dims import N, R, as_dim
from irshap.ir.types import DType, Tensor, TensorType
from irshap.ops.conv import ConvTranspose
from irshap.ops.program import Constant, Input
from irshap.ops.shape import Split, reshape
from irshap.passes.dce import DeadCodeElimination
from irshap.passes.polyphase import Polyphase
from irshap.pipeline.base import Context

CHANNELS, FEWER = 3, 2

Axis = tuple[int, int, int, int, int]
"""Kernel, stride, padding before and after, size of the result."""


def _size(axis: Axis) -> int:
    """What a convolution makes of the result's size."""
    kernel, stride, before, after, out = axis
    return (out + before + after - kernel) // stride + 1


def _graph(axes: list[Axis], seed: int) -> Graph:
    """relu(adjoint of a strided depthwise convolution) * (x - x0), behind it a pointwise adjoint."""
    rng = np.random.default_rng(seed)
    kernel, stride, before, after, out = zip(*axes, strict=True)
    low, ones = tuple(_size(a) for a in axes), (1,) * len(axes)

    with Builder() as b:

        def pair(name: str, shape: tuple[int, ...]) -> tuple[object, object]:
            sample = b.emit(Input(name), types=(TensorType(DType.F64, (N, *shape)),), names=(name,))[0]
            op = Input(f"{name}_references", "references", name)
            kind = TensorType(DType.F64, (R, *shape))
            (reference,) = b.emit(op, types=(kind,), names=(f"{name}_references",))
            return reshape(sample, (N, 1, *shape)), reshape(reference, (1, R, *shape))

        def weights(*shape: int) -> object:
            return emit1(Constant(Tensor(rng.standard_normal(shape))))

        a, a0 = pair("a", (CHANNELS, *low))
        x, x0 = pair("x", (CHANNELS, *out))
        rows = as_dim(N * R)
        pads = tuple(zip(before, after, strict=True))
        strided = ConvTranspose(stride, pads, ones, CHANNELS, out)
        ct = emit1(strided, reshape(a - a0, (rows, CHANNELS, *low)), weights(CHANNELS, 1, *kernel))
        product = reshape(ct, (N, R, CHANNELS, *out)) * ((x - x0) * weights(CHANNELS, *ones))
        pointwise = ConvTranspose(ones, ((0, 0),) * len(axes), ones, 1, out)
        y = emit1(pointwise, reshape(product, (rows, CHANNELS, *out)), weights(CHANNELS, FEWER, *ones))
        return b.build("g", [Output("y", y, Role.MODEL)], ("decided",))


def _strided(graph: Graph) -> int:
    return sum(isinstance(n.op, ConvTranspose) and set(n.op.strides) != {1} for n in graph.nodes)


@st.composite
def _axes(draw: st.DrawFn) -> Axis:
    kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    before, after = draw(st.integers(0, kernel - 1)), draw(st.integers(0, kernel - 1))
    axis = (kernel, stride, before, after, draw(st.integers(1, 9)))
    assume(axis[4] + before + after >= kernel)
    return axis


@settings(max_examples=60)
@given(st.lists(_axes(), min_size=1, max_size=3), st.integers(0, 99))
def test_any_strided_adjoint(axes: list[Axis], seed: int) -> None:
    graph, context = _graph(axes, seed), Context()
    changed = Polyphase().run(graph, context)
    check_same(Polyphase(), graph, changed, context)
    strided = any(a[1] > 1 for a in axes)
    divisible = all(a[4] % a[1] == 0 for a in axes)
    covered = all(a[0] >= a[1] for a in axes)
    assert context.statistics.get("adjoints", 0) <= (strided and divisible and covered)


@pytest.mark.parametrize(
    "axes", [[(3, 2, 1, 1, 8)], [(3, 2, 1, 1, 8), (5, 2, 2, 2, 6)], [(2, 2, 0, 0, 4)]], ids=str
)
def test_usual_ones_are_taken_apart(axes: list[Axis]) -> None:
    graph, context = _graph(axes, 0), Context()
    changed = DeadCodeElimination().run(Polyphase().run(graph, context), context)
    assert context.statistics["adjoints"] == 1
    assert (_strided(graph), _strided(changed)) == (1, 0)


def test_to_a_single_reference_the_multiplier_is_split() -> None:
    """One tensor is split, not the sample, the reference and what else the multiplier is made of."""
    axes: list[Axis] = [(3, 2, 1, 1, 8), (5, 2, 2, 2, 6)]
    graph = _graph(axes, 0)
    one = {"a": np.zeros((1, CHANNELS, *map(_size, axes))), "x": np.zeros((1, CHANNELS, 8, 6))}
    splits = []
    for context in (Context(), Context(references=one)):
        changed = DeadCodeElimination().run(Polyphase().run(graph, context), context)
        check_same(Polyphase(), graph, changed, context)
        splits.append(sum(isinstance(n.op, Split) for n in changed.nodes))
    assert splits == [6, 3]


@pytest.mark.parametrize(
    "axes", [[(3, 2, 1, 1, 7)], [(1, 2, 0, 0, 8)], [(3, 1, 1, 1, 8)]], ids=["odd", "gaps", "no stride"]
)
def test_others_stay(axes: list[Axis]) -> None:
    graph, context = _graph(axes, 0), Context()
    changed = Polyphase().run(graph, context)
    assert "adjoints" not in context.statistics
    assert _strided(changed) == _strided(graph)
