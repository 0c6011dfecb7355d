"""References in chunks: the same attributions as the naive pipeline, whatever the chunk, or a refusal."""

from __future__ import annotations

import re
from typing import Any

import flat
import numpy as np
import onnx
import pytest
from exactness import FAMILIES, SINGLE, assert_close, attributions, case, explained
from onnx import helper

import irshap
from irshap import demo
from irshap.checks.instruments import VerifyTypes
from irshap.errors import UserError
from irshap.ir.evaluator import evaluate
from irshap.passes.references.plan import chunk_size
from irshap.pipeline.base import Context
from irshap.pipeline.manager import PassManager
from irshap.pipeline.named import PIPELINES
from irshap.text import parse_graph

pytestmark = pytest.mark.slow


def streamed(chunk: int, **options: str) -> str:
    """`@default` with references streamed instead of folded."""
    listed = ",".join([f"chunk={chunk}", *(f"{k}={v}" for k, v in options.items())])
    return PIPELINES["default"].replace("stream{otherwise=fold}", f"stream{{{listed}}}")


@pytest.mark.parametrize(
    ("chunk", "options"),
    [(3, {}), (3, {"store": "references"}), (1, {"together": "2"}), (1, {"together": "20"})],
    ids=str,
)
@pytest.mark.parametrize("name", [*SINGLE, *(f"{family}_torchscript" for family in FAMILIES)])
def test_the_same_as_naive(name: str, chunk: int, options: dict[str, str]) -> None:
    """Chunks of 3 leave references over in some of these sets; 2 together make a loop in a loop."""
    found = attributions(explained(name, streamed(chunk, **options)).raw)
    assert_close(found, attributions(explained(name, "@naive").raw), 1e-5)


@pytest.mark.parametrize("how", [{}, {"store": "references"}, {"together": "6"}], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"target": "all", "emit": "completeness_error"},
        {"target": "top-3", "weights": np.arange(1.0, 8.0)},
        {"target": 4},
        {"rule": "reveal-cancel"},
        {"rule": "mixed", "emit": "completeness_error", "weights": np.arange(1.0, 8.0)},
    ],
    ids=str,
)
def test_every_kind_of_explanation(options: dict[str, Any], how: dict[str, str]) -> None:
    """In float64, for several samples and a number of references that no chunk divides."""
    digits = case("digits_f64")
    sample, references = digits.cut(3, 7)
    results = []
    for passes in ("@naive", streamed(3, **how)):
        compiled = flat.compile(digits.path, references, passes=passes, **options)
        results.append(evaluate(compiled.graph, sample))
    naive, chunks = results
    assert naive.keys() == chunks.keys()
    for name, expected in naive.items():
        scale = max(float(np.abs(expected).max()), 1.0)
        np.testing.assert_allclose(chunks[name], expected, rtol=0, atol=1e-12 * scale, err_msg=name)


def test_the_target_at_run_time() -> None:
    digits = case("digits")
    sample, references = digits.cut(3, 5)
    given = {**sample, "target": np.array([3, 0, 9])}
    naive, chunks = (
        irshap.compile(digits.path, references, passes=passes, target="input").explainer()(given)
        for passes in ("@naive", streamed(2))
    )
    assert_close(attributions(chunks.raw), attributions(naive.raw), 1e-5)


@pytest.mark.parametrize(
    ("count", "most", "size"),
    [(20, 4, 4), (10, 4, 2), (9, 4, 3), (7, 4, 1), (7, 3, 3), (3, 4, 3), (1, 4, 1), (5, 1, 1), (0, 4, 1)],
)
def test_chunks_divide_the_set_where_that_costs_little(count: int, most: int, size: int) -> None:
    assert chunk_size(count, most) == size


def _scan_of(model: onnx.ModelProto) -> tuple[onnx.NodeProto, onnx.GraphProto]:
    (node,) = (n for n in model.graph.node if n.op_type == "Scan")
    (body,) = (a.g for a in node.attribute if a.name == "body")
    return node, body


