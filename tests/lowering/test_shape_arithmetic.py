"""Shape arithmetic of any kind and type is worked out while lifting: nothing of it is left in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session
from irshap.ops.program import Constant, Input

INITIALIZERS = (
    "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] m1 = {-1}, "
    "int64[2] i01 = {0, 1}, int64[2] i12 = {1, 2}, int64[3] ones = {1, 1, 1}, int64 zero = {0}, int64 one = "
    "{1}, "
    "int64 two = {2}, int32[1] j0 = {0}, int32[1] j1 = {1}, int32[1] j3 = {3}, float[1] half = {0.5}, "
    "float[1] twice = {2.0}, int32[1] jm1 = {-1}"
)


def model(shape: str, body: str, opset: int = 18) -> onnx.ModelProto:
    result = ",".join("abcd"[: shape.count(",") + 1]) if "Resize" in body else "a,b"
    signature = f"(float[{shape}] x) => (float[{result}] y)"
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> g {signature} <{INITIALIZERS}> {{ {body} }}'
    )


def check(made: onnx.ModelProto, *shapes: tuple[int, ...], left: frozenset[str] = frozenset()) -> None:
    """Nothing but moves of x is left, and on these shapes the lifted model gives what the original gives."""
    graph = lift(made)
    kinds = {n.op.mnemonic for n in graph.nodes if not isinstance(n.op, Constant | Input)}
    assert kinds <= {"reshape", "slice", "transpose", "expand", "tile", "resize"} | left, kinds
    before, after = Session(made), Session(lower(graph))
    for shape in shapes:
        x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        for a, b in zip(before.run({"x": x}), after.run({"x": x}), strict=True):
            np.testing.assert_array_equal(a, b)


FLATTENED = {
    "cast": "c = Cast<to=6>(s) n = Slice(c, i0, i1) w = Concat<axis=0>(n, jm1) v = Cast<to=7>(w)",
    "through float": "c = Cast<to=1>(s) n = Slice(c, i0, i1) d = Cast<to=7>(n) v = Concat<axis=0>(d, m1)",
    "through double": "c = Cast<to=11>(s) n = Gather(c, i0) d = Cast<to=6>(n) e = Cast<to=7>(d) v = "
    "Concat<axis=0>(e, m1)",
    "gathered": "n = Gather(s, i0) v = Concat<axis=0>(n, m1)",
    "scalar": "n = Gather(s, zero) u = Unsqueeze(n, i0) v = Concat<axis=0>(u, m1)",
    "gathered nd": "r = Reshape(i0, ii) n = GatherND(s, r) v = Concat<axis=0>(n, m1)",
    "squeezed": "n = Slice(s, i0, i1) q = Squeeze(n, i0) u = Unsqueeze(q, i0) v = Concat<axis=0>(u, m1)",
    "split": "a, b, c = Split<axis=0>(s, ones) p = Mul(b, c) v = Concat<axis=0>(a, p)",
    "product": "n = Slice(s, i0, i1) t = Slice(s, i1, i3) p = ReduceProd(t, i0) v = Concat<axis=0>(n, p)",
    "product of all": "n = Slice(s, i0, i1) t = Slice(s, i1, i3) p = ReduceProd<keepdims=0>(t) u = "
    "Unsqueeze(p, i0) v = Concat<axis=0>(n, u)",
    "product of a matrix": "r = Reshape(s, ij) p = ReduceProd<keepdims=0>(r, i1) n = Gather(s, i0) q = "
    "Div(p, n) v = Concat<axis=0>(n, q)",
    "size": "n = Gather(s, i0) z = Size(x) u = Unsqueeze(z, i0) q = Div(u, n) v = Concat<axis=0>(n, q)",
    "scattered": "z = ConstantOfShape<value = int64[1] {-1}>(i2) n = Gather(s, i0) r = Reshape(i0, ii) v = "
    "ScatterND(z, r, n)",
    "scattered elements": "n = Gather(s, i0) z = Concat<axis=0>(m1, m1) v = ScatterElements<axis=0>(z, i0, "
    "n)",
    "largest": "n = Slice(s, i0, i1) k = ReduceMax(n, i0) v = Concat<axis=0>(k, m1)",
    "summed up": "t = Slice(s, i0, i1) z = Concat<axis=0>(t, i0) c = CumSum(z, zero) d = Gather(c, i1) v = "
    "Concat<axis=0>(d, m1)",
    "where": "n = Gather(s, i0) t = Concat<axis=0>(n, m1) e = Equal(t, i0) o = ConstantOfShape<value = "
    "int64[1] {1}>(i2) v = Where(e, o, t)",
    "compared": "n = Gather(s, i0) g = Greater(n, i0) c = Cast<to=7>(g) p = Mul(n, c) v = Concat<axis=0>(p, "
    "m1)",
    "expanded": "n = Gather(s, i0) e = Expand(n, i2) f = Div(e, n) w = Mul(f, m1) a = Slice(w, i0, i1) v = "
    "Concat<axis=0>(n, a)",
    "doubled and halved": "n = Gather(s, i0) c = Cast<to=1>(n) d = Mul(c, twice) e = Mul(d, half) f = "
    "Floor(e) k = Cast<to=7>(f) v = Concat<axis=0>(k, m1)",
    "non-zero": "e = ConstantOfShape<value = int64[1] {1}>(i3) z = NonZero(e) q = Squeeze(z, i0) g = "
    "Gather(s, q) n = Slice(g, i0, i1) v = Concat<axis=0>(n, m1)",
    "range": "r = Range(zero, two, one) g = Gather(s, r) n = Slice(g, i0, i1) v = Concat<axis=0>(n, m1)",
    "mod": "n = Gather(s, i0) t = Mul(n, i2) o = Mod(t, i2) p = Add(n, o) v = Concat<axis=0>(p, m1)",
    "beside an unknown": "n = Gather(s, i0) k = ReduceMax<keepdims=0>(x) c = Cast<to=7>(k) u = Unsqueeze(c, "
    "i0) "
    "t = Concat<axis=0>(n, u) a = Slice(t, i0, i1) v = Concat<axis=0>(a, m1)",
}


@pytest.mark.parametrize("body", FLATTENED.values(), ids=list(FLATTENED))
def test_a_flatten_computed_in_any_way(body: str) -> None:
    made = model(
        "n,4,3",
        f"s = Shape(x) ii = Constant<value = int64[2] {{1, 1}}>() "
        f"ij = Constant<value = int64[2] {{1, 3}}>() {body} y = Reshape(x, v)",
    )
    check(made, (2, 4, 3), (5, 4, 3))
    assert str(lift(made).outputs[0].value.type) == "f32[N, 12]"


def test_one_unknown_dimension_follows_from_the_others() -> None:
    body = (
        "s = Shape(x) n = Gather(s, i0) k = ReduceMax<keepdims=0>(x) c = Cast<to=7>(k) u = Unsqueeze(c, i0) "
        "z = Mul(u, i0) t = Constant<value = int64[1] {12}>() w = Add(z, t) v = Concat<axis=0>(n, w) y = "
        "Reshape(x, v)"
    )
    made = model("n,4,3", body)
    assert str(lift(made).outputs[0].value.type) == "f32[N, 12]"
    check(made, (2, 4, 3))


HALVED = {
    "integers": "d = Div(h, i2)",
    "floats": "c = Cast<to=1>(h) e = Mul(c, half) f = Floor(e) d = Cast<to=7>(f)",
    "a quotient": "c = Cast<to=1>(h) e = Div(c, twice) f = Floor(e) d = Cast<to=7>(f)",
    "truncated": "c = Cast<to=1>(h) e = Div(c, twice) d = Cast<to=7>(e)",
    "a third": "c = Cast<to=1>(h) t = Constant<value = float[1] {3}>() e = Div(c, t) d = Cast<to=7>(e)",
    "rounded up": "c = Cast<to=1>(h) e = Div(c, twice) f = Ceil(e) d = Cast<to=7>(f)",
    "at most": "t = Constant<value = int64[1] {5}>() d = Min(h, t)",
    "less a remainder": "r = Mod(h, i3) d = Sub(h, r)",
}


@pytest.mark.parametrize("body", HALVED.values(), ids=list(HALVED))
def test_part_of_an_open_axis(body: str) -> None:
    check(
        model("n,h", f"s = Shape(x) h = Gather(s, i1) {body} y = Slice(x, i0, d, i1)"), (2, 7), (3, 4), (1, 3)
    )


def test_scales_of_a_resize_that_are_quotients_of_sizes() -> None:
    body = (
        "s = Shape(x) c = Cast<to=1>(s) t = Slice(s, i2, i4) d = Mul(t, i2) a = Slice(s, i0, i2) "
        "w = Concat<axis=0>(a, d) f = Cast<to=1>(w) q = Div(f, c) r = Constant<value = float[1] {0}>() "
        'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", '
        'nearest_mode="floor">(x, r, q)'
    )
    made = model("n,2,h,w", f"i4 = Constant<value = int64[1] {{4}}>() {body}")
    check(made, (2, 2, 3, 5), left=frozenset({"gather"}))


def test_rounding_that_could_tell_is_left_to_the_runtime() -> None:
    """3 / float32(0.3) rounds up to 10, which no exact arithmetic gives."""
    body = (
        "c = Cast<to=1>(h) t = Constant<value = float[1] {0.3}>() e = Div(c, t) f = Floor(e) "
        "d = Cast<to=7>(f)"
    )
    made = model("n,h", f"s = Shape(x) h = Gather(s, i1) {body} y = Slice(x, i0, d, i1)")
    assert any(n.op.mnemonic == "opaque" for n in lift(made).nodes)


def test_numbers_of_any_degree_are_left_to_the_runtime() -> None:
    """(h + 1) to the power of 2 to the power of 40 has more terms than any memory holds."""
    squared = " ".join(f"a{i + 1} = Mul(a{i}, a{i})" for i in range(40))
    large = " ".join(f"b{i + 1} = Mul(b{i}, b{i})" for i in range(40))
    body = f"s = Shape(x) h = Gather(s, i1) a0 = Add(h, i1) {squared} b0 = Max(h, i3) {large} "
    graph = lift(model("n,h", f"{body} c = Min(a40, b40) y = Slice(x, i0, c, i1)"))
    assert any(n.op.mnemonic == "opaque" for n in graph.nodes)


@pytest.mark.parametrize("number", ["{-inf}", "{nan}", "{-3.4028235e38}"])
def test_small_masks_of_what_is_known_and_what_is_not(number: str) -> None:
    """A masked fill of a small tensor: its condition isn't known, and infinity is no number."""
    text = (
        f"(bool[1,8] m, float[1,8] x) => (float[1,8] y) <float low = {number}, float zero = {{0}}> "
        "{ f = Where(m, low, zero) g = Where(m, low, low) h = Where(m, x, low) a = Add(f, g) y = Add(a, h) }"
    )
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    assert all(n.op.modeled for n in lift(made, batch="keep").nodes)


