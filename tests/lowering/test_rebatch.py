"""Models exported with a batch of 1 get any batch, row by row what they were, or are kept, with a reason."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from places import FAMILIES

import irshap
from irshap.errors import TargetError
from irshap.ir.core import Graph
from irshap.ir.types import Array, TensorType
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session

ROWS = 5


def shapes(graph: Graph) -> list[str]:
    return [str(o.value.type) for o in graph.outputs]


def random(model: onnx.ModelProto, symbols: dict[str, int], rows: int, seed: int = 7) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = [rows if i == 0 else d.dim_value or symbols[d.dim_param] for i, d in enumerate(dims)]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        whole = dtype.kind in "iub"
        feeds[value.name] = (
            generator.integers(0, 2, shape) if whole else generator.standard_normal(shape)
        ).astype(dtype)
    return feeds


def assert_row_by_row(model: onnx.ModelProto, graph: Graph, **symbols: int) -> None:
    feeds = random(model, symbols, ROWS)
    found = Session(lower(graph)).run(feeds)
    original = Session(model)
    for row in range(ROWS):
        alone = original.run({k: v[row : row + 1] for k, v in feeds.items()})
        for a, b in zip(alone, found, strict=True):
            np.testing.assert_allclose(b[row : row + 1], a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("path", sorted(FAMILIES.glob("*_batch1.onnx")), ids=lambda p: p.stem)
def test_families(path: Path) -> None:
    model = onnx.load(path)
    graph = lift(model)
    assert graph.source.batch == ""
    assert shapes(graph) == ["f32[N, 5]"]
    assert_row_by_row(model, graph)


X = "float[1,6,16] x"
IMAGE = "float[1,3,8,8] x"

# name: inputs, initializers, nodes
POSSIBLE: dict[str, tuple[str, str, str]] = {
    "reshape [1, -1]": (IMAGE, "int64[2] s = {1,-1}", "y = Reshape(x, s)"),
    "reshape [-1, 192]": (IMAGE, "int64[2] s = {-1,192}", "y = Reshape(x, s)"),
    "reshape [0, -1]": (IMAGE, "int64[2] s = {0,-1}", "y = Reshape(x, s)"),
    "flatten": (IMAGE, "", "y = Flatten<axis=1>(x)"),
    "dropping the batch and taking it up again": (
        IMAGE,
        "int64[2] a = {3,64}, int64[2] d = {1,192}",
        "b = Reshape(x, a) c = Relu(b) y = Reshape(c, d)",
    ),
    "heads of attention": (
        X,
        "int64[4] a = {1,6,4,-1}, int64[3] i = {1,6,16}, int64[2] k = {1,96}",
        """b = Reshape(x, a) c = Transpose<perm=[0,2,1,3]>(b) d = Transpose<perm=[0,1,3,2]>(c)
        e = MatMul(c, d) f = Softmax<axis=-1>(e) g = MatMul(f, c) h = Transpose<perm=[0,2,1,3]>(g)
        j = Reshape(h, i) y = Reshape(j, k)""",
    ),
    "the sequence first": (
        X,
        "int64[3] a = {6,4,4}, int64[3] i = {6,1,16}, int64[2] l = {1,96}",
        """t = Transpose<perm=[1,0,2]>(x) b = Reshape(t, a) c = Transpose<perm=[1,0,2]>(b)
        d = Transpose<perm=[0,2,1]>(c) e = MatMul(c, d) f = Softmax<axis=-1>(e) g = MatMul(f, c)
        h = Transpose<perm=[1,0,2]>(g) j = Reshape(h, i) k = Transpose<perm=[1,0,2]>(j) y = Reshape(k, l)""",
    ),
    "merged with the sequence": (
        X,
        "int64[2] a = {-1,16}, float[1,2] w = {1,2}, int64[1] o = {1}, int64[2] e = {1,12}",
        "b = Reshape(x, a) c = ReduceSum(b, o) d = Mul(c, w) y = Reshape(d, e)",
    ),
    "a class token, expanded": (
        X,
        "int64[3] s = {1,1,16}, int64[2] f = {1,-1}",
        """t = ConstantOfShape<value=float[1] {0.5}>(s) e = Expand(t, s) c = Concat<axis=1>(e, x)
        y = Reshape(c, f)""",
    ),
    "expand to [1, ...]": (
        "float[1,1,16] x",
        "int64[3] s = {1,6,16}, int64[2] f = {1,-1}",
        "e = Expand(x, s) y = Reshape(e, f)",
    ),
    "expand by where": (
        X,
        "int64[3] s = {1,6,16}, int64[3] m = {-1,-1,-1}, float z = {2}, int64[2] f = {1,-1}",
        "q = Equal(s, m) h = Shape(x) w = Where(q, h, s) e = Expand(z, w) p = Mul(x, e) y = Reshape(p, f)",
    ),
    "tile": (X, "int64[3] r = {1,2,1}", "t = Tile(x, r) y = Flatten(t)"),
    "zeros beside it": (
        X,
        "int64[3] s = {1,2,16}",
        "z = ConstantOfShape(s) c = Concat<axis=1>(x, z) y = Flatten(c)",
    ),
    "the shape of the input": (
        X,
        "int64[1] i = {0}, int64[1] m = {-1}",
        "s = Shape(x) b = Gather(s, i) t = Concat<axis=0>(b, m) y = Reshape(x, t)",
    ),
    "one more axis in front": (X, "int64[1] i = {0}", "u = Unsqueeze(x, i) v = Squeeze(u, i) y = Flatten(v)"),
    "other axes cut": (
        X,
        "int64[1] a = {1}, int64[1] b = {4}, int64 z = {2}",
        "s = Slice(x, a, b, a) g = Gather<axis=2>(s, z) y = Flatten(g)",
    ),
    "a mask of batch 1": (
        X,
        "int64[3] s = {1,6,1}",
        """z = ConstantOfShape<value=float[1] {3.0}>(s) m = Mul(x, z) c = Greater(m, z) w = Where(c, x, z)
        y = Flatten(w)""",
    ),
    "split and put together": (
        X,
        "int64[2] n = {2,4}",
        "a, b = Split<axis=1>(x, n) c = Concat<axis=1>(b, a) y = Flatten(c)",
    ),
    "resized": (
        IMAGE,
        "int64[4] s = {1,3,16,16}",
        """r = Resize<mode="nearest">(x, , , s) y = Flatten(r)""",
    ),
    "an op without rules": (X, "", "h = Hardmax<axis=-1>(x) y = Flatten(h)"),
    "GRU from a state of zeros": (
        X,
        "int64[3] a = {1,12,16}, int64[3] b = {1,12,4}, int64[3] s = {1,1,4}",
        """w = ConstantOfShape<value=float[1] {0.2}>(a) r = ConstantOfShape<value=float[1] {0.1}>(b)
        i = ConstantOfShape(s) t = Transpose<perm=[1,0,2]>(x) o, h = GRU<hidden_size=4>(t, w, r, , , i)
        v = Transpose<perm=[1,0,2]>(h) y = Flatten(v)""",
    ),
    "LSTM from states of ones": (
        X,
        "int64[3] a = {2,16,16}, int64[3] b = {2,16,4}, int64[3] s = {2,1,4}",
        """w = ConstantOfShape<value=float[1] {0.2}>(a) r = ConstantOfShape<value=float[1] {0.1}>(b)
        i = ConstantOfShape<value=float[1] {1}>(s) t = Transpose<perm=[1,0,2]>(x)
        o, h, c = LSTM<hidden_size=4, direction="bidirectional">(t, w, r, , , i, i)
        v = Transpose<perm=[2,1,0,3]>(o) y = Flatten(v)""",
    ),
    "positions added": (
        "int64[1,6] x",
        "float[4,2] e = {0,1,2,3,4,5,6,7}, int64[1,6] p = {0,1,2,3,0,1}",
        "a = Gather(e, x) b = Gather(e, p) c = Add(a, b) y = Flatten(c)",
    ),
    "two inputs": (
        "float[1,4] x, float[1,2,2] z",
        "int64[2] s = {1,4}",
        "r = Reshape(z, s) y = Concat<axis=1>(x, r)",
    ),
    "groups of channels": (
        "float[1,4,3,3] x",
        "int64[5] a = {1,2,2,3,3}, int64[4] b = {1,4,3,3}",
        "u = Reshape(x, a) t = Transpose<perm=[0,2,1,3,4]>(u) v = Reshape(t, b) y = Flatten(v)",
    ),
    "one channel": ("float[1,1,4] x", "int64[3] a = {1,4,1}", "u = Reshape(x, a) y = Flatten(u)"),
    "the sequence first, as rows": (
        X,
        "int64[2] a = {6,16}, float[16,1] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}, int64[3] b = {6,1,1}",
        """t = Transpose<perm=[1,0,2]>(x) u = Reshape(t, a) m = MatMul(u, w) v = Reshape(m, b)
        z = Transpose<perm=[1,0,2]>(v) y = Flatten(z)""",
    ),
    "shifted to the right": (
        "int64[1,4] x",
        "int64[1,3,2] i = {0,1,0,2,0,3}, int64[1,1,2] f = {0,0}, int64[1,1] s = {9}, int64[2] d = {1,4}, "
        "int64[1] a = {0}, int64[1] b = {3}, int64[1] c = {1}",
        """z = ConstantOfShape<value=int64[1] {0}>(d) k = Slice(x, a, b, c) p = ScatterND(z, i, k)
        q = ScatterND(p, f, s) y = Cast<to=1>(q)""",
    ),
    "shifted, the batch behind": (
        "int64[1,4] x",
        "int64[3,1] i = {1,2,3}, int64[2] d = {4,1}, int64[1] a = {0}, int64[1] b = {3}, int64[1] c = {1}",
        """z = ConstantOfShape<value=int64[1] {0}>(d) k = Slice(x, a, b, c) t = Transpose<perm=[1,0]>(k)
        p = ScatterND(z, i, t) u = Transpose<perm=[1,0]>(p) y = Cast<to=1>(u)""",
    ),
    "the state at the last token 1": (
        "int64[1,40] x, float[1,40,3] s",
        "int64 end = {1}, int64 last = {-1}, int64[3] w = {1,-1,3}",
        """e = Equal(x, end) z = NonZero(e) t = Transpose<perm=[1,0]>(z) g = GatherND(s, t) r = Reshape(g, w)
        y = Gather<axis=1>(r, last)""",
    ),
    "pixels as rows": (
        "float[1,4,3,3] x",
        "int64[2] a = {9,4}, float[4,2] w = {1,2,3,4,5,6,7,8}, int64[4] b = {1,3,3,2}",
        """t = Transpose<perm=[0,2,3,1]>(x) u = Reshape(t, a) m = MatMul(u, w) v = Reshape(m, b)
        y = Flatten(v)""",
    ),
    # with a batch of 1 these mix nothing: each sample is what the model makes of it alone
    "the mean over the batch": (X, "", "r = ReduceMean<axes=[0]>(x) y = Flatten(r)"),
    "a cut of the batch": (X, "int64[1] a = {0}, int64[1] b = {1}", "s = Slice(x, a, b, a) y = Flatten(s)"),
    "a softmax over the batch": (X, "", "s = Softmax<axis=0>(x) y = Flatten(s)"),
    "differences of rows": (X, "", "s = ReduceSum(x) d = Sub(x, s) y = Flatten(d)"),
}


def model_of(inputs: str, initializers: str, nodes: str) -> onnx.ModelProto:
    """With one output y of rank 2, or what its name says."""
    head = f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => (float[a,b] y)'
    return onnx.parser.parse_model(f"{head} <{initializers}> {{ {nodes} }}")


@pytest.mark.parametrize("name", POSSIBLE)
def test_any_batch(name: str) -> None:
    model = model_of(*POSSIBLE[name])
    graph = lift(model)
    assert graph.source.batch == ""
    (kind,) = (o.value.type for o in graph.outputs)
    assert isinstance(kind, TensorType)
    assert str(kind.dims[0]) == "N"
    assert_row_by_row(model, graph)


# Outputs without a place for other samples, which get an axis in front.
STACKED = {
    "the first row": ("int64 i = {0}", "y = Gather(x, i)"),
    "the batch squeezed": ("int64[1] i = {0}", "y = Squeeze(x, i)"),
    "stacked with itself": ("", "s = Concat<axis=0>(x, x) y = Flatten(s)"),
}


@pytest.mark.parametrize("name", STACKED)
def test_an_axis_for_samples_in_front(name: str) -> None:
    model = model_of(X, *STACKED[name])
    x = np.random.default_rng(0).standard_normal((3, 1, 6, 16)).astype(np.float32)
    alone = [Session(model).run({"x": row})[0] for row in x]
    (found,) = Session(lower(lift(model))).run({"x": x[:, 0]})
    np.testing.assert_array_equal(found, np.stack(alone))


# name: inputs, initializers, nodes, the reason
IMPOSSIBLE: dict[str, tuple[str, str, str, str]] = {
    "batch norm in training mode": (
        "float[1,2,3] x",
        "float[2] m = {0,0}, float[2] v = {1,1}",
        "b, i, j = BatchNormalization<training_mode=1>(x, v, m, m, v) y = Flatten(b)",
        "row .*|b .*",
    ),
    "nothing of the batch": (
        X,
        "",
        "s = Shape(x) z = ConstantOfShape(s) r = ReduceSum(z) y = Flatten(r)",
        ".",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_batch_of_1_is_kept_and_says_why(name: str) -> None:
    inputs, initializers, nodes, why = IMPOSSIBLE[name]
    model = model_of(inputs, initializers, nodes)
    graph = lift(model)
    assert re.match(f"a batch of 1 can't become any other: .*({why})", graph.source.batch), graph.source.batch
    assert str(graph.inputs[0].type).startswith("f32[1, ")
    feeds = random(model, {}, 1)
    for a, b in zip(Session(model).run(feeds), Session(lower(graph)).run(feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_batches_are_not_touched() -> None:
    fixed = lift(model_of("float[2,3] x", "", "y = Relu(x)"))
    assert shapes(fixed) == ["f32[2, 3]"]
    assert fixed.source.batch == "the inputs' leading dimensions are fixed: 'x' has 2"
    named = lift(model_of("float[batch,3] x, float[batch,3] z", "", "y = Add(x, z)"))
    assert (shapes(named), named.source.batch) == (["f32[N, 3]"], "")
    unnamed = lift(model_of("float[?,3] x", "", "y = Relu(x)"))
    assert (shapes(unnamed), unnamed.source.batch) == (["f32[N, 3]"], "")
    several = lift(model_of("float[a,3] x, float[b,3] z", "", "y = Concat<axis=0>(x, z)"))
    assert several.source.batch == "the inputs have several leading dimensions: 'a' and 'b'"
    scalar = lift(model_of("float x", "int64[2] s = {1,1}", "y = Reshape(x, s)"))
    assert scalar.source.batch == "the model has no input with a batch axis"
    beside = lift(model_of("float[batch,3] x, float[1,3] z", "", "y = Add(x, z)"))
    assert [str(v.type) for v in beside.inputs] == ["f32[N, 3]", "f32[1, 3]"]
    shared = lift(model_of("float[1,3] x, float[3,3] z", "", "y = MatMul(x, z)"))
    assert [str(v.type) for v in shared.inputs] == ["f32[N, 3]", "f32[3, 3]"]
    kept = lift(model_of("float[1,3] x", "", "y = Relu(x)"), batch="keep")
    assert (shapes(kept), kept.source.batch) == (["f32[1, 3]"], "")


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_integers_that_divide_are_tried_without_a_zero(op: str) -> None:
    """Older releases of ONNX Runtime end the process at a division by 0, later ones refuse the rows."""
    model = model_of("int64[1,64] x, int64[1,64] z", "", f"q = {op}(x, z) y = Cast<to=1>(q)")
    assert shapes(lift(model)) == ["f32[N, 64]"]


def test_a_model_with_its_own_n() -> None:
    graph = lift(model_of("float[batch,N] x", "", "y = Relu(x)"))
    assert shapes(graph) == ["f32[N, N_]"]
    assert shapes(lift(model_of("float[N,R] x", "", "y = Relu(x)"))) == ["f32[N, R_]"]


NET = """c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, w) r = Relu(c)
p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) g = GlobalAveragePool(p) y = Flatten(g)"""


@pytest.mark.parametrize("batch", ["batch", "1"])
def test_open_height_and_width(batch: str) -> None:
    weights = onnx.numpy_helper.from_array(
        np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32), "w"
    )
    model = model_of(f"float[{batch},3,H,W] x", "", NET.replace("x, w", "x, x"))
    model.graph.node[0].input[1] = "w"
    model.graph.initializer.append(weights)
    graph = lift(model)
    assert graph.source.batch == ""
    assert str(graph.inputs[0].type) == "f32[N, 3, H, W]"
    assert shapes(graph) == ["f32[N, 4]"]
    assert_row_by_row(model, graph, H=24, W=17)
    assert_row_by_row(model, graph, H=9, W=32)


@pytest.mark.parametrize("opset", [13, 17])
def test_open_sizes_computed_at_run_time(opset: int) -> None:
    """Pixels attend to each other after two strided convolutions: shapes are floors of floors of H and W."""
    model = onnx.parser.parse_model(
        f'<ir_version: 7, opset_import: ["": {opset}]> g (float[batch,3,H,W] x) => (float[a,b,c,d] y) '
        """<int64[3] s = {0,4,-1}, int64[1] two = {2}> {
        c = Conv<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(x, v) r = Relu(c)
        m = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(r) f = Reshape(m, s)
        t = Transpose<perm=[0,2,1]>(f) a = MatMul(t, f) p = Softmax<axis=-1>(a) q = MatMul(f, p)
        e = Shape(m) z = Reshape(q, e) i = Resize<mode="nearest">(z, , k) y = Concat<axis=1>(i, i) }"""
    )
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    for name, array in (("v", weights), ("k", np.float32([1, 1, 2, 2]))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    graph = lift(model)
    for height, width in ((24, 17), (11, 32)):
        assert_row_by_row(model, graph, H=height, W=width)


def test_an_open_sequence() -> None:
    model = model_of(
        "int64[1,L] x",
        "float[2,4] e = {1,2,3,4,5,6,7,8}, int64[3] s = {1,-1,4}",
        "a = Gather(e, x) b = Reshape(a, s) y = ReduceMean<axes=[1], keepdims=0>(b)",
    )
    graph = lift(model)
    assert (graph.source.batch, str(graph.inputs[0].type)) == ("", "i64[N, L]")
    assert_row_by_row(model, graph, L=7)


def test_compiling_says_why_a_batch_was_kept() -> None:
    model = model_of(*IMPOSSIBLE["batch norm in training mode"][:3])
    why = r"batch is as the model has it, because a batch of 1 can't become any other"
    with pytest.raises(TargetError, match=why):
        irshap.compile(model, np.zeros((3, 2, 3), np.float32))


def test_an_open_batch_with_shapes_for_one_sample_inside() -> None:
    """Its inputs promise any batch; what is inside is made to keep it, and tried."""
    for name in ("heads of attention", "the sequence first, as rows", "the sequence first"):
        inputs, initializers, nodes = POSSIBLE[name]
        model = model_of(inputs.replace("[1,", "[batch,"), initializers, nodes)
        graph = lift(model)
        assert graph.source.batch == ""
        assert shapes(graph)[0].startswith("f32[N, ")
        assert_row_by_row(model, graph)


def test_a_model_that_asks_for_a_token() -> None:
    """It fails on rows without it, so that others are tried."""
    inputs, initializers, nodes = POSSIBLE["the state at the last token 1"]
    assert lift(model_of(inputs, initializers.replace("end = {1}", "end = {2}"), nodes)).source.batch == ""


def test_a_window_over_all_that_there_may_be() -> None:
    """EfficientNet of the transformers library pools by 1280 x 1280, whatever is there."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[1, 2, 4, 4] x) => (float[1, 2] y) {
            p = AveragePool<kernel_shape = [1280, 1280], strides = [1280, 1280], ceil_mode = 1>(x)
            t = Tanh(p)  y = Flatten(t) }"""
    )
    x, r = (np.random.default_rng(i).standard_normal((3, 2, 4, 4)).astype(np.float32) for i in range(2))
    found = irshap.compile(model, r).explainer()(x)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-6)
