"""Every optimizing pass keeps what the naive pipeline computes: one by one, in numpy and in ONNX Runtime.

The references come in at run time, as inputs; the last step binds and folds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from onnx import numpy_helper

import irshap
from irshap.checks.instruments import VerifyTypes
from irshap.ir.core import Graph
from irshap.ir.dims import symbols_of
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.pipeline.base import Context
from irshap.pipeline.manager import PassManager

pytestmark = pytest.mark.slow

STEPS = ("eliminate-split-tile", "broadcast-target", "polyphase", "dce", "conv-adjoint", "absorb-scales")
STEPS += ("max-unpool", "narrow-positions", "sink-reshapes", "time-blocks", "share-weights{smallest=1}")
STEPS += ("order", "canonicalize")
"""The passes behind the method, in the order of `@default`.  What binds the references comes last here."""

BINDING = (
    "fold-references",
    "stream{chunk=2}",
    "stream{chunk=1, together=2}",
    "stream{chunk=1, store=references}",
    "stream{chunk=3, store=references}",
)


@dataclass(frozen=True)
class Net:
    """An ONNX graph in text; `weights` gives the shapes of its initializers."""

    inputs: Mapping[str, tuple[int, ...]]
    outputs: str
    body: str
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lists: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def model(self, dtype: Any) -> onnx.ModelProto:
        kind = {np.float32: "float", np.float64: "double"}[dtype]
        takes = ", ".join(f"{kind}[N, {', '.join(map(str, s))}] {n}" for n, s in self.inputs.items())
        head = f'<ir_version: 8, opset_import: ["": 17]> net ({takes}) => ({kind}[N, {self.outputs}] y)'
        model = onnx.parser.parse_model(f"{head} {{{self.body}}}")
        rng = np.random.default_rng(8)
        for name, shape in self.weights.items():
            array = rng.standard_normal(shape) * 1.5 / max(1.0, float(np.prod(shape[1:]))) ** 0.5
            model.graph.initializer.append(numpy_helper.from_array(array.astype(dtype), name))
        for name, values in self.lists.items():
            model.graph.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return model


NETS = {
    # overlapping max-pooling, both kinds of stride, a spelled-out swish, a skip connection
    "cnn": Net(
        {"x": (2, 7, 7)},
        "3",
        """a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w1, b1)
        h = Relu(a)
        p = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(h)
        c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p, w2)
        s = Sigmoid(c)  g = Mul(c, s)
        k = Add(g, p)
        d = Conv<kernel_shape = [3, 3], strides = [2, 2]>(k, w3)
        e = Relu(d)
        f = Flatten(e)
        y = Gemm<transB = 1>(f, w4, b4)""",
        {
            "w1": (4, 2, 3, 3),
            "b1": (4,),
            "w2": (4, 4, 3, 3),
            "w3": (5, 4, 3, 3),
            "w4": (3, 5),
            "b4": (3,),
        },
    ),
    # depthwise convolutions with strides behind pointwise ones; a gate; one whose sizes don't divide
    "mobile": Net(
        {"x": (2, 8, 9)},
        "3",
        """a = Conv<kernel_shape = [1, 1]>(x, w1)
        s = Sigmoid(a)  h = Mul(a, s)
        b = Conv<kernel_shape = [3, 5], pads = [1, 2, 1, 2], strides = [2, 3], group = 6>(h, w2)
        n = Relu(b)
        m = GlobalAveragePool(n)
        t = Sigmoid(m)  g = Mul(n, t)
        c = Conv<kernel_shape = [1, 1]>(g, w3)
        e = Conv<kernel_shape = [1, 1]>(c, w4)
        r = Relu(e)
        d = Conv<kernel_shape = [2, 3], strides = [2, 2], group = 5>(r, w5)
        u = Tanh(d)
        f = Flatten(u)
        y = Gemm<transB = 1>(f, w6)""",
        {
            "w1": (6, 2, 1, 1),
            "w2": (6, 1, 3, 5),
            "w3": (4, 6, 1, 1),
            "w4": (5, 4, 1, 1),
            "w5": (5, 1, 2, 3),
            "w6": (3, 10),
        },
    ),
    # products of two varying operands, softmax, a normalization
    "attention": Net(
        {"x": (4, 6)},
        "3",
        """z = LayerNormalization(x, gamma, beta)
        q = MatMul(z, wq)  k = MatMul(z, wk)  v = MatMul(z, wv)
        t = Transpose<perm = [0, 2, 1]>(k)
        s = MatMul(q, t)
        p = Softmax<axis = -1>(s)
        o = MatMul(p, v)
        h = Add(x, o)
        m = ReduceMean<axes = [1], keepdims = 0>(h)
        y = MatMul(m, w)""",
        {"gamma": (6,), "beta": (6,), "wq": (6, 5), "wk": (6, 5), "wv": (6, 6), "w": (6, 3)},
    ),
    # activations with bounds
    "bounded": Net(
        {"x": (2, 5, 5)},
        "3",
        """a = Conv<kernel_shape = [3, 3]>(x, w1)
        c = Clip(a, low, high)
        b = Conv<kernel_shape = [1, 1]>(c, w2)
        s = HardSwish(b)
        d = Conv<kernel_shape = [1, 1]>(s, w3)
        g = HardSigmoid(d)  r = LeakyRelu(g)
        f = Flatten(r)
        y = Gemm<transB = 1>(f, w4)""",
        {"w1": (4, 2, 3, 3), "w2": (6, 4, 1, 1), "w3": (2, 6, 1, 1), "w4": (3, 18), "low": (), "high": ()},
    ),
    "two inputs": Net(
        {"x": (3,), "z": (2, 2)},
        "3",
        """a = MatMul(x, w1)
        f = Flatten(z)  b = MatMul(f, w2)
        m = Mul(a, b)
        h = Tanh(m)
        y = MatMul(h, w3)""",
        {"w1": (3, 5), "w2": (4, 5), "w3": (5, 3)},
    ),
    # the batch merges with positions, and moves to another axis
    "moved batch": Net(
        {"x": (3, 4)},
        "3",
        """r = Reshape(x, merged)
        a = MatMul(r, w1)
        h = Relu(a)
        u = Reshape(h, apart)
        t = Transpose<perm = [1, 0, 2]>(u)
        b = MatMul(t, w2)
        g = Softplus(b)
        v = Transpose<perm = [1, 0, 2]>(g)
        m = ReduceSum<keepdims = 0>(v, one)
        y = MatMul(m, w3)""",
        {"w1": (4, 5), "w2": (5, 4), "w3": (4, 3)},
        {"merged": (-1, 4), "apart": (-1, 3, 5), "one": (1,)},
    ),
    # attention in windows that are merged with the batch, and apart where a mask is added
    "windows": Net(
        {"x": (4, 6)},
        "3",
        """w = Reshape(x, merged)
        q = MatMul(w, wq)  k = MatMul(w, wk)
        t = Transpose<perm = [0, 2, 1]>(k)
        s = MatMul(q, t)
        a = Reshape(s, apart)
        b = Add(a, mask)
        c = Reshape(b, again)
        p = Softmax<axis = -1>(c)
        o = MatMul(p, w)
        u = Reshape(o, whole)
        h = Add(x, u)
        g = Tanh(h)
        m = ReduceMean<axes = [1], keepdims = 0>(g)
        y = MatMul(m, w1)""",
        {"wq": (6, 5), "wk": (6, 5), "mask": (1, 2, 2, 2), "w1": (6, 3)},
        {"merged": (-1, 2, 6), "apart": (-1, 2, 2, 2), "again": (-1, 2, 2), "whole": (-1, 4, 6)},
    ),
    # attention heads that are merged with the batch, which is on the second axis
    "heads": Net(
        {"x": (3, 8)},
        "3",
        """f = Transpose<perm = [1, 0, 2]>(x)
        v = MatMul(f, wv)
        r = Reshape(v, merged)
        q = Transpose<perm = [1, 0, 2]>(r)
        t = Transpose<perm = [0, 2, 1]>(q)
        s = MatMul(q, t)
        p = Softmax<axis = -1>(s)
        o = MatMul(p, q)
        b = Transpose<perm = [1, 0, 2]>(o)
        u = Reshape(b, whole)
        g = Sigmoid(u)
        m = ReduceMean<axes = [0], keepdims = 0>(g)
        y = MatMul(m, w)""",
        {"wv": (8, 8), "w": (8, 3)},
        {"merged": (3, -1, 4), "whole": (3, -1, 8)},
    ),
}

CASES = [
    ("cnn", "", ""),
    ("cnn", "target=1", ""),
    ("cnn", "target=top-2", ""),
    ("cnn", "target=all", "emit=completeness_error"),
    ("cnn", "target=input", "weights=true"),
    ("cnn", "wrt=h", ""),
    ("mobile", "", "weights=true"),
    ("mobile", "target=top-2", "emit=completeness_error"),
    ("bounded", "", "emit=completeness_error"),
    ("attention", "", "weights=true, emit=completeness_error"),
    ("attention", "target=top-2", ""),
    ("two inputs", "target=all", "weights=true"),
    ("two inputs", "target=input", ""),
    ("moved batch", "", ""),
    ("moved batch", "target=top-2", ""),
    ("moved batch", "target=2", "weights=true"),
    ("windows", "", "weights=true"),
    ("windows", "target=top-2", "emit=completeness_error"),
    ("heads", "", ""),
    ("heads", "target=all", "weights=true"),
]


@cache
def compiled(case: int, dtype: Any, fused: bool = False) -> tuple[tuple[str, Graph], ...]:
    """The naive form, then each step's."""
    name, target, method = CASES[case]
    first = "canonicalize,fuse-activations" if fused else "canonicalize"
    naive = f"{first},target{{{target}}},autodiff,deeplift{{{method}}}"
    graph: Graph = PassManager.from_text(naive).run(irshap.lift(NETS[name].model(dtype)))
    found = [("naive", graph)]
    for step in STEPS:
        graph = PassManager.from_text(step, [VerifyTypes()]).run(graph)
        found.append((step, graph))
    return tuple(found)


