"""Models with open axes besides the batch: references fix them, or come at run time, or serve any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import irshap
from irshap.errors import ReferencesError, UserError
from irshap.ir.types import Array
from irshap.metrics.completeness import check_completeness

RNG = np.random.default_rng(0)
CLOSE = {"rtol": 1e-4, "atol": 2e-6}


def f32(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def parsed(text: str, **weights: Array) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    return model


@dataclass(frozen=True)
class Open:
    """A model, the shape of a sample at a size of its open axes, those by name, and what is attributed."""

    model: onnx.ModelProto
    of: str
    shape: Any
    dims: Any
    context: str = ""

    def rows(self, count: int, size: int) -> Array:
        if self.context:
            return RNG.integers(0, 11, (count, *self.shape(size)))
        return f32(count, *self.shape(size))

    def samples(self, count: int, size: int) -> dict[str, Array]:
        given = {self.of: self.rows(count, size)}
        if self.context:
            given[self.context] = (np.arange(size) < RNG.integers(1, size + 1, (count, 1))).astype(np.int64)
        return given

    def explain(self, references: Any, samples: Any, **arguments: Any) -> irshap.Explanation:
        target = irshap.Target(1, context=self.context)
        return irshap.compile(self.model, references, target=target, **arguments).explainer()(samples)


MODELS = {
    "sum": Open(
        parsed(
            "(float[n,t,3] x) => (float[n,4] y) <int64[1] one = {1}> "
            "{ a = MatMul(x, w) b = Relu(a) y = ReduceSum<keepdims=0>(b, one) }",
            w=f32(3, 4),
        ),
        "x",
        lambda t: (t, 3),
        lambda t: {"t": t},
    ),
    "attention": Open(
        parsed(
            "(float[n,t,4] x) => (float[n,4] y) <int64[4] heads = {0, 0, 2, 2}, int64[3] whole = {0, 0, 4}> "
            "{ q = MatMul(x, wq) r = Reshape(q, heads) s = Transpose<perm=[0,2,1,3]>(r) "
            "k = MatMul(x, wk) l = Reshape(k, heads) m = Transpose<perm=[0,2,3,1]>(l) "
            "z = MatMul(s, m) p = Softmax<axis=-1>(z) o = MatMul(p, s) c = Transpose<perm=[0,2,1,3]>(o) "
            "d = Reshape(c, whole) y = ReduceMean<axes=[1], keepdims=0>(d) }",
            wq=f32(4, 4),
            wk=f32(4, 4),
        ),
        "x",
        lambda t: (t, 4),
        lambda t: {"t": t},
    ),
    "network": Open(
        parsed(
            "(float[n,3,h,w] x) => (float[n,4] y) { a = Conv<pads=[1,1,1,1]>(x, k) b = Relu(a) "
            "m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(b) c = Conv(m, l) d = Relu(c) "
            "g = GlobalAveragePool(d) y = Flatten(g) }",
            k=f32(4, 3, 3, 3),
            l=f32(4, 4, 3, 3),
        ),
        "x",
        lambda t: (3, 2 * t, 2 * t + 2),
        lambda t: {"h": 2 * t, "w": 2 * t + 2},
    ),
    "rows of positions": Open(
        parsed(
            "(float[n,t,4] x) => (float[n,3] y) <int64[2] flat = {-1, 4}, int64[1] i0 = {0}, "
            "int64[1] i2 = {2}, int64[1] three = {3}> { s = Shape(x) r = Reshape(x, flat) "
            "g = Gemm(r, w, b) a = Tanh(g) "
            "l = Slice(s, i0, i2) d = Concat<axis=0>(l, three) z = Reshape(a, d) q = Sigmoid(z) "
            "p = Mul(q, z) y = ReduceMean<axes=[1], keepdims=0>(p) }",
            w=f32(4, 3),
            b=f32(3),
        ),
        "x",
        lambda t: (t, 4),
        lambda t: {"t": t},
    ),
    "upsampled": Open(
        parsed(
            "(float[n,3,h,w] x) => (float[n,2] y) <int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, "
            "int64[1] i4 = {4}> { a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, k) b = Relu(a) s = Shape(x) "
            "c = Slice(s, i0, i1) d = Slice(s, i2, i4) e = Concat<axis=0>(c, i2, d) "
            'u = Resize<mode="linear">(b, , , e) t = Tanh(u) y = ReduceMean<axes=[2,3], keepdims=0>(t) }',
            k=f32(2, 3, 3, 3),
        ),
        "x",
        lambda t: (3, 2 * t, 2 * t + 3),
        lambda t: {"h": 2 * t, "w": 2 * t + 3},
    ),
    "tokens": Open(
        parsed(
            "(int64[n,t] ids, int64[n,t] mask) => (float[n,4] y) <int64[1] one = {1}, int64[1] two = {2}> { "
            "e = Gather<axis=0>(table, ids) m = Cast<to=1>(mask) u = Unsqueeze(m, two) a = MatMul(e, w) "
            "b = Tanh(a) c = Mul(b, u) s = ReduceSum<keepdims=0>(c, one) z = ReduceSum<keepdims=1>(m, one) "
            "d = Div(s, z) y = MatMul(d, v) }",
            table=f32(11, 3),
            w=f32(3, 4),
            v=f32(4, 4),
        ),
        "ids",
        lambda t: (t,),
        lambda t: {"t": t},
        "mask",
    ),
}
WAYS: dict[str, dict[str, Any]] = {
    "naive": {"passes": "@naive"},
    "fold": {"strategy": "fold"},
    "stream": {"strategy": "stream"},
    "recompute": {"strategy": "recompute"},
    "cuda": {"device": "cuda"},
}
each_model = pytest.mark.parametrize("name", MODELS)
each_way = pytest.mark.parametrize("way", WAYS)


@each_model
@each_way
def test_references_fix_the_sizes(name: str, way: str) -> None:
    """As if they had been fixed beforehand; axes that share the name follow."""
    case = MODELS[name]
    references, samples = case.rows(6, 4), case.samples(3, 4)
    target = irshap.Target(1, context=case.context)
    compiled = irshap.compile(case.model, references, target=target, **WAYS[way])
    beforehand = irshap.Model(case.model, dims=case.dims(4))
    expected = irshap.compile(beforehand, references, target=target, **WAYS[way])
    explanation = compiled.explainer()(samples)
    assert np.abs(explanation.completeness_error).max() < 1e-5 < np.abs(explanation.total()).max()
    np.testing.assert_array_equal(explanation.values, expected.explainer()(samples).values)
    np.testing.assert_allclose(
        explanation.values, case.explain(references, samples, passes="@naive").values, **CLOSE
    )
    assert compiled.sizes == case.dims(4)
    with pytest.raises(UserError, match="shape"):
        compiled.explainer()(case.samples(3, 5))


AT_RUN_TIME = {
    "naive": "lift,target,canonicalize,autodiff,deeplift,dce,lower",
    "optimized": "lift,target,canonicalize,fuse-activations,nest-concats,autodiff,deeplift,"
    "eliminate-split-tile,broadcast-target,canonicalize,polyphase,dce,conv-adjoint,absorb-scales,"
    "max-unpool,sink-reshapes,canonicalize,dce,share-weights,order,lower",
}


@each_model
@pytest.mark.parametrize("passes", AT_RUN_TIME.values(), ids=list(AT_RUN_TIME))
def test_references_at_run_time_have_any_size(name: str, passes: str) -> None:
    case = MODELS[name]
    target = irshap.Target(1, context=case.context)
    explainer = irshap.compile(case.model, target=target, passes=passes).explainer()
    for size, count in ((4, 6), (5, 1), (7, 2)):
        references, samples = case.rows(count, size), case.samples(3, size)
        explanation = explainer(samples, **{f"{case.of}_references": references})
        assert np.abs(explanation.completeness_error).max() < 1e-5
        expected = case.explain(references, samples, passes="@naive")
        np.testing.assert_allclose(explanation.values, expected.values, **CLOSE)


@each_model
@each_way
def test_references_of_size_1_serve_any_size(name: str, way: str) -> None:
    """One value a channel or token: the same at every place, as if they had been repeated."""
    case = MODELS[name]
    ones = tuple(1 if a != b else a for a, b in zip(case.shape(4), case.shape(5), strict=True))
    references = case.rows(5, 4)[(slice(None), *(slice(None, size) for size in ones))]
    target = irshap.Target(1, context=case.context)
    compiled = irshap.compile(case.model, references, target=target, **WAYS[way])
    assert compiled.sizes == {}
    explainer = compiled.explainer()
    for size in (4, 7):
        samples = case.samples(3, size)
        explanation = explainer(samples)
        assert np.abs(explanation.completeness_error).max() < 1e-5 < np.abs(explanation.total()).max()
        repeated = np.broadcast_to(references, (5, *case.shape(size))).copy()
        expected = case.explain(repeated, samples, passes="@naive")
        np.testing.assert_allclose(explanation.values, expected.values, **CLOSE)


@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_of_references_of_size_1(chunk: int) -> None:
    case = MODELS["attention"]
    references, samples = f32(5, 1, 4), case.samples(2, 6)
    expected = case.explain(references, samples, passes="@naive")
    passes = (
        f"lift,target,canonicalize,autodiff,deeplift,eliminate-split-tile,dce,stream{{chunk={chunk}}},lower"
    )
    np.testing.assert_allclose(
        case.explain(references, samples, passes=passes).values, expected.values, **CLOSE
    )


@pytest.mark.parametrize("method", ["gradient", "input-x-gradient", "epsilon-lrp"])
@pytest.mark.parametrize("name", ["sum", "attention", "network"])
def test_methods_without_references(method: str, name: str) -> None:
    case = MODELS[name]
    explainer = irshap.compile(case.model, target=1, method=method).explainer()
    for size in (4, 6):
        samples = case.samples(2, size)
        fixed = irshap.Model(case.model, dims=case.dims(size))
        expected = irshap.compile(fixed, target=1, method=method).explainer()(samples)
        np.testing.assert_allclose(explainer(samples).values, expected.values, **CLOSE)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "align_corners", "asymmetric"])
def test_any_interpolation_between_open_sizes(mode: str, coordinates: str) -> None:
    """Up on one axis and down on the other, by the quotients of the sizes."""
    text = "(float[n,2,h,w] x, int64[n,1,v,u] like) => (float[n,1] y) <int64[1] i0 = {0}, int64[1] i2 = {2}, "
    text += "int64[1] i4 = {4}> { s = Shape(x) t = Shape(like) a = Slice(s, i0, i2) b = Slice(t, i2, i4) "
    text += (
        f'c = Concat<axis=0>(a, b) z = Resize<mode="{mode}", coordinate_transformation_mode="{coordinates}">'
    )
    text += "(x, , , c) q = Exp(z) y = ReduceMean<axes=[1,2,3], keepdims=0>(q) }"
    model = parsed(text.replace("(float[n,1] y)", "(float[n] y)"))
    explainer = irshap.compile(model, target=0, passes=AT_RUN_TIME["optimized"]).explainer()
    for old, new in (((5, 8), (9, 3)), ((4, 4), (7, 7))):
        samples = {"x": f32(3, 2, *old), "like": np.zeros((3, 1, *new), np.int64)}
        explanation = explainer(samples, x_references=f32(2, 2, *old))
        assert np.abs(explanation.completeness_error).max() < 1e-5 < np.abs(explanation.total()).max()


def test_references_that_contradict_each_other() -> None:
    text = "(float[n,t] x, float[n,t] z) => (float[n,1] y) { a = Mul(x, z) y = ReduceMean<axes=[1]>(a) }"
    with pytest.raises(ReferencesError, match="shape"):
        irshap.compile(parsed(text), {"x": f32(2, 4), "z": f32(2, 5)}, target=0)


def test_verify_with_references_of_size_1() -> None:
    case = MODELS["attention"]
    found = check_completeness(case.model, f32(2, 1, 4), case.samples(2, 5), target=1)
    assert found.ok
    lost = check_completeness(case.model, f32(2, 1, 4), case.samples(2, 5), target=1, tolerance=0, fp16=True)
    assert "but not the graph after fp16" in lost.cause


def test_what_needs_numbers_says_so() -> None:
    case = MODELS["network"]
    with pytest.raises(UserError, match="--dim h=SIZE --dim w=SIZE"):
        irshap.compile(case.model, f32(2, 3, 1, 1), target=1, memory_limit="1GiB")
    text = "(float[n,t,3] x) => (float[n,t,3] y) { y = Tanh(x) }"
    with pytest.raises(UserError, match=r"number of classes is only known at run time.*dims: t="):
        irshap.compile(parsed(text), f32(2, 1, 3))
    # what references fix is known there
    assert irshap.compile(parsed(text), f32(2, 4, 3), target=11).explainer()(f32(3, 4, 3)).values.shape == (
        3,
        4,
        3,
    )


def test_sizes_that_must_be_known_to_agree_are_named() -> None:
    """Down by half and up again is the old size where that is even, which nothing tells of an open axis."""
    text = "(float[n,1,h] x) => (float[n] y) { a = MaxPool<kernel_shape=[2], strides=[2]>(x) "
    text += (
        'u = Resize<mode="nearest">(a, , scales) c = Add(u, x) y = ReduceMean<axes=[1,2], keepdims=0>(c) }'
    )
    model = parsed(text, scales=np.array([1, 1, 2], np.float32))
    with pytest.raises(UserError, match=r"sizes that are open can be fixed: dims h=\.\.\."):
        irshap.compile(model, f32(2, 1, 1), target=0)
    explainer = irshap.compile(model, f32(2, 1, 6), target=0).explainer()
    assert np.abs(explainer(f32(3, 1, 6)).completeness_error).max() < 1e-5
