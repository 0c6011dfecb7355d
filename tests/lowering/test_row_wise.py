"""Ops without a rule that are said to keep rows apart do: on onnx's own models of one node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from bench.roundtrip import cases
from kernels import needs_opset
from onnx import helper

from irshap.errors import IRError
from irshap.ir.core import MixesBatch, Node
from irshap.ir.types import Array
from irshap.lowering import lift
from irshap.ops.program import Opaque

SEEN = {
    "ArgMin",
    "BitwiseAnd",
    "BitwiseNot",
    "Det",
    "LSTM",
    "StringConcat",
    "StringSplit",
    "TfIdfVectorizer",
    "LabelEncoder",
    "TensorScatter",
}
"""Ops of which ONNX Runtime runs at least one model with several rows; others have no kernel, or one row."""


def nodes() -> Iterator[tuple[str, Node, list[Array]]]:
    """Opaque nodes of which it is known where rows go, with the operands that onnx gives them."""
    for case in cases(["node"]):
        model = case.load()
        if len(model.graph.node) != 1:
            continue
        for entry in model.opset_import:
            entry.version = entry.version if entry.domain else max(entry.version, 7)
        graph = lift(model, batch="keep")
        named, *_ = case.feeds(model)
        for node in graph.nodes:
            op = node.op
            if isinstance(op, Opaque) and (op.rows or op.elementwise):
                arrays = [named.get(str(v.name)) for v in node.operands]
                if all(isinstance(a, np.ndarray) for a in arrays):
                    yield case.name, node, [np.asarray(a) for a in arrays]


def places(op: Opaque, arrays: Sequence[Array]) -> list[int | None]:
    """The axis of each operand that may hold rows."""
    if op.rows:
        return [axis if axis >= 0 else None for axis in op.rows[0]]
    rank = max(a.ndim for a in arrays)
    return [0 if a.ndim == rank and rank and len(a) > 1 else None for a in arrays]


def picked(array: Array, axis: int | None, order: Sequence[int]) -> Array:
    return array if axis is None else np.take(array, order, axis)


def test_rows_of_results_follow_those_of_operands() -> None:
    checked = {node.op.title for name, node, arrays in nodes() if follows(name, node, arrays)}
    if SEEN - checked == {"TensorScatter"}:
        needs_opset(24)
    assert checked >= SEEN, sorted(SEEN - checked)


def follows(name: str, node: Node, arrays: Sequence[Array]) -> bool:
    """Checks that other rows give other rows; False where that can't be tried."""
    op: Any = node.op
    axes = places(op, arrays)
    counts = {a.shape[axis] for a, axis in zip(arrays, axes, strict=True) if axis is not None and a.ndim}
    if len(counts) != 1 or counts == {1}:
        return False
    order = [*reversed(range(counts.pop()))]
    try:
        told = op.batch_axes(axes, [v.tensor for v in node.operands], node.types)
        results = op.evaluate(*arrays)
    except (MixesBatch, IRError):
        return False
    if any(a.dtype.isbuiltin != 1 for a in (*arrays, *results)):
        return False  # numbers that numpy itself doesn't have: their rows may share bytes, and NaN isn't NaN
    moved = op.evaluate(*(picked(a, axis, order) for a, axis in zip(arrays, axes, strict=True)))
    for a, b, axis in zip(moved, results, told, strict=True):
        expected = picked(b, axis, order)
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(a, expected, 1e-5, 1e-6, err_msg=f"{name}: {op.kind}")
        else:
            np.testing.assert_array_equal(a, expected, f"{name}: {op.kind}")
    return True


def real(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


LENGTHS = np.array([2, 4, 1])
MADE: dict[str, tuple[int, list[Array], dict[str, Any]]] = {
    "DFT": (17, [real(3, 8, 1), np.array(4)], {"axis": 1}),
    "GridSample": (20, [real(3, 2, 4, 4), np.tanh(real(3, 5, 5, 2))], {}),
    "ReverseSequence": (10, [real(4, 3, 2), LENGTHS], {"batch_axis": 1, "time_axis": 0}),
    "STFT": (17, [real(3, 16, 1), np.array(4), real(8)], {}),
}


@pytest.mark.parametrize("kind", MADE)
def test_rows_follow_where_onnx_has_no_model_of_several(kind: str) -> None:
    opset, arrays, attributes = MADE[kind]
    names = [f"x{i}" for i in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    output.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto(dim=[{}] * 3))
    node = helper.make_node(kind, names, ["y"], **attributes)
    graph = helper.make_graph([node], "net", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    (made,) = lift(model, batch="keep").nodes
    assert isinstance(made.op, Opaque)
    assert follows(kind, made, arrays)


@pytest.mark.parametrize("axis", [0, 1])
def test_an_operand_with_rows_elsewhere_mixes_them(axis: int) -> None:
    """A smallest position on axis 1 keeps rows on axis 0 apart, and no others."""
    x, y = (
        helper.make_tensor_value_info(n, k, s)
        for n, k, s in (("x", onnx.TensorProto.FLOAT, ["N", 3]), ("y", onnx.TensorProto.INT64, ["a", "b"]))
    )
    node = helper.make_node("ArgMin", ["x"], ["y"], axis=axis)
    graph = helper.make_graph([node], "net", [x], [y])
    (made,) = lift(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])).nodes
    types = [v.tensor for v in made.operands]
    if axis:
        assert made.op.batch_axes((0,), types, [v.tensor for v in made.results]) == (0,)
        return
    with pytest.raises(MixesBatch, match="ArgMin"):
        made.op.batch_axes((0,), types, [v.tensor for v in made.results])