def feeds(graph: Graph, dtype: Any, n: int, r: int) -> dict[str, Array]:
    """Values for the inputs of a graph; an N and an R of them."""
    rng = np.random.default_rng(10 * n + r)
    found: dict[str, Array] = {}
    for value in graph.inputs:
        name, shape = str(value.name), (value.shape[0], *map(int, value.shape[1:]))
        rows = r if "R" in str(shape[0]) else n
        if name == "target":
            found[name] = rng.integers(0, 3, rows)
        elif name == "reference_weights":
            found[name] = (w := rng.random(rows).astype(dtype)) / w.sum()
        else:
            found[name] = rng.standard_normal((rows, *shape[1:])).astype(dtype)
    return found


def bound(graph: Graph, given: Mapping[str, Array], by: str) -> Graph:
    """The graph with the references among these inputs bound to it by this pass."""
    sets = {k.removesuffix("_references"): a for k, a in given.items() if k.endswith("_references")}
    context = Context(references=sets, weights=given.get("reference_weights"))
    behind = "conv-adjoint,absorb-scales,canonicalize,dce"
    result: Graph = PassManager.from_text(f"{by},{behind}", [VerifyTypes()]).run(graph, context)
    return result


def assert_same(found: Mapping[str, Array], expected: Mapping[str, Array], part: float, what: str) -> None:
    """The same outputs, up to this part of the largest element of each.

    The certificate is about 0: it rounds as the attributions that it sums do.
    """
    assert list(found) == list(expected)
    summed = max((np.abs(a).max() for k, a in expected.items() if k.endswith("_attributions")), default=1.0)
    for name, a in expected.items():
        b = np.asarray(found[name])
        assert b.shape == a.shape, f"{what}: {name}"
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(b, a, f"{what}: {name}")
            continue
        scale = max(1.0, float(summed)) if name == "completeness_error" else float(np.abs(a).max())
        error = float(np.abs(b.astype(np.float64) - a).max())
        assert error <= part * scale, f"{what}: {name} differs by {error:.1e} of {scale:.1e}"