def test_what_the_loop_holds() -> None:
    """The adjoints of stride 1 as convolutions, whose weights are the body's own; nothing of the sample's."""
    references = case("digits").references["image"][:4]
    model = irshap.compile(demo.model_path(), references, passes=streamed(2, price=0)).model
    _, body = _scan_of(model)
    kinds = [n.op_type for n in body.node]
    assert kinds.count("Conv") == 3
    assert "ConvTranspose" not in kinds
    assert "Relu" not in kinds
    own = {t.name for t in body.initializer}
    assert all(n.input[1] in own for n in body.node if n.op_type == "Conv")
    # what the outer graph has anyway isn't written twice
    names = {t.name for t in model.graph.initializer}
    assert all(n.input[1] in names for n in body.node if n.op_type == "Gemm")
    recomputing = irshap.compile(demo.model_path(), references, passes=streamed(2, store="references")).model
    assert "Relu" in [n.op_type for n in _scan_of(recomputing)[1].node]


def test_a_chunk_for_all_needs_no_loop() -> None:
    references = case("digits").references["image"][:4]
    model = irshap.compile(demo.model_path(), references, passes=streamed(4)).model
    assert "Scan" not in [n.op_type for n in model.graph.node]


HEAD = """graph @g {decided}
%x = input{name="x"} : f32[N, 2]
%x0 = input{name="x_references", kind="references", of="x"} : f32[R, 2]
"""
TAIL = """%col = reshape{shape=[N, 1, 2]}(%x) : f32[N, 1, 2]
%row = reshape{shape=[1, R, 2]}(%c) : f32[1, R, 2]
%p = sub(%col, %row) : f32[N, R, 2]   // pair
%m = reduce_mean{axes=[1], keepdims=false}(%p) : f32[N, 2]
output "x_attributions" {role=attribution, of="x"} = %m
"""


def run(body: str, passes: str) -> Any:
    context = Context(references={"x": np.array([[1.0, 2.0], [-3.0, 0.5], [4.0, 1.0]], np.float32)})
    return PassManager.from_text(passes, [VerifyTypes()]).run(parse_graph(HEAD + body), context)


def test_an_op_that_mixes_references_is_named() -> None:
    body = f"%c = cum_sum{{axis=0}}(%x0) : f32[R, 2]   // running\n{TAIL}"
    with pytest.raises(UserError, match="sums along the batch") as caught:
        run(body, "stream{chunk=1}")
    assert "running" in str(caught.value)
    assert "fold-references" in str(caught.value)


def test_what_has_no_loop_is_folded_on_request() -> None:
    body = f"%c = cum_sum{{axis=0}}(%x0) : f32[R, 2]\n{TAIL}"
    sample = {"x": np.float32([[0.5, 1.0]])}
    found, folded = (run(body, p) for p in ("stream{chunk=1, otherwise=fold}", "fold-references"))
    assert not any(n.op.bodies for n in found.nodes)
    expected = evaluate(folded, sample)["x_attributions"]
    np.testing.assert_array_equal(evaluate(found, sample)["x_attributions"], expected)


