"""ai.onnx.ml: models of scikit-learn as skl2onnx writes them (tests/oracles/mint_sklearn.py), and its ops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from kernels import computes, loaded
from onnx import TensorProto, helper, numpy_helper

import irshap
from irshap.errors import NotDifferentiable, TargetError, UserError
from irshap.ir.types import Array

FOLDER = Path(__file__).parents[1] / "fixtures" / "sklearn"
REFUSED = {"forest": "interventional", "boosting": "interventional", "svc_probability": "raw_scores"}
NAMES = sorted(p.stem for p in FOLDER.glob("*.onnx"))
IMPORTS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]


def feeds(model: onnx.ModelProto, rows: int, seed: int) -> dict[str, Array]:
    """Samples for each input; the categories are those that the models were fitted to."""
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [rows, *(d.dim_value for d in kind.shape.dim[1:])]
        if kind.elem_type == TensorProto.FLOAT:
            found[value.name] = rng.standard_normal(shape).astype(np.float32)
        elif kind.elem_type == TensorProto.INT64:
            found[value.name] = rng.integers(0, 4, shape)
        else:
            found[value.name] = np.array(["u", "v", "w"], object)[rng.integers(0, 3, shape)]
    return found


def run(model: onnx.ModelProto, x: dict[str, Array]) -> list[Any]:
    return list(onnxruntime.InferenceSession(model.SerializeToString()).run(None, x))


def scores(output: Any) -> Array:
    """An output as numbers: of maps from classes, their values."""
    return np.array([list(m.values()) for m in output]) if isinstance(output[0], dict) else np.asarray(output)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in REFUSED])
@pytest.mark.parametrize("passes", [None, "@naive"])
def test_pipelines_of_sklearn(name: str, passes: str | None) -> None:
    """All outputs are what they were, maps too; attributions of the scores are complete."""
    model = onnx.load(FOLDER / f"{name}.onnx")
    x, given = feeds(model, 5, 1), feeds(model, 4, 2)
    references = {n: a for n, a in given.items() if a.dtype == np.float32}
    found = irshap.compile(model, references, target=0, passes=passes).explainer()(x)
    expected = run(model, x)
    for a, b in zip(found.outputs.values(), expected, strict=True):
        mine, theirs = scores(a), scores(b)
        if theirs.dtype.kind == "f":
            np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-5 * np.abs(theirs).max())
        else:
            np.testing.assert_array_equal(mine, theirs)
    explained = next(s for s in map(scores, expected) if s.dtype.kind == "f").reshape(5, -1)[:, 0]
    size = max(1e-3, float(np.abs(explained).max()))
    np.testing.assert_allclose(found.target_values, explained, atol=2e-5 * size)
    # the base is that of the references with each sample's own categories
    bases = []
    for row in range(5):
        both = {n: references.get(n, np.repeat(a[row : row + 1], 4, 0)) for n, a in x.items()}
        first = next(s for s in map(scores, run(model, both)) if s.dtype.kind == "f")
        bases.append(first.reshape(4, -1)[:, 0].mean())
    np.testing.assert_allclose(found.total(), explained - bases, rtol=1e-4, atol=2e-5 * size)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_says_what_to_do(name: str) -> None:
    model = onnx.load(FOLDER / f"{name}.onnx")
    with pytest.raises(NotDifferentiable, match=REFUSED[name]):
        irshap.compile(model, feeds(model, 3, 2), target=0)


def test_the_output_behind_maps_can_be_named() -> None:
    """By the output's own name, and by that of the tensor that it is made of."""
    model = onnx.load(FOLDER / "mlp_classifier.onnx")
    x, references = feeds(model, 5, 1), feeds(model, 4, 2)
    (zip_map,) = (n for n in model.graph.node if n.op_type == "ZipMap")
    given = [
        irshap.compile(model, references, target=irshap.Target("1", output=output)).explainer()(x).values
        for output in ("output_probability", zip_map.input[0], "")
    ]
    np.testing.assert_array_equal(given[0], given[1])
    np.testing.assert_array_equal(given[0], given[2])
    predicted = irshap.compile(model, references).explainer()(x)
    np.testing.assert_array_equal(predicted.target_index, predicted.outputs["output_label"])


def single(op: str, inputs: list[tuple[str, int, list[Any]]], outputs: int = 1, **attributes: Any) -> Any:
    """A model of one op."""
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(
        op, [n for n, *_ in inputs], names, domain="ai.onnx.ml", name="node", **attributes
    )
    kinds = [TensorProto.FLOAT] if outputs == 1 else [TensorProto.INT64, TensorProto.FLOAT]
    graph = helper.make_graph(
        [node],
        "net",
        [helper.make_tensor_value_info(*given) for given in inputs],
        [
            helper.make_tensor_value_info(n, k, ["N"] if k == TensorProto.INT64 else ["N", "K"])
            for n, k in zip(names, kinds, strict=True)
        ],
    )
    return helper.make_model(graph, opset_imports=IMPORTS, ir_version=8)