NAMES = [" ".join(filter(None, case)) for case in CASES]
every_case = pytest.mark.parametrize("case", range(len(CASES)), ids=NAMES)


@every_case
def test_each_pass_keeps_the_naive_result(case: int) -> None:
    (_, naive), *steps = compiled(case, np.float64)
    for n, r in ((1, 1), (3, 4)):
        given = feeds(naive, np.float64, n, r)
        expected = evaluate(naive, given)
        for step, graph in steps:
            assert_same(evaluate(graph, given), expected, 1e-12, f"{step}, N={n}, R={r}")
        for step in BINDING:
            graph = bound(steps[-1][1], given, step)
            assert_same(evaluate(graph, given), expected, 1e-12, f"{step}, N={n}, R={r}")


@pytest.mark.parametrize(("case", "adjoints"), [("windows weights=true", 6), ("heads", 5)])
def test_samples_are_inferred_once_though_they_merge_with_others(case: str, adjoints: int) -> None:
    steps = dict(compiled(NAMES.index(case), np.float64))
    products = [n for n in steps["dce"].nodes if n.op.mnemonic == "matmul"]
    pairs = [n for n in products if {"N", "R"} <= {str(s) for s in symbols_of(n.results[0].shape)}]
    assert len(pairs) == adjoints


@every_case
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_single_reference(case: int, dtype: Any) -> None:
    """What is made for one reference gives what the naive form gives for that one taken twice."""
    (_, naive), *_ = compiled(case, np.float64)
    name, target, method = CASES[case]
    given = feeds(naive, np.float64, 3, 1)
    twice = {k: np.repeat(a, 2, 0) if k.endswith("_references") else a for k, a in given.items()}
    if "reference_weights" in given:
        twice["reference_weights"] = np.array([0.25, 0.75])
    expected = evaluate(naive, twice)
    sets = {k.removesuffix("_references"): a for k, a in given.items() if k.endswith("_references")}
    context = Context(references=sets, weights=given.get("reference_weights"))
    steps = ",".join(STEPS).replace(",conv-adjoint", ",stream{otherwise=fold},conv-adjoint")
    text = f"canonicalize,fuse-activations,target{{{target}}},autodiff,deeplift{{{method}}},{steps}"
    graph: Graph = PassManager.from_text(text, [VerifyTypes()]).run(
        irshap.lift(NETS[name].model(dtype)), context
    )
    narrow = {k: a.astype(dtype) if a.dtype.kind == "f" else a for k, a in given.items()}
    if dtype is np.float64:
        assert_same(evaluate(graph, narrow), expected, 1e-12, name)
    else:
        assert_same(_run(_session(irshap.lower(graph)), narrow), expected, 1e-5, name)


