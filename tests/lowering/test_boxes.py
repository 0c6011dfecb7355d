"""Slices that exporters write as positions of every element are lifted as slices: x[:, 1:, 2:5] = u."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import irshap
from irshap.errors import ModelError
from irshap.ir.core import Graph
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session

SHAPE = (4, 5, 6)


def scatter(index: np.ndarray[Any, Any], x: tuple[int, ...] = SHAPE, reduction: str = "none") -> Any:
    """y = ScatterND(x, index, u) of floats."""
    u = (*index.shape[:-1], *x[index.shape[-1] :])
    given = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", x), ("u", u))]
    node = helper.make_node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction)
    graph = helper.make_graph(
        [node], "g", given, [helper.make_tensor_value_info("y", 1, x)], [numpy_helper.from_array(index, "i")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def positions(*spans: range) -> np.ndarray[Any, Any]:
    return np.stack(np.meshgrid(*map(np.array, spans), indexing="ij"), -1).astype(np.int64)


def scatters(graph: Graph) -> bool:
    return any(node.op.mnemonic.startswith("scatter") for node in graph.nodes)


def assert_as_in_onnx_runtime(model: onnx.ModelProto, graph: Graph) -> None:
    rng = np.random.default_rng(0)
    feeds = {
        v.name: rng.normal(size=[d.dim_value for d in v.type.tensor_type.shape.dim]).astype(np.float32)
        for v in model.graph.input
    }
    for a, b in zip(Session(model).run(feeds), Session(lower(graph)).run(feeds), strict=True):
        np.testing.assert_array_equal(b, a)


WHOLE = positions(range(1, 3), range(5), range(2, 5))
BOXES = {
    "some of each axis": WHOLE,
    "all": positions(range(4), range(5), range(6)),
    "the first axis alone": positions(range(1, 4)),
    "one row": positions(range(2, 3)),
    "one element": positions(range(2, 3), range(1, 2), range(5, 6)),
    "one element, by its position alone": np.array([2, 1, 5]),
    "up to the end": positions(range(4), range(1, 5)),
    "counted from the end": positions(range(-3, -1), range(-5, 0)),
    "as a list": positions(range(1, 4), range(2, 3)).reshape(-1, 2),
    "with axes between": positions(range(1, 3), range(2, 4)).reshape(2, 1, 2, 1, 2),
}


@pytest.mark.parametrize("reduction", ["none", "add"])
@pytest.mark.parametrize("name", BOXES)
def test_a_box_is_slices(name: str, reduction: str) -> None:
    model = scatter(BOXES[name], reduction=reduction)
    graph = lift(model)
    assert not scatters(graph)
    assert_as_in_onnx_runtime(model, graph)


OTHERS = {
    "every second": positions(range(0, 4, 2), range(5)),
    "backwards": positions(range(3, -1, -1)),
    "from the last to the first": positions(range(-1, 2)),
    "one left out": np.delete(positions(range(4), range(5)).reshape(-1, 2), 7, axis=0),
    "two swapped": positions(range(4), range(5)).reshape(-1, 2)[[1, 0, *range(2, 20)]],
    "the axes the other way round": np.moveaxis(positions(range(4), range(5)), 0, 1),
    "the diagonal": np.stack([np.arange(4)] * 2, -1),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_box_stays(name: str) -> None:
    model = scatter(OTHERS[name])
    graph = lift(model)
    assert scatters(graph)
    assert_as_in_onnx_runtime(model, graph)


def test_positions_beyond_the_end_are_refused() -> None:
    with pytest.raises(ModelError, match="is out of range for an axis of 4 elements"):
        lift(scatter(positions(range(3, 6))))


# as torch's TorchScript exporter writes h[:, 1:, 1:] += u, for a batch that is N or 1
ASSIGNED = """<ir_version: 8, opset_import: ["": 17]> g (float[BATCH,4,5] x) => (float[BATCH,5] y)
    <int64 zero = {0}, int64 one = {1}, int64[1] first = {0}, int64[1] second = {1}, int64[1] end = {9999},
     int64[1] two = {2}, int64[1] last = {-1}, int64[3] a = {-1,1,1}, int64[2] b = {-1,1}, int64[1] c = {-1},
     int64 axis1 = {1}, int64 axis2 = {2}>
    {
        h = Tanh(x)
        s = Shape(h) n = Gather(s, zero) t = Gather(s, axis1) e = Gather(s, axis2)
        rows = Range(zero, n, one) places = Range(zero, t, one) units = Range(zero, e, one)
        p1 = Slice(places, second, end) u1 = Slice(units, second, end)
        i = Reshape(rows, a) j = Reshape(p1, b) k = Reshape(u1, c)
        ij = Add(i, j) ijk = Add(ij, k) d = Shape(ijk)
        ie = Expand(i, d) je = Expand(j, d) ke = Expand(k, d)
        iu = Unsqueeze(ie, last) ju = Unsqueeze(je, last) ku = Unsqueeze(ke, last)
        index = Concat<axis = -1>(iu, ju, ku)
        part = Slice(x, first, last, second) left = Slice(part, first, last, two) v = Mul(left, left)
        w = Reshape(v, d)
        z = ScatterND(h, index, w)
        r = ReduceSum<keepdims = 0>(z, second) y = Sigmoid(r)
    }"""


@pytest.mark.parametrize("batch", ["N", "1"])
def test_an_assignment_of_torch(batch: str) -> None:
    model = parser.parse_model(ASSIGNED.replace("BATCH", batch))
    graph = lift(model)
    assert not scatters(graph)
    rng = np.random.default_rng(0)
    x, references = (rng.normal(size=(n, 4, 5)).astype(np.float32) for n in (3, 2))
    compiled = irshap.compile(model, references, method="deeplift{emit=completeness_error}")
    explanation = compiled.explainer()(x)
    original = Session(model)
    wanted = np.concatenate([original.run({"x": row[None]})[0] for row in x])
    np.testing.assert_allclose(explanation.outputs["y"], wanted, rtol=1e-6)
    assert np.abs(explanation.completeness_error).max() < 1e-6


def test_positions_of_long_axes_are_never_made() -> None:
    # of 2000 x 3000 elements of a sample they would take 48 MB on each of three axes
    text = ASSIGNED.replace("BATCH", "N").replace("4,5]", "2000,3000]").replace("N,5]", "N,3000]")
    graph = lift(parser.parse_model(text))
    assert not scatters(graph)
    integers = [v.tensor for node in graph.nodes for v in node.results if v.tensor.dtype.is_integer]
    assert all(t.rank <= 1 for t in integers)