@pytest.mark.parametrize(("largest", "count"), [(2**10, 3), (2**22, 2), (2**24, 2)])
def test_chunks_keep_the_largest_tensor_in_a_cache(largest: int, count: int) -> None:
    """Everything at once where that is small, and never fewer than two at a time."""
    text = re.sub(r"\b2\]", f"{largest // 4}]", HEAD + TAIL.replace("%c", "%x0"))
    references = {"x": np.zeros((8 if largest > 2**20 else count, largest // 4), np.float32)}
    manager = PassManager.from_text("stream")
    graph = manager.run(parse_graph(text), Context(references=references))
    assert manager.report.passes[0].statistics["chunk"] == count
    assert any(n.op.bodies for n in graph.nodes) == (largest > 2**20)


@pytest.mark.parametrize("store", ["activations", "references"])
def test_references_against_their_mean_are_refused(store: str) -> None:
    mean = "%b = reduce_mean{axes=[0], keepdims=true}(%x0) : f32[1, 2]\n"
    with pytest.raises(UserError, match="two loops"):
        run(f"{mean}%c = sub(%x0, %b) : f32[R, 2]   // centred\n{TAIL}", f"stream{{chunk=1, store={store}}}")


def test_a_mean_over_references_alone_is_known_before() -> None:
    mean = "%b = reduce_mean{axes=[0], keepdims=true}(%x0) : f32[1, 2]\n"
    body = mean + TAIL.replace("%c", "%x0") + 'output "mean" {role=base} = %b\n'
    graph = run(body, "stream{chunk=2}")
    x = np.float32([[0.5, 1.0]])
    found = evaluate(graph, {"x": x})
    np.testing.assert_allclose(found["mean"], [[2 / 3, 3.5 / 3]], rtol=1e-6)
    np.testing.assert_allclose(found["x_attributions"], x - found["mean"], rtol=1e-6)


@pytest.mark.parametrize("alone", [False, True])
def test_a_sum_over_references_as_they_come(alone: bool) -> None:
    """It reads no value of the loop's nodes, which all go together, or of which there are none."""
    mean = "%b = reduce_mean{axes=[0], keepdims=true}(%x0) : f32[1, 2]\n"
    body = mean + ("" if alone else TAIL.replace("%c", "%x0")) + 'output "mean" {role=base} = %b\n'
    found, expected = (
        evaluate(run(body, passes), {"x": np.float32([[0.5, 1.0]])})
        for passes in ("stream{chunk=1, together=3, store=references}", "fold-references")
    )
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)


def test_an_output_for_each_reference_is_refused() -> None:
    body = TAIL.replace("%c", "%x0") + 'output "rows" {role=probe} = %p\n'
    with pytest.raises(UserError, match="a row for each reference") as caught:
        run(body, "stream{chunk=1}")
    assert "rows" in str(caught.value)


def test_chunks_of_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="chunk=1"):
        run(TAIL.replace("%c", "%x0"), "stream{chunk=-1}")


def test_what_takes_too_much_room_is_refused() -> None:
    references = case("digits").references["image"]
    passes = streamed(2, limit="100000")
    with pytest.raises(UserError, match="over the limit") as caught:
        irshap.compile(demo.model_path(), references, passes=passes)
    assert "stream{limit=BYTES}" in str(caught.value)


@pytest.mark.parametrize("store", ["activations", "references"])
def test_activations_in_half_the_room(store: str) -> None:
    """Rounded to float16 as they are stored; references themselves never are."""
    digits = case("digits")
    sample, references = digits.cut(5, 6)
    exact, half = (
        irshap.compile(digits.path, references, passes=streamed(2, store=store, dtype=dtype))
        for dtype in ("same", "float16")
    )
    values = [attributions(c.explainer()(sample).raw) for c in (exact, half)]
    assert_close(values[1], values[0], 1e-3 if store == "activations" else 0.0)
    if store == "activations":
        sizes = [sum(len(t.raw_data) for t in c.model.graph.initializer) for c in (exact, half)]
        assert sizes[1] < 0.75 * sizes[0]


def test_half_keeps_the_digits_that_keep_samples_and_references_apart() -> None:
    """Rounded to float16, an odd last digit is gone: the reference would be the sample, and 0/0."""
    x, y = (helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["N", 4]) for n in "xy")
    weight = onnx.numpy_helper.from_array(np.array(2.0, np.float32), "two")
    bounds = [onnx.numpy_helper.from_array(np.array(b, np.float32), n) for n, b in (("low", 0), ("high", 6))]
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["h"]),
        helper.make_node("Clip", ["h", "low", "high"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "clipped", [x], [y], [weight, *bounds])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    rows = np.array([[0.0, 1.0, 0.5, 4.0], [0.0, -1.0, 0.5, 1.5]], np.float32)
    compiled = irshap.compile(model, rows, target=2, passes=streamed(1, dtype="float16"))
    found = compiled.explainer()(rows)
    assert np.isfinite(found.values).all()
    np.testing.assert_allclose(found.values[:, 2], 0.0)
    compiled = irshap.compile(model, rows, target=1, passes=streamed(1, dtype="float16"))
    np.testing.assert_allclose(compiled.explainer()(rows).values[:, 1], [1.0, -1.0], rtol=1e-6)


def test_activations_too_large_for_half_are_refused() -> None:
    body = "%c = mul(%x0, %k) : f32[R, 2]\n" + TAIL.replace(
        "(%c) : f32[1, R, 2]", "(%c) : f32[1, R, 2]   // large"
    )
    with pytest.raises(UserError, match="no float16") as caught:
        run("%k = constant{value=dense<f32[], [100000.0]>} : f32[]\n" + body, "stream{chunk=1,dtype=float16}")
    assert "large" in str(caught.value)


GROWING = """%k = constant{value=dense<f32[2, 2], [1.0, -2.0, 3.0, 0.5]>} : f32[2, 2]
%w = constant{value=dense<f32[2, WIDTH], SPLAT>} : f32[2, WIDTH]
%i = reshape{shape=[1, R, 2]}(%x0) : f32[1, R, 2]
%j = reshape{shape=[N, 1, 2]}(%x) : f32[N, 1, 2]
%a = mul(%i, %j) : f32[N, R, 2]   // near
%b = tanh(%a) : f32[N, R, 2]   // near
%c = mul(%b, %j) : f32[N, R, 2]   // near
%d = tanh(%c) : f32[N, R, 2]   // near
%e = mul(%d, %i) : f32[N, R, 2]   // near
%f = tanh(%e) : f32[N, R, 2]   // near
%g = reshape{shape=[N*R, 2]}(%f) : f32[N*R, 2]
%h = matmul(%g, %w) : f32[N*R, WIDTH]   // far
%l = abs(%h) : f32[N*R, WIDTH]   // far
%n = reduce_sum{axes=[1], keepdims=true}(%l) : f32[N*R, 1]
%o = mul(%g, %n) : f32[N*R, 2]
%p = reshape{shape=[N, R, 2]}(%o) : f32[N, R, 2]
%s = neg(%a) : f32[N, R, 2]   // alone
%t = add(%p, %s) : f32[N, R, 2]
%m = reduce_mean{axes=[1], keepdims=false}(%t) : f32[N, 2]
%y = reduce_sum{axes=[1], keepdims=false}(%b) : f32[N, 2]
output "x_attributions" {role=attribution, of="x"} = %m
output "small" {role=probe} = %y
"""


@pytest.mark.parametrize(("together", "outer"), [(2, False), (6, True)])
def test_small_tensors_go_through_together(together: int, outer: bool) -> None:
    """Values of `far` are as large as those of `near` for all that go together; a node alone stays there."""
    width = 2 * together
    text = GROWING.replace("SPLAT", repr([0.5] * 2 * width)).replace("WIDTH", str(width))
    references = {"x": np.random.default_rng(0).standard_normal((6, 2), dtype=np.float32)}
    graph, folded = (
        PassManager.from_text(passes, [VerifyTypes()]).run(
            parse_graph(HEAD + text), Context(references=references)
        )
        for passes in (f"stream{{chunk=1, together={together}}}", "fold-references")
    )
    (loop,) = (n for n in graph.nodes if n.op.bodies)
    where = graph if outer else loop.op.bodies[0]
    inner = next(n for n in where.nodes if n.op.bodies)
    assert (loop is inner) is outer
    kinds = [n.op.mnemonic for n in inner.op.bodies[0].nodes]
    assert "tanh" not in kinds
    assert {"matmul", "abs", "neg"} <= {*kinds}
    assert sum(n.op.mnemonic == "tanh" for n in where.nodes) == 3
    sample = {"x": np.float32([[0.5, 1.0], [-2.0, 0.25]])}
    found, expected = evaluate(graph, sample), evaluate(folded, sample)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(("weights", "looped"), [(False, True), (True, False)])
def test_what_goes_through_together_is_computed_again_unless_weights_are_more(
    weights: bool, looped: bool
) -> None:
    """Two values made of one stay in a loop of one trip, but not beside weights that are larger."""
    text = GROWING.replace("SPLAT", repr([0.5] * 24)).replace("WIDTH", "12")
    text = text.replace("reshape{shape=[1, R, 2]}(%x0)", "abs(%i0)", 1).replace(
        "%i = ",
        "%i0 = reshape{shape=[1, R, 2]}(%x0) : f32[1, R, 2]\n%i1 = relu(%i0) : f32[1, R, 2]\n%i = ",
        1,
    )
    text = text.replace("mul(%d, %i)", "mul(%d, %i1)")
    if weights:
        line = "%z{0} = constant{{value=dense<f32[1, 1, 2], [1.0, {0}.5]>}} : f32[1, 1, 2]\n"
        product = "%m{1} = mul(%m{0}, %z{1}) : f32[N, R, 2]\n"
        chain = "".join(line.format(k) for k in range(1, 8)) + "".join(
            product.format(k - 1, k) for k in range(1, 8)
        ).replace("%m0,", "%c,")
        text = text.replace("%d = tanh(%c)", chain + "%d = tanh(%m7)")
    references = {"x": np.random.default_rng(0).standard_normal((6, 2), dtype=np.float32)}
    graph, folded = (
        PassManager.from_text(passes, [VerifyTypes()]).run(
            parse_graph(HEAD + text), Context(references=references)
        )
        for passes in ("stream{chunk=1, together=6, price=1e6}", "fold-references")
    )
    (loop,) = (n for n in graph.nodes if n.op.bodies)
    assert any(n.op.bodies for n in loop.op.bodies[0].nodes) is looped
    sample = {"x": np.float32([[0.5, 1.0], [-2.0, 0.25]])}
    found, expected = evaluate(graph, sample), evaluate(folded, sample)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, err_msg=name)