@pytest.mark.parametrize("case", [NAMES.index("cnn"), NAMES.index("cnn wrt=h")])
def test_a_fused_activation_keeps_the_naive_result(case: int) -> None:
    (_, naive), *_ = compiled(case, np.float64)
    fused = compiled(case, np.float64, fused=True)
    assert any(node.op.mnemonic == "swish" for node in fused[0][1].nodes)
    given = feeds(naive, np.float64, 3, 4)
    expected = evaluate(naive, given)
    for step, graph in (fused[0], fused[-1]):
        assert_same(evaluate(graph, given), expected, 1e-12, f"fuse-activations, {step}")


@every_case
def test_the_optimized_form_in_onnx_runtime(case: int) -> None:
    (_, naive), *_ = compiled(case, np.float64)
    *_, (_, last) = compiled(case, np.float32)
    session = _session(irshap.lower(last))
    for n, r in ((1, 4), (3, 1)):
        given = feeds(last, np.float32, n, r)
        wide = {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in given.items()}
        expected = evaluate(naive, wide)
        assert_same(_run(session, given), expected, 1e-5, f"N={n}, R={r}")
    given = feeds(last, np.float32, 2, 4)
    expected = evaluate(
        naive, {k: a.astype(np.float64) if a.dtype.kind == "f" else a for k, a in given.items()}
    )
    for step in BINDING:
        session = _session(irshap.lower(bound(last, given, step)))
        assert_same(_run(session, given), expected, 1e-5, step)


def _session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def _run(session: Any, given: Mapping[str, Array]) -> dict[str, Array]:
    names = [v.name for v in session.get_outputs()]
    results = session.run(names, {v.name: given[v.name] for v in session.get_inputs()})
    return dict(zip(names, results, strict=True))
