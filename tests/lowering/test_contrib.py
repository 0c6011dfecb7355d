"""ONNX Runtime's own ops, lifted: what ONNX Runtime computes for the node, in standard ops, and complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from contrib_cases import CASES, Case, Rows, draw
from kernels import computes, loaded
from onnx import helper, numpy_helper

import irshap
from irshap.errors import NotDifferentiable
from irshap.ir.types import Array
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session
from irshap.ops.program import Opaque

PADDED = {"GroupQueryAttention, shorter": (1, 3)}
"""Cases in which ONNX Runtime leaves the rows of padding unset: the sample, and how many tokens it has."""


def original(name: str) -> list[Array]:
    """What ONNX Runtime gives for the node itself."""
    case = CASES[name]
    if name == "Attention, no bias":  # ONNX Runtime 1.31 ends in a segmentation fault
        case = replace(case, inputs=[*case.inputs, np.zeros(48, np.float32)])
    if case.kind == "GroupQueryAttention":
        case = grouped(case)
    if name == "GatherBlockQuantized, 4, zeros" and not zeros_by_row(case):
        pytest.skip("this ONNX Runtime reads zero points of 4 bits as if no row of them were padded")
    return loaded(case.model()).run(case.feeds())


def grouped(case: Case) -> Case:
    """As ONNX Runtime takes it: its kernel reads a past for the present only, older ones want that always.

    In older ones a window holds one key more.  A window of one key is the token's own.
    """
    case = replace(case, outputs=("y0", "y1", "y2"))
    if "local_window_size" in case.attributes:
        base = CASES["GroupQueryAttention"]
        alone = replace(base, attributes=base.attributes | {"local_window_size": 1}, outputs=case.outputs)
        feeds = alone.feeds()
        own = np.repeat(feeds["x2"].reshape(2, 5, 2, 16), 2, axis=2).reshape(2, 5, 64)
        more = not computes(alone.model(), feeds, own)
        window = case.attributes["local_window_size"] - more
        case = replace(case, attributes=case.attributes | {"local_window_size": window})
    return case


def zeros_by_row(case: Case) -> bool:
    """Whether zero points of an odd number of blocks are read by row: what is its own zero point is 0."""
    data, indices, scales, zeros = case.inputs
    numbers = np.arange(len(data), dtype=np.uint8)[:, None] * 17  # both halves of a byte
    inputs = [np.broadcast_to(numbers, data.shape), indices, scales, np.broadcast_to(numbers, zeros.shape)]
    alone = replace(case, inputs=inputs)
    return computes(alone.model(), alone.feeds(), np.float32(0))


@pytest.mark.parametrize("name", CASES)
def test_gives_what_the_runtime_gives(name: str) -> None:
    case = CASES[name]
    graph = lift(case.model())
    assert all(n.op.modeled for n in graph.nodes)
    lowered = lower(graph)
    assert [o.domain for o in lowered.opset_import] == [""]
    onnx.checker.check_model(lowered, full_check=True)
    for found, wanted in zip(Session(lowered).run(case.feeds()), original(name), strict=False):
        if name in PADDED:
            sample, length = PADDED[name]
            found[sample, length:] = wanted[sample, length:]
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [k for k, c in CASES.items() if any(isinstance(v, tuple) for v in c.inputs)])
def test_adds_up(name: str) -> None:
    case = CASES[name]
    feeds = case.feeds(seed=50)
    if any(isinstance(v, Rows) and v.axis for v in case.inputs):
        pytest.skip("its batch is on another axis")
    floats = [k for k, v in feeds.items() if v.dtype == np.float32 and v.size]
    references = {k: v for k, v in case.feeds().items() if k in floats}
    target = irshap.Target("sum[0]", wrt=", ".join(floats))
    compiled = irshap.compile(case.model(), references, target=target)
    explanation = compiled.explainer()(feeds)
    found = explanation.values.values() if isinstance(explanation.values, dict) else [explanation.values]
    largest = max(float(np.abs(v).max()) for v in found)
    assert largest > 1e-2
    assert np.abs(explanation.completeness_error).max() < 2e-5 * largest


def refusal(kind: str, *weights: Array, domain: str = "com.microsoft", **attributes: Any) -> str:
    """Why a node of this kind isn't lifted."""
    names = ["x", *(f"w{i}" for i in range(len(weights)))]
    shape = ["N", 5, 16] if kind != "FusedConv" else ["N", 4, 5, 5]
    graph = helper.make_graph(
        [helper.make_node(kind, names, ["y"], domain=domain, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, shape)],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    (op,) = (n.op for n in lift(model).nodes if isinstance(n.op, Opaque))
    assert op.kind == kind
    with pytest.raises(NotDifferentiable, match=f"y .{kind}.: .*"):
        irshap.compile(model, np.zeros((1, *shape[1:]), np.float32), target="sum[0]")
    return op.why


W, B = draw(0, 16, 48), draw(1, 48)


def test_what_is_not_lifted_says_why() -> None:
    assert "do_rotary" in refusal("Attention", W, B, num_heads=4, do_rotary=1)
    assert "doesn't make 5 heads" in refusal("Attention", W, B, num_heads=5)
    assert "activation 'Foo'" in refusal("FusedConv", draw(0, 4, 4, 1, 1), activation="Foo")
    assert "is_packed_batching" in refusal(
        "RotaryEmbedding", np.array([0]), draw(0, 9, 2), draw(1, 9, 2), is_packed_batching=1
    )
    assert "packed for one device" in refusal(
        "MatMulNBits",
        np.zeros((16, 1, 8), np.uint8),
        draw(0, 16, 1),
        K=16,
        N=16,
        block_size=16,
        weight_prepacked=1,
    )
    assert refusal("Inverse") == "irshap has no rule for this op"
    assert "ORT_ENABLE_EXTENDED" in refusal("ReorderInput", domain="com.microsoft.nchwc")


def numbers(kind: str, feeds: dict[str, Array], outputs: int = 1, **attributes: Any) -> list[Array]:
    """What the lifted node gives, of a kind that ONNX Runtime has on other devices only."""
    graph = helper.make_graph(
        [helper.make_node(kind, list(feeds), [f"y{i}" for i in range(outputs)], "op", None, "com.microsoft")],
        "g",
        [helper.make_tensor_value_info(k, 1, v.shape) for k, v in feeds.items()],
        [
            helper.make_tensor_value_info(f"y{i}", 1, list("abcd")[: len(feeds["x"].shape)])
            for i in range(outputs)
        ],
    )
    graph.node[0].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    lifted = lift(model, batch="keep")
    assert all(n.op.modeled for n in lifted.nodes)
    return Session(lower(lifted)).run(feeds)


def close(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def group_norm(x: Array, groups: int, epsilon: float) -> Array:
    """Of [n, h, w, channels]."""
    parts = x.reshape(x.shape[0], -1, groups, x.shape[3] // groups)
    mean = parts.mean((1, 3), keepdims=True)
    return ((parts - mean) / np.sqrt(parts.var((1, 3), keepdims=True) + epsilon)).reshape(x.shape)


def test_group_norms() -> None:
    x, scale, shift = draw(0, 2, 3, 4, 6), draw(1, 6), draw(2, 6)
    given = {"x": x, "scale": scale, "shift": shift}
    (found,) = numbers("GroupNorm", given, groups=2, activation=0, epsilon=1e-2)
    wanted = group_norm(x, 2, 1e-2) * scale + shift
    close(found, wanted)
    (found,) = numbers("GroupNorm", given, groups=2, activation=1, epsilon=1e-2)
    close(found, wanted / (1 + np.exp(-wanted)))
    first = {"x": np.ascontiguousarray(np.moveaxis(x, 3, 1)), "scale": scale, "shift": shift}
    (found,) = numbers("GroupNorm", first, groups=2, activation=0, epsilon=1e-2, channels_last=0)
    close(np.moveaxis(found, 1, 3), wanted)
    for skip in (draw(3, 2, 3, 4, 6), draw(3, 2, 1, 1, 6), draw(3, 2, 6)):
        more = given | {"skip": skip, "bias": draw(4, 6)}
        found, total = numbers("SkipGroupNorm", more, 2, groups=3, activation=0)
        close(total, x + (skip if skip.ndim == 4 else skip[:, None, None]) + draw(4, 6))
        close(found, group_norm(total, 3, 1e-5) * scale + shift)


def test_sums_and_gates() -> None:
    x, bias = draw(0, 2, 5, 6), draw(1, 6)
    (found,) = numbers("BiasAdd", {"x": x, "bias": bias, "skip": draw(2, 2, 5, 6)})
    close(found, x + bias + draw(2, 2, 5, 6))
    left, right = np.split(x + bias, 2, axis=2)
    (found,) = numbers("BiasSplitGelu", {"x": x, "bias": bias})
    (gelu,) = numbers("Gelu", {"x": np.ascontiguousarray(right)})
    close(found, left * gelu)
    (found,) = numbers("GemmFastGelu", {"x": x, "w": draw(3, 6, 4), "bias": draw(4, 4)})
    (gelu,) = numbers("FastGelu", {"x": x @ draw(3, 6, 4) + draw(4, 4)})
    close(found, gelu)


@pytest.mark.parametrize("axis", [2, 3])
def test_bias_softmax(axis: int) -> None:
    x, bias = draw(0, 2, 3, 4, 5), draw(1, 2, 1, 4, 5)
    (found,) = numbers("BiasSoftmax", {"x": x, "bias": bias}, axis=axis, is_inner_broadcast=1)
    e = np.exp(x + bias)
    close(found, e / e.sum(tuple(range(axis, 4)), keepdims=True))


@pytest.mark.parametrize("kind", ["Softmax", "Relu"])
def test_a_product_with_an_activation(kind: str) -> None:
    a, b = draw(0, 2, 4, 5), draw(1, 2, 4, 3)
    feeds = {"x": a, "b": b}
    (found,) = numbers("FusedMatMulActivation", feeds, transA=1, activation=kind, activation_axis=1)
    y = np.swapaxes(a, 1, 2) @ b
    close(found, np.maximum(y, 0) if kind == "Relu" else np.exp(y) / np.exp(y).sum(1, keepdims=True))


def test_images_with_channels_last() -> None:
    x, w, added = draw(0, 2, 5, 6, 4), draw(1, 3, 4, 2, 2), draw(2, 2, 4, 5, 3)
    plain = np.moveaxis(x, 3, 1)
    text = "(float[2,4,5,6] x, float[3,4,2,2] w) => (float[2,3,4,5] y) { y = Conv(x, w) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    (y,) = Session(model).run({"x": np.ascontiguousarray(plain), "w": w})
    close(numbers("NhwcConv", {"x": x, "w": w})[0], np.moveaxis(y, 1, 3))
    feeds = {"x": x, "w": w, "b": draw(3, 3), "z": added}
    (found,) = numbers("NhwcFusedConv", feeds, activation="Relu")
    close(found, np.maximum(np.moveaxis(y, 1, 3) + draw(3, 3) + added, 0))
    (found,) = numbers("NhwcMaxPool", {"x": x}, kernel_shape=[1, 6])
    close(found, x.max(2, keepdims=True))


@pytest.mark.parametrize(
    ("a", "b", "flags"),
    [
        ((3, 2, 4, 5), (2, 4, 5, 6), (0, 1, 0, 0)),
        ((3, 2, 4, 5), (2, 4, 6, 5), (0, 1, 1, 0)),
        ((2, 4, 3, 5), (5, 2, 4, 6), (0, 0, 0, 1)),
        ((3, 2, 4, 5), (6, 2, 4, 5), (0, 1, 1, 1)),
        ((5, 2, 4, 3), (6, 2, 4, 5), (1, 1, 1, 1)),
    ],
)
def test_stacks_of_matrices_that_are_turned(a: tuple[int, ...], b: tuple[int, ...], flags: Any) -> None:
    names = ("transA", "transBatchA", "transB", "transBatchB")
    feeds = {"x": draw(0, *a), "b": draw(1, *b)}
    case = Case("FusedMatMul", [a, b], dict(zip(names, flags, strict=True)))
    (wanted,) = Session(case.model()).run({"x0": feeds["x"], "x1": feeds["b"]})
    (found,) = numbers("FusedMatMul", feeds, **case.attributes)
    close(found, wanted)


def test_norms_of_queries_and_keys() -> None:
    """No kernel for the CPU takes them: as if they stood before."""
    base = CASES["GroupQueryAttention"]
    weights = draw(60, 16), draw(61, 16)
    inside = replace(base, inputs=[*base.inputs, *[None] * (14 - len(base.inputs)), *weights])
    feeds = inside.feeds()
    (found,) = Session(lower(lift(inside.model()))).run(feeds)
    for name, w in zip(("x0", "x1"), weights, strict=True):
        heads = feeds[name].reshape(2, 5, -1, 16)
        feeds[name] = (heads / np.sqrt((heads**2).mean(3, keepdims=True) + 1e-6) * w).reshape(
            feeds[name].shape
        )
    close(found, loaded(grouped(base).model()).run(feeds)[0])


def test_a_norm_in_an_opset_that_lacks_it() -> None:
    """ONNX Runtime's optimizer writes LayerNormalization into ONNX's domain whatever the opset."""
    w = "float[4] w = {1, 2, 3, 4}"
    text = f"(float[n,4] x) => (float[n,4] y) <{w}> {{ y = LayerNormalization<axis=-1>(x, w) }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 13]> g {text}')
    lowered = lower(lift(model))
    onnx.checker.check_model(lowered, full_check=True)
    x = draw(0, 3, 4)
    close(Session(lowered).run({"x": x})[0], Session(model).run({"x": x})[0])


def test_a_language_model_without_its_past() -> None:
    """Its new keys and values are outputs: they are lifted where there are no past ones."""
    case = CASES["GroupQueryAttention, empty past"]
    model = case.model()
    for value in model.graph.input:
        if value.name in ("x3", "x4"):
            value.type.tensor_type.shape.dim[2].dim_param = "past"
    references = {"x0": draw(70, 3, 5, 64)}
    target = irshap.Target("sum[-1]", output="y0", wrt="x0")
    (op,) = (n.op for n in lift(model).nodes if isinstance(n.op, Opaque))
    assert "explain it without a past (dims past=0)" in op.why
    compiled = irshap.compile(irshap.Model(model, dims={"past": 0}), references, target=target)
    explanation = compiled.explainer()(case.feeds())
    assert np.abs(explanation.completeness_error).max() < 1e-5 * np.abs(explanation.values).max()