LIGHT = """%k = constant{value=dense<f32[2, 2], [1.0, -2.0, 3.0, 0.5]>} : f32[2, 2]
%h0 = matmul(%x0, %k) : f32[R, 2]   // fc
%y0 = relu(%h0) : f32[R, 2]   // act
%s0 = abs(%h0) : f32[R, 2]   // act
%y = reshape{shape=[1, R, 2]}(%y0) : f32[1, R, 2]
%s = reshape{shape=[1, R, 2]}(%s0) : f32[1, R, 2]
%t = tanh(%h0) : f32[R, 2]   // heavy
%col = reshape{shape=[N, 1, 2]}(%x) : f32[N, 1, 2]
%a = add(%col, %y) : f32[N, R, 2]   // pair
%b = mul(%a, %s) : f32[N, R, 2]   // pair
%q = reshape{shape=[N*R, 2]}(%b) : f32[N*R, 2]
%w = constant{value=dense<f32[2, WIDTH], splat 0.5>} : f32[2, WIDTH]
%r = matmul(%q, %w) : f32[N*R, WIDTH]   // layer
%p = reshape{shape=[N, R, WIDTH]}(%r) : f32[N, R, WIDTH]
%u = reshape{shape=[1, R, 2]}(%t) : f32[1, R, 2]
%v = reduce_sum{axes=[2], keepdims=true}(%u) : f32[1, R, 1]
%z = mul(%p, %v) : f32[N, R, WIDTH]
%m = reduce_mean{axes=[1], keepdims=false}(%z) : f32[N, WIDTH]
output "x_attributions" {role=attribution, of="x"} = %m
"""


