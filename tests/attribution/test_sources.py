"""What is attributed and what is held: several inputs, cuts of interior tensors, tokens, weights."""

from __future__ import annotations

from typing import Any

import flat
import numpy as np
import onnx
import onnx.parser
import pytest
from places import FIXTURES
from two_world import explain
from two_world_cases import normal

import irshap
from irshap.errors import NotDifferentiable, ReferencesError, TargetError

pytestmark = pytest.mark.slow

PIPELINES = ("@naive", "@default")


def model(body: str, inputs: str, outputs: str = "float[N,2] y", **weights: Any) -> onnx.ModelProto:
    """A model from ONNX's text, with initializers in float32."""
    parsed = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> toy ({inputs}) => ({outputs}) {{ {body} }}'
    )
    for name, array in weights.items():
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(parsed)
    return parsed


def check(
    source: onnx.ModelProto,
    sample: dict[str, Any],
    references: dict[str, Any],
    *,
    sums: dict[str, tuple[str, ...]] | None = None,
    oracle: dict[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """Compiles with each pipeline and compares with the oracle; `sums` tells what makes up a name."""
    expected = explain(source, sample, references, **(oracle or {}))
    shapes = None
    for passes in PIPELINES:
        compiled = flat.compile(source, references, passes=passes, verify="types", **arguments)
        found = compiled.explainer()(sample)
        for name, parts in (sums or {n: (n,) for n in expected.values}).items():
            values = found.raw[f"{name}_attributions"]
            wanted: Any = 0.0
            for part in parts:
                value = expected.values[part]
                behind = tuple(range(values.ndim, value.ndim))
                wanted = wanted + (value.sum(axis=behind) if sums else value)
            np.testing.assert_allclose(values, wanted.reshape(values.shape), atol=1e-4 * np.abs(wanted).max())
        np.testing.assert_allclose(found.base_values, expected.base_value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)
        shapes = {k: v.shape for k, v in found.raw.items()}
    return shapes


# Several inputs

TWO = """
    h = MatMul (a, w)
    g = Mul (h, b)
    s = Sigmoid (g)
    y = MatMul (s, v)
    z = Relu (g)
"""
TWO_INPUTS = "float[N,3] a, float[N,4] b"
TWO_OUTPUTS = "float[N,2] y, float[N,4] z"


def two() -> onnx.ModelProto:
    return model(TWO, TWO_INPUTS, TWO_OUTPUTS, w=normal(1, 3, 4), v=normal(2, 4, 2))


def rows(seed: int, count: int) -> dict[str, Any]:
    return {"a": normal(seed, count, 3).astype("f4"), "b": normal(seed + 50, count, 4).astype("f4")}


@pytest.mark.parametrize("output", ["y", "z"])
@pytest.mark.parametrize("target", [None, 1])
def test_several_inputs_outputs_and_weights(output: str, target: int | None) -> None:
    weights = [3.0, 1.0, 0.0, 2.0]
    check(
        two(),
        rows(1, 3),
        rows(9, 4),
        oracle={"output": output, "target": target, "weights": np.array(weights)},
        output=output,
        target="argmax" if target is None else target,
        weights=weights,
    )


@pytest.mark.parametrize("held", ["a", "b"])
def test_a_held_input_takes_no_references(held: str) -> None:
    references = {n: v for n, v in rows(9, 4).items() if n != held}
    shapes = check(two(), rows(1, 3), references, oracle={"context": {held}}, context_inputs=[held])
    assert f"{held}_attributions" not in shapes
    with pytest.raises(ReferencesError, match=f"input '{held}' takes no references"):
        flat.compile(two(), rows(9, 4), context_inputs=[held])


def test_a_held_input_of_integers_and_one_without_samples() -> None:
    body = """
        keep = Equal (flags, one)
        h = Where (keep, x, shift)
        y = MatMul (h, w)
    """
    source = model(body, "float[N,3] x, int64[N,3] flags, float[3] shift", w=normal(1, 3, 2), one=np.int64(1))
    with pytest.raises(TargetError, match=r"'shift' .* doesn't count samples.*context=shift"):
        irshap.compile(source, {"x": normal(1, 2, 3)})
    sample = {"x": normal(1, 2, 3).astype("f4"), "flags": np.int64([[1, 0, 1], [0, 0, 1]])}
    compiled = flat.compile(source, {"x": normal(2, 4, 3)}, context_inputs=["shift"])
    found = compiled.explainer()(sample | {"shift": normal(3, 3).astype("f4")})
    assert not found.values[sample["flags"] == 0].any()
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)
    with pytest.raises(ReferencesError, match="input 'flags' takes no references"):
        flat.compile(source, {"x": normal(2, 4, 3), "flags": sample["flags"]}, context_inputs=["shift"])


# Interior tensors

RESIDUAL = """
    h = MatMul (x, w)
    k = Identity (h)
    a = Relu (k)
    b = MatMul (a, u)
    c = Add (b, h)
    d = Tanh (c)
    y = MatMul (d, v)
"""


def residual() -> onnx.ModelProto:
    return model(RESIDUAL, "float[N,3] x", w=normal(1, 3, 4), u=normal(2, 4, 4), v=normal(3, 4, 2))


@pytest.mark.parametrize("wrt", ["h", "c", "d", "y", "b,h", "a,h", "h,a"])
def test_a_cut(wrt: str) -> None:
    names = wrt.split(",")
    x, r = {"x": normal(5, 3, 3).astype("f4")}, {"x": normal(6, 4, 3).astype("f4")}
    check(residual(), x, r, oracle={"at": names}, wrt=wrt)


@pytest.mark.parametrize(("wrt", "node"), [("a", "c"), ("b", "c")])
def test_a_bypass_is_refused_and_named(wrt: str, node: str) -> None:
    references = {"x": normal(6, 4, 3).astype("f4")}
    with pytest.raises(
        NotDifferentiable, match=rf"^{node} \(add\).*depends on x also past {wrt}, .*=residual"
    ):
        flat.compile(residual(), references, wrt=wrt)


def test_a_bypass_may_show_in_the_completeness_error() -> None:
    references, sample = {"x": normal(6, 4, 3).astype("f4")}, {"x": normal(5, 3, 3).astype("f4")}
    errors = []
    for passes in PIPELINES:
        compiled = flat.compile(residual(), references, wrt="a", on_incomplete="residual", passes=passes)
        found = compiled.explainer()(sample)
        gap = found.target_values - found.base_values - found.values.sum(1)
        np.testing.assert_allclose(found.raw["completeness_error"], gap, atol=1e-5)
        assert np.abs(gap).min() > 1e-3
        metadata = {p.key: p.value for p in compiled.model.metadata_props}
        assert '"where": "c (add)"' in metadata["irshap.incomplete"]
        errors.append(gap)
    np.testing.assert_allclose(errors[0], errors[1], atol=1e-5)


def test_a_held_interior_tensor() -> None:
    """With the skip held, the rest is what a model with the sample's skip as an input gives."""
    sample, references = {"x": normal(5, 3, 3).astype("f4")}, {"x": normal(6, 4, 3).astype("f4")}
    split = model(
        "h = MatMul (x, w) a = Relu (h) b = MatMul (a, u) c = Add (b, k) d = Tanh (c) y = MatMul (d, v)",
        "float[N,3] x, float[N,4] k",
        w=normal(1, 3, 4),
        u=normal(2, 4, 4),
        v=normal(3, 4, 2),
    )
    skip = model(
        "h = MatMul (x, w) k = Identity (h) j = Neg (k) l = Neg (j) a = Relu (h) b = MatMul (a, u) "
        "c = Add (b, l) d = Tanh (c) y = MatMul (d, v)",
        "float[N,3] x",
        w=normal(1, 3, 4),
        u=normal(2, 4, 4),
        v=normal(3, 4, 2),
    )
    k = sample["x"] @ normal(1, 3, 4).astype("f4")
    expected = flat.compile(split, references, context_inputs=["k"]).explainer()(sample | {"k": k})
    for passes in PIPELINES:
        found = flat.compile(skip, references, context_inputs=["j"], passes=passes).explainer()(sample)
        np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
        np.testing.assert_allclose(found.base_values, expected.base_values, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"wrt": "q"}, "no tensor 'q'"),
        ({"wrt": "h,q"}, "no tensor 'q'"),
        ({"wrt": "h,k"}, "'k' and 'h' are one tensor"),
        ({"wrt": "w"}, "'w' is the same for every sample"),
        ({"wrt": "h", "context_inputs": ["x"]}, "'h' is the same for every sample"),
        ({"context_inputs": ["x"]}, "depends on no float input"),
        ({"context_inputs": ["nothing"]}, "no tensor 'nothing'"),
        ({"wrt": "x", "context_inputs": ["h"]}, "doesn't depend on tensor 'x'"),
    ],
)
def test_what_cannot_be_attributed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        flat.compile(residual(), {"x": normal(6, 4, 3)}, **arguments)


