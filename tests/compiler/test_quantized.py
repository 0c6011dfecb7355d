"""Models as the quantizers of ONNX Runtime write them: static (QDQ, QOperator), dynamic, weights alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
from onnxruntime.quantization import quantize_dynamic as dynamic
from onnxruntime.quantization import quantize_static as static

import irshap
from irshap.errors import NotDifferentiable, UserError
from irshap.ir.types import Array

IMAGE, ROW = (3, 8, 8), (6,)


def weights(seed: int, **shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    rng = np.random.default_rng(seed)
    return [
        numpy_helper.from_array(
            (rng.standard_normal(s) / max(1.0, np.prod(s[1:])) ** 0.5).astype(np.float32), name
        )
        for name, s in shapes.items()
    ]


def model(
    shape: tuple[int, ...], classes: int, nodes: list[Any], given: list[onnx.TensorProto], opset: int = 17
) -> onnx.ModelProto:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *dims])
        for name, dims in (("x", shape), ("y", (classes,)))
    )
    graph = helper.make_graph(nodes, "net", [x], [y], given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"{output}_{kind}", **attributes)


def convolutional() -> onnx.ModelProto:
    """Every op that the static quantizer has a form for, but matrix products."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2 b2", "c2", pads=[1, 1, 1, 1]),
        node("Sigmoid", "c2", "s2"),
        node("LeakyRelu", "c2", "l2", alpha=0.1),
        node("Mul", "s2 l2", "m2"),
        node("Add", "m2 p1", "a2"),
        node("Concat", "a2 p1", "both", axis=1),
        node("AveragePool", "both", "v2", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", "v2", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f w3 b3", "z"),
        node("Softmax", "z", "y", axis=-1),
    ]
    shapes = {"w1": (4, 3, 3, 3), "b1": (4,), "w2": (4, 4, 3, 3), "b2": (4,), "w3": (8, 5), "b3": (5,)}
    return model(IMAGE, 5, nodes, weights(0, **shapes))


def dense() -> onnx.ModelProto:
    nodes = [node("MatMul", "x w1", "m1"), node("Add", "m1 b1", "a1"), node("Relu", "a1", "r1")]
    nodes += [node("MatMul", "r1 w2", "m2"), node("Add", "m2 b2", "y")]
    return model(ROW, 3, nodes, weights(1, w1=(6, 16), b1=(16,), w2=(16, 3), b2=(3,)))


class Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Array) -> None:
        self.left: Iterator[Array] = iter(samples)

    def get_next(self) -> dict[str, Array] | None:  # type: ignore[override]
        found = next(self.left, None)
        return None if found is None else {"x": found[None]}


def stacked(size: int = 8) -> onnx.ModelProto:
    """Two layers one upon the other: the batch is merged with another axis, and found again behind it."""
    nodes = [
        node("MatMul", "x w1", "a"),
        node("MatMul", "x w2", "b"),
        node("Concat", "a b", "c", axis=0),
        node("Reshape", "c two", "r"),
        node("Transpose", "r", "t", perm=[1, 0, 2]),
        node("MatMul", "t w3", "m"),
        node("Tanh", "m", "h"),
        node("ReduceSum", "h one", "y", keepdims=0),
    ]
    given = weights(2, w1=(6, size), w2=(6, size), w3=(size, 4))
    numbers = {"two": np.array([2, -1, size]), "one": np.array([1])}
    return model(ROW, 4, nodes, [*given, *(numpy_helper.from_array(a, n) for n, a in numbers.items())])