X = ("x", TensorProto.FLOAT, ["N", 3])
SUPPORTED = {
    "kernel_params": [0.5, 0.1, 3.0],
    "support_vectors": [1.0, 0.0, 0.5, 0.0, 1.0, 0.0, -1.0, 0.0, 1.0],
}
ONE, THREE = {"classlabels_ints": [3, 7]}, {"classlabels_ints": [4, 2, 9]}
CASES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "scaler of one number": ("Scaler", 1, {"offset": [1.0], "scale": [2.0]}),
    "imputer of a number": (
        "Imputer",
        1,
        {"imputed_value_floats": [5.0, 6.0, 7.0], "replaced_value_float": 0.0},
    ),
    "normalizer max": ("Normalizer", 1, {"norm": "MAX"}),
    "normalizer l1": ("Normalizer", 1, {"norm": "L1"}),
    "normalizer l2": ("Normalizer", 1, {"norm": "L2"}),
    "binarizer": ("Binarizer", 1, {"threshold": 0.25}),
    "regressor": ("LinearRegressor", 1, {"coefficients": [1.0, -2.0, 0.5], "intercepts": [0.3]}),
}
for transform in ("NONE", "LOGISTIC", "SOFTMAX"):
    score = {"coefficients": [1.0, 0.5, -1.0], "intercepts": [0.25], "post_transform": transform}
    CASES[f"one score {transform}"] = ("LinearClassifier", 2, {**score, **ONE})
    several = {"coefficients": np.linspace(-1, 1, 9).tolist(), "intercepts": [0.1, 0.2, -0.3], **THREE}
    CASES[f"scores {transform}"] = ("LinearClassifier", 2, {**several, "post_transform": transform})
for kernel in ("LINEAR", "POLY", "RBF", "SIGMOID"):
    support = {**SUPPORTED, "kernel_type": kernel, "rho": [0.3, 0.1, -0.2]}
    CASES[f"svr {kernel}"] = (
        "SVMRegressor",
        1,
        {**support, "coefficients": [1.0, -2.0, 0.5], "n_supports": 3},
    )
    two = {"coefficients": [1.0, 0.5, -1.5], "vectors_per_class": [2, 1], **ONE}
    CASES[f"svc {kernel}"] = ("SVMClassifier", 2, {**support, **two})
    three = {"coefficients": [1.0, 0.5, -1.5, 0.3, 0.7, -0.2], "vectors_per_class": [1, 1, 1], **THREE}
    CASES[f"svc of three {kernel}"] = ("SVMClassifier", 2, {**support, **three})


@pytest.mark.parametrize("case", CASES)
def test_ops_are_what_onnx_runtime_makes_of_them(case: str) -> None:
    """In standard ops, at zeros and far away, too."""
    op, outputs, attributes = CASES[case]
    model = single(op, [X], outputs, **attributes)
    x = np.concatenate([np.random.default_rng(3).standard_normal((8, 3)), np.zeros((1, 3)), -np.eye(3)])
    x = x.astype(np.float32)
    lowered = irshap.lower(irshap.lift(model))
    assert {n.domain for n in lowered.graph.node} == {""}
    if case == "one score LOGISTIC":
        unsure = single(op, [X], outputs, **attributes | {"coefficients": [0.0] * 3, "intercepts": [0.0]})
        if not computes(unsure, {"x": x}, np.float32(0.5), output=1):
            pytest.skip("this ONNX Runtime gives one score as it is, whatever its post_transform")
    for a, b in zip(run(lowered, {"x": x}), run(model, {"x": x}), strict=True):
        if b.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(a, b)


def test_features_are_joined_and_picked() -> None:
    nodes = [
        helper.make_node(
            "FeatureVectorizer", ["a", "b"], ["all"], domain="ai.onnx.ml", inputdimensions=[2, 1]
        ),
        helper.make_node("ArrayFeatureExtractor", ["all", "at"], ["y"], domain="ai.onnx.ml"),
    ]
    given = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("a", 2), ("b", 1))]
    found = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])]
    at = [numpy_helper.from_array(np.array([2, 0]), "at")]
    model = helper.make_model(
        helper.make_graph(nodes, "net", given, found, at), opset_imports=IMPORTS, ir_version=8
    )
    rng = np.random.default_rng(0)
    x, references = (
        {n: rng.random((3, k)).astype(np.float32) for n, k in (("a", 2), ("b", 1))} for _ in "xr"
    )
    explained = irshap.compile(model, references, target=1).explainer()(x)
    np.testing.assert_array_equal(explained.outputs["y"], run(model, x)[0])
    np.testing.assert_allclose(
        explained.values["a"][:, 0], x["a"][:, 0] - references["a"][:, 0].mean(), atol=1e-6
    )
    assert not explained.values["a"][:, 1].any() and not explained.values["b"].any()


# ---- ops without a rule, whose rows are known to stay apart ------------------------------------------------