@pytest.mark.parametrize("wrt", ["t", "m", "q"])
@pytest.mark.parametrize("target", ["argmax", "all"])
def test_interior_tensors_with_the_samples_elsewhere(wrt: str, target: str) -> None:
    """Samples on another axis, or merged with positions: attributions have them first."""
    body = """
        t = Transpose <perm = [1, 0, 2]> (x)
        s = Sigmoid (t)
        p = Transpose <perm = [1, 0, 2]> (s)
        m = Reshape (p, merged)
        q = Tanh (m)
        k = MatMul (q, w)
        f = Reshape (k, apart)
        y = ReduceMean <axes = [1], keepdims = 0> (f)
    """
    source = model(
        body, "float[N,4,3] x", w=normal(1, 3, 2), merged=np.int64([-1, 3]), apart=np.int64([-1, 4, 2])
    )
    x, r = normal(2, 3, 4, 3).astype("f4"), normal(3, 5, 4, 3).astype("f4")
    plain = irshap.compile(source, r, target=target).explainer()(x)
    for passes in PIPELINES:
        found = flat.compile(source, r, wrt=wrt, target=target, passes=passes, verify="types").explainer()(x)
        assert found.values.shape == (plain.values.shape[:1] if target == "argmax" else (3, 2)) + (4, 3)
        # the chain from x to each of these is elementwise, so that attributions are the same
        np.testing.assert_allclose(found.values, plain.values, atol=1e-6)
    gradient = flat.compile(source, wrt=wrt, method="gradient", target=target).explainer()(x)
    assert gradient.values.shape == found.values.shape