@pytest.mark.parametrize("dtype", [1, 6])
def test_positions_of_an_open_axis_in_any_type(dtype: int) -> None:
    body = (
        f"s = Shape(x) n = Gather(s, one) t = Cast<to={dtype}>(n) a = Cast<to={dtype}>(zero) b = "
        f"Cast<to={dtype}>(one) "
        "p = Range(a, t, b) c = Cast<to=1>(p) y = Mul(x, c)"
    )
    check(model("n,t", body), (2, 5), (1, 3), left=frozenset({"arange", "cast", "mul"}))


def test_positions_written_as_places_that_are_not_zero() -> None:
    body = (
        "s = Shape(x) t = Gather(s, i1) o = ConstantOfShape<value = int64[1] {1}>(t) z = NonZero(o) "
        "p = Squeeze(z, i0) c = Cast<to=1>(p) y = Mul(x, c)"
    )
    check(model("n,t", body), (2, 5), (1, 3), left=frozenset({"arange", "cast", "mul"}))


def test_the_state_at_the_last_position_that_a_mask_chooses() -> None:
    """As BART's classifier takes it: x[ids == end].view(samples, -1, size)[:, -1]."""
    text = (
        "(int64[n,t] ids, float[n,t,3] x) => (float[n,3] y) "
        "<int64 end = {2}, int64 last = {-1}, int64[1] i0 = {0}, int64[1] i1 = {1}, int64[2] m = {-1, 3}> "
        "{ e = Equal(ids, end) z = NonZero(e) p = Transpose<perm=[1,0]>(z) g = GatherND(x, p) s = Shape(x) "
        "n = Slice(s, i0, i1) w = Concat<axis=0>(n, m) r = Reshape(g, w) y = Gather<axis=1>(r, last) }"
    )
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    graph = lift(made)
    assert str(graph.outputs[0].value.type) == "f32[N, 3]"
    assert all(n.op.modeled for n in graph.nodes)
    ids = np.array([[2, 5, 2, 7], [1, 2, 2, 0], [2, 3, 4, 2]])
    x = np.random.default_rng(0).standard_normal((3, 4, 3)).astype(np.float32)
    (expected,) = Session(made).run({"ids": ids, "x": x})
    np.testing.assert_array_equal(expected, x[[0, 1, 2], [2, 2, 3]])
    np.testing.assert_array_equal(Session(lower(graph)).run({"ids": ids, "x": x})[0], expected)
    # rows that choose other numbers of positions are as they would be alone
    ids[0] = [2, 0, 0, 0]
    np.testing.assert_array_equal(Session(lower(graph)).run({"ids": ids, "x": x})[0], x[[0, 1, 2], [0, 2, 3]])
    references = np.random.default_rng(1).standard_normal((2, 4, 3)).astype(np.float32)
    target = irshap.Target(1, context="ids")
    explanation = irshap.compile(made, references, target=target).explainer()({"ids": ids, "x": x})
    assert np.abs(explanation.completeness_error).max() < 1e-6 < np.abs(explanation.total()).max()


