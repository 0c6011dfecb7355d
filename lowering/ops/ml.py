"""Preprocessing and linear models of the domain ai.onnx.ml, as skl2onnx writes them, in standard ops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import same
from irshap.ir.types import Array, DType, Tensor
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.index import counted_from_front
from irshap.ops.arithmetic import where
from irshap.ops.cast import cast
from irshap.ops.elementwise import Logistic
from irshap.ops.gather import Gather
from irshap.ops.index import ArgMax
from irshap.ops.logic import Equal, Greater, IsNaN
from irshap.ops.program import Constant, constant
from irshap.ops.shape import concat, reshape

__all__ = ["columns", "labels", "transformed"]

TREES = (
    "a tree ensemble is made of steps, which no local rule sums up: use interventional TreeSHAP on the model "
    "that it was converted from, such as shap.TreeExplainer(feature_perturbation='interventional')"
)


def columns(n: Import) -> Value:
    """The features [N, F] as float32; a vector is one sample."""
    x = n.tensor()
    if x.rank != 2 or x.dtype is DType.STR:
        raise Unmodeled(f"its features are {x.type}, not [samples, features]")
    return cast(x, DType.F32)


def numbers(n: Import, name: str) -> Array:
    """An attribute with a list of floats."""
    return np.asarray(n.attributes.get(name, ()), np.float32)


def transformed(n: Import, scores: Value) -> Value:
    """Scores [N, K] after the attribute post_transform."""
    kind = n.attribute("post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return n.one(Logistic(), scores)
    if kind == "SOFTMAX":
        return n.call("Softmax", scores, axis=-1)
    raise Unmodeled(f"its scores are transformed by {kind}")


def labels(n: Import, index: Value) -> Value:
    """The names [N] of the classes whose numbers are `index` [N]."""
    for name in ("classlabels_ints", "classlabels_int64s", "classlabels_strings"):
        if name in n.attributes:
            return emit1(Gather(0), _listed(n, name), index)
    raise Unmodeled("its classes have no names")


def _listed(n: Import, name: str) -> Value:
    """An attribute with whole numbers or strings, as a constant."""
    found = n.attributes[name]
    if name.endswith("strings"):
        return n.one(Constant(Tensor(np.array([s.decode() for s in found], object))))
    return constant(found, DType.I64)


def best(scores: Value) -> Value:
    """The number [N] of the class with the largest of [N, K] scores."""
    return emit1(ArgMax((1,), keepdims=False), scores)


@importer("ai.onnx.ml.Scaler")
def _read_scaler(n: Import) -> Value:
    x = cast(n.tensor(), DType.F32)
    return (x - constant(numbers(n, "offset"))) * constant(numbers(n, "scale"))


@importer("ai.onnx.ml.Imputer")
def _read_imputer(n: Import) -> Value:
    x = n.tensor()
    if x.dtype.is_float:
        missing, given = n.attribute("replaced_value_float", 0.0), numbers(n, "imputed_value_floats")
    else:
        missing = n.attribute("replaced_value_int64", 0)
        given = np.asarray(n.attributes.get("imputed_value_int64s", ()), np.int64)
    if not given.size:
        raise Unmodeled("it has nothing to impute")
    absent = emit1(IsNaN(), x) if np.isnan(missing) else emit1(Equal(), x, constant(missing, x.dtype))
    return where(absent, constant(given, x.dtype), x)


@importer("ai.onnx.ml.Normalizer")
def _read_normalizer(n: Import) -> Value:
    x, norm = columns(n), n.attribute("norm", "MAX")
    if norm == "MAX":
        # ONNX Runtime divides by the largest number, not by the largest magnitude
        most = n.call("ReduceMax", x, constant([1], DType.I64), keepdims=1)
        return x / where(emit1(Equal(), most, constant(0.0, DType.F32)), 1.0, most)
    if norm not in ("L1", "L2"):
        raise Unmodeled(f"no norm is called {norm}")
    return n.call("LpNormalization", x, axis=1, p=int(norm[1]))


@importer("ai.onnx.ml.Binarizer")
def _read_binarizer(n: Import) -> Value:
    x = n.tensor()
    return cast(emit1(Greater(), x, constant(n.attribute("threshold", 0.0), x.dtype)), x.dtype)


@importer("ai.onnx.ml.OneHotEncoder")
def _read_one_hot(n: Import) -> Value:
    x = n.tensor()
    strings = "cats_strings" in n.attributes
    if not n.attribute("zeros", 1):
        raise Unmodeled("it stops at categories that it doesn't know (zeros=0)")
    if strings != (x.dtype is DType.STR):
        raise Unmodeled(f"its categories and its input, {x.dtype.value}, differ in type")
    known = _listed(n, "cats_strings" if strings else "cats_int64s")
    each = reshape(x if strings else cast(x, DType.I64), (*x.shape, 1))
    return cast(emit1(Equal(), each, known), DType.F32)


@importer("ai.onnx.ml.ArrayFeatureExtractor")
def _read_extractor(n: Import) -> Value:
    x = n.tensor(0)
    index = counted_from_front(n, 1, x.shape[-1])
    flat = reshape(index, (index.tensor.size,))
    picked = emit1(Gather(x.rank - 1), x, flat)
    return reshape(picked, (1, *picked.shape)) if x.rank == 1 else picked


@importer("ai.onnx.ml.FeatureVectorizer")
def _read_vectorizer(n: Import) -> Value:
    parts = [cast(v, DType.F32) for v in n.given()]
    if any(v.rank != 2 for v in parts):
        raise Unmodeled("its inputs aren't [samples, features]")
    sizes = n.attributes.get("inputdimensions", [v.shape[1] for v in parts])
    if not all(same(v.shape[1], size) for v, size in zip(parts, sizes, strict=True)):
        raise Unmodeled("it cuts or pads its inputs (inputdimensions)")
    return concat(parts, 1)


def _linear(n: Import, count: int) -> Value:
    """[N, count] scores."""
    x, weights, bias = columns(n), numbers(n, "coefficients"), numbers(n, "intercepts")
    scores = n.call("MatMul", x, constant(weights.reshape(count, -1).T))
    return scores + constant(bias) if bias.size else scores


@importer("ai.onnx.ml.LinearRegressor")
def _read_regressor(n: Import) -> Value:
    if n.attribute("post_transform", "NONE") != "NONE":
        raise Unmodeled("it transforms its result, which ONNX Runtime leaves as it is")
    return _linear(n, n.attribute("targets", 1))


@importer("ai.onnx.ml.LinearClassifier")
def _read_classifier(n: Import) -> Sequence[Value]:
    names = n.attributes.get("classlabels_ints") or n.attributes.get("classlabels_strings") or []
    features = n.tensor().shape[1]
    if not isinstance(features, int) or not names:
        raise Unmodeled("its number of features or its classes aren't known")
    count, rest = divmod(len(n.attributes["coefficients"]), features)
    if rest or count not in (1, len(names)) or (count == 1 and len(names) != 2):
        raise Unmodeled(f"its coefficients for {len(names)} classes don't fit {features} features")
    scores = _linear(n, count)
    if count > 1:
        return labels(n, best(scores)), transformed(n, scores)
    # one score is that of the second class; of the transformations ONNX Runtime knows one here
    second = n.one(Logistic(), scores) if n.attribute("post_transform", "NONE") == "LOGISTIC" else scores
    chosen = cast(emit1(Greater(), scores, constant(0.0, DType.F32)), DType.I64)
    return labels(n, reshape(chosen, scores.shape[:1])), concat([1.0 - second, second], 1)


@importer("ai.onnx.ml.TreeEnsemble", "ai.onnx.ml.TreeEnsembleClassifier", "ai.onnx.ml.TreeEnsembleRegressor")
def _read_trees(n: Import) -> Sequence[Value]:
    raise Unmodeled(TREES)