@pytest.mark.parametrize(
    ("price", "again", "stored"),
    [
        (0, set(), 3),
        (8, set(), 3),
        (5e3, {"relu", "abs"}, 2),
        (1e5, {"relu", "abs", "tanh", "reduce_sum"}, 1),
    ],
)
def test_what_is_dear_to_store_is_computed_again(price: float, again: set[str], stored: int) -> None:
    """relu(h), |h| and a sum of tanh(h): as they are, with h in place of the first two, or h alone."""
    text = LIGHT.replace("splat 0.5", repr([0.5] * 16)).replace("WIDTH", "8")
    graph = run(text, f"stream{{chunk=1, price={price}}}")
    (loop,) = (n for n in graph.nodes if n.op.bodies)
    kinds = {n.op.mnemonic for n in loop.op.bodies[0].nodes}
    assert kinds & {"relu", "abs", "tanh", "reduce_sum"} == again | {"reduce_sum"}
    assert loop.op.scanned == stored
    sample = {"x": np.float32([[0.5, 1.0]])}
    expected = evaluate(run(text, "fold-references"), sample)["x_attributions"]
    np.testing.assert_allclose(evaluate(graph, sample)["x_attributions"], expected, rtol=1e-6)


def test_positions_are_stored_in_32_bits() -> None:
    body = """%g = reshape{shape=[R, 1, 2]}(%x0) : f32[R, 1, 2]
%y0, %i0 = max_pool{kernel=[2], strides=[2], pads=[[0, 0]], dilations=[1]}(%g) : f32[R, 1, 1], i64[R, 1, 1]
%i = reshape{shape=[1, R, 1]}(%i0) : i64[1, R, 1]
%col = reshape{shape=[N, 1, 2]}(%x) : f32[N, 1, 2]
%b = full{value=2.0, dtype=!i64, shape=[N, R, 1]} : i64[N, R, 1]
%p = mul(%b, %i) : i64[N, R, 1]   // pair
%q = cast{to=!f32}(%p) : f32[N, R, 1]
%c = mul(%col, %q) : f32[N, R, 2]
%m = reduce_mean{axes=[1], keepdims=false}(%c) : f32[N, 2]
output "x_attributions" {role=attribution, of="x"} = %m
"""
    graph = run(body, "stream{chunk=1}")
    (loop,) = (n for n in graph.nodes if n.op.bodies)
    assert [v.dtype.value for v in loop.operands if v.dtype.value.startswith("i")] == ["i32"]
    x = np.float32([[0.5, 1.0]])
    found = evaluate(graph, {"x": x})["x_attributions"]  # the maxima stand at 1, 1 and 0
    np.testing.assert_allclose(found, x * 2 * 2 / 3, rtol=1e-6)