def test_a_label_encoder_before_a_lookup() -> None:
    """Strings become the rows of a table, which are attributed."""
    rng = np.random.default_rng(0)
    given = [
        numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n)
        for n, s in (("t", (4, 5)), ("w", (5, 2)))
    ]
    nodes = [
        helper.make_node(
            "LabelEncoder", ["words"], ["ids"], domain="ai.onnx.ml", name="encoder",
            keys_strings=["a", "b", "c"], values_int64s=[1, 2, 3], default_int64=0,
        ),
        helper.make_node("Gather", ["t", "ids"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("words", TensorProto.STRING, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        given,
    )
    model = helper.make_model(graph, opset_imports=IMPORTS, ir_version=8)
    x = np.array([["a", "b", "z"], ["c", "c", "a"]], object)
    references = np.array([["z", "z", "z"]], object)
    found = irshap.compile(model, references, target=irshap.Target("1", wrt="e")).explainer()(x)
    y, y0 = run(model, {"words": x})[0], run(model, {"words": references})[0]
    np.testing.assert_allclose(found.values.reshape(2, -1).sum(1), y[:, 1] - y0[0, 1], atol=1e-5)


def test_a_recurrent_layer_without_a_rule_before_what_is_attributed() -> None:
    """Its batch comes first (layout 1), which has no rule; the dense layer behind it is explained."""
    rng = np.random.default_rng(0)
    shapes = {"w": (1, 20, 3), "r": (1, 20, 5), "v": (5, 2)}
    given = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
    given.append(numpy_helper.from_array(np.array([1]), "one"))
    nodes = [
        helper.make_node(
            "LSTM", ["x", "w", "r"], ["", "last"], hidden_size=5, clip=3.0, name="lstm", layout=0
        ),
        helper.make_node("Squeeze", ["last", "zero"], ["s"]),
        helper.make_node("Relu", ["s"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    given.append(numpy_helper.from_array(np.array([0]), "zero"))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        given,
    )
    model = helper.make_model(graph, opset_imports=IMPORTS, ir_version=8)
    x, references = (rng.standard_normal((4, n, 3)).astype(np.float32) for n in (3, 2))
    # ONNX Runtime folds what follows from the references, and older ones fail where an output has no name
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    alone.graph.input.pop()
    alone.graph.initializer.append(numpy_helper.from_array(references, "x"))
    loaded(alone)
    found = irshap.compile(
        model, references.transpose(1, 0, 2), target=irshap.Target("1", wrt="s")
    ).explainer()(x)
    y, y0 = run(model, {"x": x})[0], run(model, {"x": references})[0]
    np.testing.assert_allclose(found.values.reshape(3, -1).sum(1), y[:, 1] - y0[:, 1].mean(), atol=1e-5)


def test_the_op_that_loses_the_batch_is_named() -> None:
    """Not the export, which has a dynamic batch axis already."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Unique", ["a"], ["u"], name="distinct"),
        helper.make_node("Tanh", ["u"], ["y"], name="tanh"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M"])],
    )
    model = helper.make_model(graph, opset_imports=IMPORTS, ir_version=8)
    with pytest.raises(TargetError, match=r"distinct \(Unique\) loses the batch") as refused:
        irshap.compile(model, np.zeros((1, 3), np.float32), target=0)
    assert "dynamic batch" not in str(refused.value)
    assert isinstance(refused.value, UserError)


def test_maps_of_classes_where_the_batch_gets_lost_before_them() -> None:
    """Scores stacked along the batch, as skl2onnx writes discriminants: each row has its map."""
    text = """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
        g (float[N, 3] x) => (seq(map(int64, float)) y)
        <int64[2] two = {2, -1}, float[3, 1] v = {1, -1, 2}, float[3, 1] w = {0.5, 1, 1}> {
            a = MatMul(x, v)  b = MatMul(x, w)  c = Concat<axis = 0>(a, b)
            r = Reshape(c, two)  t = Transpose<perm = [1, 0]>(r)  p = Softmax<axis = 1>(t)
            y = ai.onnx.ml.ZipMap<classlabels_int64s = [4, 7]>(p) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    x, references = (rng.standard_normal((n, 3)).astype(np.float32) for n in (5, 4))
    found = irshap.compile(model, references, target=1).explainer()(x)
    expected, base = (scores(run(model, {"x": rows})[0])[:, 1] for rows in (x, references))
    assert [list(row) for row in found.outputs["y"]] == [[4, 7]] * 5
    np.testing.assert_allclose(scores(found.outputs["y"])[:, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(found.total(), expected - base.mean(), rtol=1e-5, atol=1e-6)
    # p1's gradient is p0 p1 (w1 - w0)
    slopes = irshap.compile(model, method="gradient", target=1).explainer()(x).values
    weights = np.array([0.5, 1, 1]) - np.array([1, -1, 2])
    np.testing.assert_allclose(slopes, (expected * (1 - expected))[:, None] * weights, rtol=1e-4, atol=1e-6)