@pytest.mark.parametrize("target", ["argmax", "top-2"])
def test_a_held_tensor_with_the_samples_elsewhere(target: str) -> None:
    """m holds 4 rows for each sample; held, its rows stay with their sample."""
    body = """
        m = Reshape (x, merged)
        g = Sigmoid (m)
        h = Tanh (m)
        k = Mul (g, h)
        f = Reshape (k, apart)
        y = MatMul (f, w)
    """
    source = model(
        body, "float[N,4,3] x", w=normal(1, 12, 2), merged=np.int64([-1, 3]), apart=np.int64([-1, 12])
    )
    x, r = normal(2, 3, 4, 3).astype("f4"), normal(3, 5, 4, 3).astype("f4")
    for passes in PIPELINES:
        compiled = flat.compile(source, r, context_inputs=["g"], target=target, passes=passes, verify="types")
        found = compiled.explainer()(x)
        np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)
        gate = 1 / (1 + np.exp(-x))
        index = found.target_index.reshape(3, -1)
        weights = normal(1, 12, 2).astype("f4").T[index].reshape(3, -1, 4, 3)
        parts = (gate * (np.tanh(x) - np.tanh(r).mean(0)))[:, None] * weights
        np.testing.assert_allclose(found.values.reshape(parts.shape), parts, atol=1e-5)


# Tokens


def text(exporter: str) -> tuple[onnx.ModelProto, Any, str]:
    data = np.load(FIXTURES / "families" / "text.npz")
    source = onnx.load(FIXTURES / "families" / f"text_{exporter}.onnx")
    return source, data, str(data[f"embedded_name.{exporter}"])


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo", "batch1"])
def test_tokens_are_attributed_without_being_asked(exporter: str) -> None:
    source, data, embedded = text(exporter)
    tokens, references = data["inputs.tokens"], data["references.tokens"]
    shapes = check(
        source,
        {"tokens": tokens},
        {"tokens": references},
        sums={"tokens": (embedded,)},
        oracle={"at": [embedded]},
    )
    assert shapes["tokens_attributions"] == tokens.shape
    asked = flat.compile(source, references, wrt="tokens").explainer()(tokens)
    whole = flat.compile(source, references, wrt=embedded).explainer()(tokens)
    assert whole.values.shape == (*tokens.shape, 16)
    np.testing.assert_allclose(asked.values, whole.values.sum(-1), atol=1e-5)
    np.testing.assert_array_equal(asked.data, tokens)
    several = irshap.compile(source, references, target="top-2").explainer()(tokens)
    assert several.values.shape == (len(tokens), 2, tokens.shape[1])
    np.testing.assert_allclose(several.values[:, 0], asked.values, atol=1e-5)
    np.testing.assert_allclose(several.completeness_error, 0, atol=1e-4)