OPEN_AXIS = {
    "every other": "y = Slice(x, i0, far, i1, i2)",
    "every third from the second on": "y = Slice(x, i1, far, i1, i3)",
    "turned around": "y = Slice(x, m1, least, i1, m1)",
    "the first few": "y = Slice(x, i0, i3, i1)",
    "to a far end": "b = Constant<value = int64[1] {1000000000}>() y = Slice(x, i1, b, i1)",
    "without the last": "y = Slice(x, i0, m1, i1)",
    "reflected": 'y = Pad<mode="reflect">(x, pads)',
    "repeated at the edge": 'y = Pad<mode="edge">(x, pads)',
    "wrapped": 'y = Pad<mode="wrap">(x, pads)',
}


@pytest.mark.parametrize("body", OPEN_AXIS.values(), ids=list(OPEN_AXIS))
def test_parts_of_an_open_axis_and_what_is_put_around_it(body: str) -> None:
    far = "far = Constant<value = int64[1] {9223372036854775807}>() "
    far += "least = Constant<value = int64[1] {-9223372036854775807}>() "
    far += "pads = Constant<value = int64[4] {0, 2, 0, 1}>() "
    opset = 19 if "wrap" in body else 18
    made = model("n,t", far + body, opset)
    check(made, (2, 7), (3, 4), (1, 3), left=frozenset({"gather", "concat", "arange", "dims"}))
    # and back: what an element is given comes from where it went
    for size in (7, 4):
        x, references = np.random.default_rng(0).standard_normal((2, 3, size)).astype(np.float32)
        passes = 'lift,target{target="0"},canonicalize,autodiff,deeplift,eliminate-split-tile,dce,lower'
        summed = onnx.ModelProto()
        summed.CopyFrom(made)
        summed.graph.node[-1].output[0] = "z"
        summed.graph.node.append(onnx.helper.make_node("Exp", ["z"], ["e"]))
        summed.graph.node.append(onnx.helper.make_node("ReduceSum", ["e", "i1"], ["y"]))
        explanation = irshap.compile(summed, passes=passes).explainer()(x, x_references=references)
        assert np.abs(explanation.completeness_error).max() < 1e-4 < np.abs(explanation.total()).max()


@pytest.mark.parametrize(("low", "high"), [("0.25", "0.5"), ("-inf", "0"), ("0", "-0."), ("nan", "1.5")])
def test_a_choice_between_two_small_floats_stays_one(low: str, high: str) -> None:
    """Floats aren't compared as dimensions are: by a difference cut to whole numbers all these are equal."""
    made = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (bool[4] mask) => (float[4] y)
        <float low = {1}, float high = {1}> { y = Where(mask, low, high) }"""
    )
    for tensor, value in zip(made.graph.initializer, (low, high), strict=True):
        tensor.float_data[:] = [float(value)]
    graph = lift(made, batch="keep")
    assert [n.op.mnemonic for n in graph.nodes] == ["constant", "constant", "where"]
    feeds = {"mask": np.array([True, False, True, False])}
    np.testing.assert_array_equal(Session(lower(graph)).run(feeds)[0], Session(made).run(feeds)[0])