def samples(shape: tuple[int, ...], count: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


QDQ, QOPERATOR = {"quant_format": QuantFormat.QDQ}, {"quant_format": QuantFormat.QOperator}
SIGNED = {"per_channel": True, "weight_type": QuantType.QInt8}
CASES = {
    "qdq": (convolutional, QDQ),
    "qdq by channel": (convolutional, QDQ | SIGNED | {"activation_type": QuantType.QInt8}),
    "qdq in 16 bits": (convolutional, QDQ | SIGNED | {"activation_type": QuantType.QUInt16}),
    "qdq dense": (dense, QDQ),
    "qoperator": (convolutional, QOPERATOR),
    "qoperator by channel": (convolutional, QOPERATOR | SIGNED),
    "qoperator dense": (dense, QOPERATOR),
    "dynamic": (convolutional, None),
    "dynamic dense": (dense, None),
    "dynamic dense by channel": (dense, {"per_channel": True}),
    "qdq stacked": (stacked, QDQ),
    "qoperator stacked": (stacked, QOPERATOR),
    "dynamic stacked": (stacked, None),
    "dynamic stacked by channel": (stacked, {"per_channel": True}),
}


@pytest.fixture(params=list(CASES))
def quantized(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, onnx.ModelProto, Array, Array]:
    """Name, model, three samples, four references."""
    logging.disable(logging.WARNING)
    make, options = CASES[request.param]
    shape = IMAGE if make is convolutional else ROW
    given, found = tmp_path / "model.onnx", tmp_path / "quantized.onnx"
    onnx.save(make(), given)
    if "dynamic" in request.param:
        dynamic(given, found, **(options or {}))
    else:
        static(given, found, Samples(samples(shape, 32, 7)), **options)
    logging.disable(logging.NOTSET)
    return request.param, onnx.load(found), samples(shape, 3, 8), samples(shape, 4, 9)


def alone(model: onnx.ModelProto, rows: Array) -> Array:
    """What the model gives for each sample by itself, as ONNX defines it.

    Optimized, ONNX Runtime makes integer kernels of QDQ models, which round some numbers the other way.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        if "Could not find an implementation for ConvInteger" not in str(error):
            raise
        pytest.skip("ONNX Runtime 1.23 has no kernel for this ConvInteger where it doesn't optimize")
    return np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])


def test_the_gap_to_the_quantized_model_is_told(
    quantized: tuple[str, onnx.ModelProto, Array, Array],
) -> None:
    """Predictions are the quantized model's, and completeness_error is what attributions leave of them."""
    name, source, x, references = quantized
    with pytest.raises(NotDifferentiable, match=r"step function.*--quantized") as refused:
        irshap.compile(source, references, target=1)
    assert "Quantize" in str(refused.value) or "quantize" in str(refused.value)
    compiled = irshap.compile(source, references, target=1, quantized=True)
    found = compiled.explainer()(x)
    y, y0 = alone(source, x), alone(source, references)
    # a number just between two levels may be rounded the other way
    step = 1 / 65535 if "16 bits" in name else 1 / 255
    size = max(np.abs(y).max(), np.abs(y0).max())
    assert np.abs(found.outputs["y"] - y).max() <= 2.5 * step * size
    assert np.mean(np.abs(found.outputs["y"] - y) > 1e-5 * size) < 0.2
    assert found.completeness_error is not None and found.base_values is not None
    total = found.values.reshape(3, -1).astype(np.float64).sum(1)
    left = found.outputs["y"][:, 1] - found.base_values - total
    np.testing.assert_allclose(found.completeness_error, left, atol=2e-6 * size)
    assert np.abs(found.base_values - y0[:, 1].mean()).max() <= 2.5 * step * size
    # half a step for each rounding at most, seen through the layers behind it
    assert 0 < np.abs(found.completeness_error).max() <= 40 * step * size
    told = {p.key: p.value for p in compiled.model.metadata_props}["irshap.incomplete"]
    assert "rounds to" in told


def test_optimized_as_naive(quantized: tuple[str, onnx.ModelProto, Array, Array]) -> None:
    """The optimized program explains what the plain one does."""
    _, source, x, references = quantized
    both = [
        irshap.compile(source, references, target=1, quantized=True, passes=passes).explainer()(x)
        for passes in (None, "@naive")
    ]
    size = np.abs(both[1].values).max()
    np.testing.assert_allclose(both[0].values, both[1].values, atol=2e-5 * size, rtol=1e-4)


def test_a_batch_of_one_grows(quantized: tuple[str, onnx.ModelProto, Array, Array]) -> None:
    """Rows alone and together are compared up to the steps of the levels, on which runtimes differ."""
    _, source, x, references = quantized
    fixed = onnx.ModelProto()
    fixed.CopyFrom(source)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    both = [irshap.compile(m, references, target=1, quantized=True).explainer()(x) for m in (source, fixed)]
    np.testing.assert_allclose(both[0].values, both[1].values, atol=1e-5 * np.abs(both[0].values).max())


def test_finer_levels_leave_less() -> None:
    """The gap is the rounding's: it goes with the levels, and attributions go to those without any."""
    x, references = samples(ROW, 3, 8), samples(ROW, 4, 9)
    plain = irshap.compile(dense(), references, target=1).explainer()(x)
    found = {}
    for bits, kind in ((8, np.uint8), (16, np.uint16)):
        source = dense()
        nodes, scale = [], 16.0 / 2**bits
        given = [numpy_helper.from_array(np.asarray(scale, np.float32), "s")]
        given.append(numpy_helper.from_array(np.asarray(2 ** (bits - 1), kind), "z"))
        for old in source.graph.node:
            nodes += [old]
            if old.op_type in ("Add", "Relu") and old.output[0] != "y":
                real = old.output[0]
                old.output[0] = f"{real}_exact"
                nodes += [node("QuantizeLinear", f"{real}_exact s z", f"{real}_q")]
                nodes += [node("DequantizeLinear", f"{real}_q s z", real)]
        exact = model(ROW, 3, nodes, [*source.graph.initializer, *given], 21)
        found[bits] = irshap.compile(exact, references, target=1, quantized=True).explainer()(x)
    gaps = {bits: np.abs(e.completeness_error).max() for bits, e in found.items()}
    far = {bits: np.abs(e.values - plain.values).max() for bits, e in found.items()}
    assert gaps[16] < gaps[8] / 50 and far[16] < far[8] / 20 and far[16] < 1e-3


def test_what_lies_beyond_the_levels_is_cut_off() -> None:
    """Beyond the range of the levels nothing more comes through, as behind a clip: 0 .. 2."""
    given = [numpy_helper.from_array(np.asarray(2 / 255, np.float32), "s")]
    given.append(numpy_helper.from_array(np.uint8(0).reshape(()), "z"))
    nodes = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")]
    source = model((1,), 1, nodes, given)
    x, references = np.array([[5.0], [1.0], [-3.0]], np.float32), np.zeros((1, 1), np.float32)
    found = irshap.compile(source, references, target=0, quantized=True).explainer()(x)
    np.testing.assert_allclose(found.values, [[2.0], [1.0], [0.0]], atol=1e-6)


KINDS = {
    "int8": (TensorProto.INT8, np.int8),
    "uint8": (TensorProto.UINT8, np.uint8),
    "int16": (TensorProto.INT16, np.int16),
    "int4": (TensorProto.INT4, ml_dtypes.int4),
    "uint4": (TensorProto.UINT4, ml_dtypes.uint4),
    "float8": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", ["tensor", "axis", "block"])
def test_weights_alone(kind: str, spread: str) -> None:
    """Levels that are constants are read at once: nothing is rounded any more, and sums are complete."""
    code, dtype = KINDS[kind]
    rng = np.random.default_rng(3)
    low, high = (-8, 8) if kind != "uint4" else (0, 16)
    levels = rng.integers(low, high, (6, 4)).astype(np.float32).clip(0 if "u" in kind else low).astype(dtype)
    shape = {"tensor": (), "axis": (4,), "block": (2, 4)}[spread]
    scale = (rng.random(shape) * 0.2 + 0.05).astype(np.float32)
    zero = np.zeros(shape, dtype) if kind == "float8" else rng.integers(0, 3, shape).astype(dtype)
    attributes = {"block": {"axis": 0, "block_size": 3}, "axis": {"axis": 1}, "tensor": {}}[spread]
    given = [numpy_helper.from_array(a, n) for a, n in ((levels, "q"), (scale, "s"), (zero, "z"))]
    assert given[0].data_type == code
    nodes = [node("DequantizeLinear", "q s z", "w", **attributes), node("MatMul", "x w", "m")]
    source = model(ROW, 4, [*nodes, node("Tanh", "m", "y")], given, 21)
    spread_out = [np.repeat(a, 3, 0) if spread == "block" else a for a in (scale, zero.astype(np.float32))]
    expected = (levels.astype(np.float32) - spread_out[1]) * spread_out[0]
    x, references = samples(ROW, 3, 8), samples(ROW, 4, 9)
    compiled = irshap.compile(source, references, target=2)
    assert not [n for n in compiled.model.graph.node if "Quantize" in n.op_type]
    found = compiled.explainer()(x)
    y, y0 = np.tanh(x @ expected), np.tanh(references @ expected)
    np.testing.assert_allclose(found.outputs["y"], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.values.sum(1), y[:, 2] - y0[:, 2].mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["integrated-gradients", "deeplift{rule=reveal-cancel}", "occlusion"])
def test_other_methods(method: str) -> None:
    """What they make of steps: the certificate where they have one, or a refusal."""
    given = [numpy_helper.from_array(np.asarray(0.05, np.float32), "s")]
    given.append(numpy_helper.from_array(np.uint8(128).reshape(()), "z"))
    nodes = [node("MatMul", "x w", "m"), node("QuantizeLinear", "m s z", "q")]
    nodes += [node("DequantizeLinear", "q s z", "d"), node("Relu", "d", "y")]
    source = model(ROW, 3, nodes, [*given, *weights(1, w=(6, 3))])
    x, references = samples(ROW, 3, 8), samples(ROW, 4, 9)
    arguments: dict[str, Any] = {"target": 0, "method": method}
    if method != "occlusion":
        arguments["quantized"] = True
    if method == "deeplift{rule=reveal-cancel}":
        with pytest.raises(NotDifferentiable, match="fake_quantize"):
            irshap.compile(source, references, **arguments)
        return
    if method == "occlusion":
        # nothing is differentiated: the model itself is run on masked samples
        found = irshap.compile(source, **arguments).explainer()(x)
        assert np.isfinite(found.values).all()
        return
    found = irshap.compile(source, references, **arguments).explainer()(x)
    error = found.target_values if found.completeness_error is None else found.completeness_error
    assert error is not None and np.abs(error).max() < 0.3


def test_attention_on_levels() -> None:
    """As the dynamic quantizer writes an Attention that ONNX Runtime has fused."""
    rng = np.random.default_rng(2)
    levels = rng.integers(-60, 60, (8, 24)).astype(np.int8)
    arrays = {
        "w": levels,
        "ws": np.asarray(0.01, np.float32),
        "wz": np.asarray(3, np.int8),
        "b": rng.standard_normal(24).astype(np.float32),
        "axes": np.array([1]),
    }
    given = [numpy_helper.from_array(a, n) for n, a in arrays.items()]
    attention = helper.make_node(
        "QAttention", ["q", "w", "b", "s", "ws", "", "z", "wz"], ["a"], domain="com.microsoft", num_heads=2,
        name="attention",
    )  # fmt: skip
    dynamic = helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="levels")
    source = model((4, 8), 8, [dynamic, attention, node("ReduceSum", "a axes", "y", keepdims=0)], given)
    source.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    x, references = samples((4, 8), 3, 8), samples((4, 8), 2, 9)
    found = irshap.compile(source, references, target=1, quantized=True).explainer()(x)
    y, y0 = alone(source, x), alone(source, references)
    np.testing.assert_allclose(found.outputs["y"], y, atol=1e-4)
    assert found.completeness_error is not None
    left = y[:, 1] - y0[:, 1].mean() - found.total()
    np.testing.assert_allclose(found.completeness_error, left, atol=1e-4)
    assert np.abs(left).max() < 0.02 * np.abs(y).max()


def test_a_dynamic_lstm_is_refused_with_a_hint() -> None:
    """Its states are quantized at each step, which no layer in floats stands for."""
    given = weights(4, r=(1, 5, 20), w=(1, 3, 20))
    proto = helper.make_node(
        "DynamicQuantizeLSTM", ["x", "wq", "rq", "", "", "", "", "", "ws", "wz", "ws", "wz"], ["h"],
        domain="com.microsoft", hidden_size=5, name="lstm",
    )  # fmt: skip
    levels = [
        numpy_helper.from_array((numpy_helper.to_array(t) * 50).astype(np.int8), n)
        for t, n in zip(given, ("rq", "wq"), strict=True)
    ]
    levels += [numpy_helper.from_array(np.full(1, 0.02, np.float32), "ws")]
    levels += [numpy_helper.from_array(np.zeros(1, np.int8), "wz")]
    nodes = [proto, node("ReduceSum", "h axes", "y", keepdims=0)]
    levels.append(numpy_helper.from_array(np.array([0, 1]), "axes"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "net", [x], [y], levels)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    source = helper.make_model(graph, opset_imports=imports, ir_version=10)
    with pytest.raises(UserError, match="op_types_to_quantize"):
        irshap.compile(source, np.zeros((1, 4, 3), np.float32), target=0)


@pytest.mark.parametrize("moved", [False, True])
def test_an_embedding_whose_table_is_levels(moved: bool) -> None:
    """Rows of int8 that are read behind the lookup, as ONNX Runtime writes it: the floats' attributions."""
    read = "t = Transpose<perm = [0, 2, 1]>(q)  d = DequantizeLinear(t, s, z)" if moved else ""
    read = read or "d = DequantizeLinear(q, s, z)"
    head = '<ir_version: 9, opset_import: ["": 17]> g (int64[N, 2] ids) => (float[N, 2] y)'
    given = "float s = {0.25}, int8 z = {3}, int8[4, 2] table = {1, -2, 7, 0, 3, 9, -8, 4}"
    behind = "e = Tanh(d)  y = ReduceSum<keepdims = 0>(e, one)"
    levels = onnx.parser.parse_model(
        f"{head} <{given}, int64[1] one = {{1}}> {{ q = Gather(table, ids)  {read}  {behind} }}"
    )
    floats = onnx.parser.parse_model(
        f"""{head} <{given}, int64[1] one = {{1}}> {{
            f = DequantizeLinear(table, s, z)  r = Gather(f, ids)
            d = Transpose<perm = [0, {"2, 1" if moved else "1, 2"}]>(r)  {behind} }}"""
    )
    ids, references = np.array([[0, 1], [3, 3]]), np.array([[2, 1], [1, 0], [0, 0]])
    found, expected = (irshap.compile(m, references, target=0).explainer()(ids) for m in (levels, floats))
    np.testing.assert_array_equal(found.values, expected.values)
    session = onnxruntime.InferenceSession(levels.SerializeToString())
    fx, base = (session.run(None, {"ids": rows})[0][:, 0] for rows in (ids, references))
    np.testing.assert_allclose(found.total(), fx - base.mean(), rtol=1e-5, atol=1e-6)


def test_a_kernel_that_rounds_doesn_t_hide_the_batch() -> None:
    """ONNX Runtime makes an int8 kernel of int4 weights: what it is compared with leaves them as they are."""
    source = stacked(32)
    rng = np.random.default_rng(0)
    q, s = rng.integers(-8, 8, (32, 4)).astype(ml_dtypes.int4), rng.random((2, 4)).astype(np.float32)
    source.graph.initializer[2].CopyFrom(numpy_helper.from_array(s, "s"))
    source.graph.initializer.append(numpy_helper.from_array(q, "q"))
    source.graph.node.insert(0, node("DequantizeLinear", "q s", "w3", axis=0, block_size=16))
    source.opset_import[0].version = 21
    x, references = samples(ROW, 3, 8), samples(ROW, 4, 9)
    found = irshap.compile(source, references, target=1).explainer()(x)
    y, y0 = alone(source, x)[:, 1], alone(source, references)[:, 1]
    np.testing.assert_allclose(found.values.sum(1), y - y0.mean(), rtol=1e-4, atol=1e-5)