def test_tokens_have_no_gradient() -> None:
    source, data, embedded = text("dynamo")
    with pytest.raises(TargetError, match=f"'tokens' is integer.*wrt={embedded}"):
        irshap.compile(source, method="gradient")
    found = flat.compile(source, method="gradient", wrt=embedded).explainer()(data["inputs.tokens"])
    scale = np.abs(data["gradients.embedded"]).max()
    np.testing.assert_allclose(found.values, data["gradients.embedded"], atol=1e-5 * scale)


MASKED = """
    e = Gather (table, ids)
    zero = Constant <value = int64 {0}> ()
    pad = Equal (ids, zero)
    p3 = Unsqueeze (pad, last)
    low = Constant <value = float {0}> ()
    kept = Where (p3, low, e)
    s = Tanh (kept)
    f = ReduceSum <keepdims = 0> (s, middle)
    y = MatMul (f, w)
"""


def masked() -> onnx.ModelProto:
    return model(
        MASKED,
        "int64[N,5] ids",
        table=normal(1, 7, 3),
        w=normal(2, 3, 2),
        last=np.int64([-1]),
        middle=np.int64([1]),
    )


def test_a_mask_from_the_same_ids_is_refused_until_held() -> None:
    ids, references = (
        np.int64([[1, 2, 0, 0, 3], [4, 0, 5, 6, 1]]),
        np.int64([[3, 3, 3, 0, 0], [1, 5, 6, 2, 4]]),
    )
    with pytest.raises(
        NotDifferentiable, match=r"^pad \(equal\): .*depends on ids also past e,.*context=pad"
    ):
        irshap.compile(masked(), references, target=irshap.Target(context="none"))
    table, w = normal(1, 7, 3).astype("f4"), normal(2, 3, 2).astype("f4")
    for passes in PIPELINES:
        found = flat.compile(masked(), references, context_inputs=["pad"], passes=passes).explainer()(ids)
        change = np.tanh(table[ids])[:, None] - np.tanh(table[references])[None]
        change = change * (ids != 0)[:, None, :, None]
        expected = np.einsum("nrse,ne->ns", change, w.T[found.target_index]) / 2
        np.testing.assert_allclose(found.values, expected, atol=1e-5)
        np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)
        unasked = flat.compile(masked(), references, passes=passes).explainer()(ids)
        np.testing.assert_allclose(unasked.values, found.values, rtol=1e-6, atol=1e-7)
        open_ = {"context_inputs": ["none"], "on_incomplete": "residual"}
        loose = flat.compile(masked(), references, **open_, passes=passes).explainer()(ids)
        gap = loose.target_values - loose.base_values - loose.values.sum(1)
        np.testing.assert_allclose(loose.raw["completeness_error"], gap, atol=1e-5)
        assert np.abs(gap).max() > 1e-3


def test_an_integer_mask_of_its_own_is_held() -> None:
    body = """
        e = Gather (table, ids)
        m = Cast <to = 1> (mask)
        m3 = Unsqueeze (m, last)
        k = Mul (e, m3)
        f = ReduceSum <keepdims = 0> (k, middle)
        y = MatMul (f, w)
    """
    source = model(
        body,
        "int64[N,5] ids, int64[N,5] mask",
        table=normal(1, 7, 3),
        w=normal(2, 3, 2),
        last=np.int64([-1]),
        middle=np.int64([1]),
    )
    ids, mask = np.int64([[1, 2, 0, 0, 3]]), np.int64([[1, 1, 0, 0, 1]])
    found = irshap.compile(source, np.int64([[3, 4, 5, 6, 0]])).explainer()(ids=ids, mask=mask)
    assert set(found.raw) == {"y", "ids_attributions", "base_values", "target_index"}
    assert not found.values[mask == 0].any()
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)


def test_several_lookups_of_one_input_add_up() -> None:
    """A factorization machine: a weight and a vector for each id, ids shifted by field and cast."""
    body = """
        wide = Cast <to = 7> (ids)
        shifted = Add (wide, offsets)
        one = Gather (bias, shifted)
        vec = Gather (table, shifted)
        first = ReduceSum <keepdims = 0> (one, middle)
        total = ReduceSum <keepdims = 0> (vec, middle)
        square = Mul (total, total)
        second = MatMul (square, w)
        y = Add (first, second)
    """
    source = model(
        body,
        "int32[N,3] ids",
        bias=normal(1, 12, 2),
        table=normal(2, 12, 4),
        w=normal(3, 4, 2),
        offsets=np.int64([0, 4, 8]),
        middle=np.int64([1]),
    )
    ids, references = np.int32([[1, 0, 3], [2, 2, 0]]), np.int32([[0, 1, 2], [3, 3, 3], [1, 0, 1]])
    shapes = check(
        source, {"ids": ids}, {"ids": references}, sums={"ids": ("one", "vec")}, oracle={"at": ["one", "vec"]}
    )
    assert shapes["ids_attributions"] == (2, 3)


def test_integers_that_are_cast_are_attributed_where_nothing_else_is() -> None:
    source = model("f = Cast <to = 1> (x) h = Tanh (f) y = MatMul (h, w)", "uint8[N,3] x", w=normal(1, 3, 2))
    x, r = np.uint8([[1, 0, 2], [3, 1, 0]]), np.uint8([[0, 0, 0], [1, 2, 1]])
    check(source, {"x": x}, {"x": r}, sums={"x": ("f",)}, oracle={"at": ["f"]})


def test_tokens_flattened_before_the_lookup() -> None:
    body = """
        flat = Reshape (ids, minus)
        e = Gather (table, flat)
        t = Tanh (e)
        back = Reshape (t, apart)
        y = MatMul (back, w)
    """
    source = model(
        body,
        "int64[N,3] ids",
        table=normal(1, 6, 2),
        w=normal(2, 6, 2),
        minus=np.int64([-1]),
        apart=np.int64([-1, 6]),
    )
    ids, references = np.int64([[1, 0, 3], [2, 2, 0]]), np.int64([[0, 1, 2], [5, 4, 3], [1, 0, 1]])
    for passes in PIPELINES:
        found = irshap.compile(source, references, passes=passes).explainer()(ids)
        table, w = normal(1, 6, 2).astype("f4"), normal(2, 6, 2).astype("f4")
        change = np.tanh(table[ids]) - np.tanh(table[references]).mean(0)
        expected = np.einsum("nse,nse->ns", change, w.T[found.target_index].reshape(2, 3, 2))
        np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_references_of_an_input_that_nothing_depends_on_are_left_aside() -> None:
    source = model(
        "y = MatMul (x, w) z = Neg (k)",
        "float[N,3] x, float[N,2] k",
        "float[N,2] y, float[N,2] z",
        w=normal(1, 3, 2),
    )
    references = {"x": normal(2, 4, 3).astype("f4"), "k": normal(3, 4, 2).astype("f4")}
    sample = {"x": normal(4, 2, 3).astype("f4"), "k": normal(5, 2, 2).astype("f4")}
    found = irshap.compile(source, references).explainer()(sample)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)


def test_a_reshape_to_the_same_shape_is_the_same_tensor() -> None:
    """Only after the rewrites both names are seen to mean one tensor; counted twice it would not sum."""
    body = "h = MatMul (x, w) k = Reshape (h, same) y = Tanh (k)"
    source = model(body, "float[N,3] x", w=normal(1, 3, 4), same=np.int64([-1, 4]))
    with pytest.raises(TargetError, match="'k' and 'h' are one tensor"):
        flat.compile(source, {"x": normal(6, 4, 3)}, wrt="h,k")


def test_floats_that_are_token_ids_are_attributed_at_their_lookup() -> None:
    """Keras passes ids as floats, and its embedding casts them."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,3] x) => (float[N,2] y)
        <float[4,2] table = {1,2,3,-4,5,6,-7,8}, int64[1] axis = {1}> {
        i = Cast<to=6>(x) e = Gather(table, i) t = Tanh(e) y = ReduceSum<keepdims=0>(t, axis) }"""
    )
    references, x = np.array([[0, 1, 2]], "f"), np.array([[3, 1, 0], [2, 2, 2]], "f")
    found = irshap.compile(model, references, target="1").explainer()(x)
    assert found.values.shape == (2, 3)
    table = np.tanh(np.array([2, -4, 6, 8]))
    np.testing.assert_allclose(found.values, table[x.astype(int)] - table[[0, 1, 2]], rtol=1e-5, atol=1e-6)
