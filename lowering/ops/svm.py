"""Support vector machines of the domain ai.onnx.ml, by products with their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.types import Array, DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.ml import best, columns, labels, numbers
from irshap.ops.cast import cast
from irshap.ops.logic import Greater
from irshap.ops.program import constant
from irshap.ops.shape import concat

__all__: list[str] = []


def _kernel(n: Import, x: Value, vectors: Array) -> Value:
    """k(x, v) for each of the support vectors [S, F]: [N, S]."""
    kind = n.attribute("kernel_type", "LINEAR")
    gamma, offset, degree = (*map(float, n.attributes.get("kernel_params", ())), 0.0, 0.0, 0.0)[:3]
    if kind == "RBF":
        # |x - v|^2 by products, around the middle of the vectors, so that no digits cancel
        middle = vectors.mean(0, dtype=np.float64).astype(np.float32)
        apart, vectors = x - constant(middle), vectors - middle
        lengths = n.call("ReduceSumSquare", apart, constant([1], DType.I64), keepdims=1)
        cross = n.call("MatMul", apart, constant(2 * vectors.T))
        return n.call("Exp", (lengths - cross + constant((vectors**2).sum(1))) * -gamma)
    products = n.call("MatMul", x, constant(vectors.T))
    if kind == "LINEAR":
        return products
    inner = products * gamma + offset
    if kind == "POLY":
        return n.call("Pow", inner, constant(degree, DType.F32))
    if kind == "SIGMOID":
        return n.call("Tanh", inner)
    raise Unmodeled(f"no kernel is called {kind}")


def _features(n: Import) -> int:
    features = n.tensor().shape[1]
    if not isinstance(features, int):
        raise Unmodeled("its number of features isn't known")
    return features


@importer("ai.onnx.ml.SVMRegressor")
def _read_regressor(n: Import) -> Value:
    if n.attribute("one_class", 0):
        raise Unmodeled("it gives a sign (one_class): a step")
    if n.attribute("post_transform", "NONE") != "NONE":
        raise Unmodeled("it transforms its result, which ONNX Runtime leaves as it is")
    x, weights, rho = columns(n), numbers(n, "coefficients"), numbers(n, "rho")
    if n.attribute("n_supports", 0):
        x = _kernel(n, x, numbers(n, "support_vectors").reshape(-1, _features(n)))
    return n.call("MatMul", x, constant(weights.reshape(-1, 1))) + constant(rho[:1])


@importer("ai.onnx.ml.SVMClassifier")
def _read_classifier(n: Import) -> Sequence[Value]:
    if "prob_a" in n.attributes:
        raise Unmodeled(
            "its probabilities are found by iterating: convert it with its scores (skl2onnx: "
            "options={SVC: {'raw_scores': True}} or probability=False)"
        )
    if "vectors_per_class" not in n.attributes or n.attribute("post_transform", "NONE") != "NONE":
        raise Unmodeled("it has no support vectors, or transforms its scores")
    counts = list(n.attributes["vectors_per_class"])
    vectors = numbers(n, "support_vectors").reshape(sum(counts), _features(n))
    pairs = list(combinations(range(len(counts)), 2))
    weights = _pairwise(numbers(n, "coefficients").reshape(len(counts) - 1, -1), counts)
    rho = constant(numbers(n, "rho")[: len(pairs)])
    scores = n.call("MatMul", _kernel(n, columns(n), vectors), constant(weights)) + rho
    won = cast(emit1(Greater(), scores, constant(0.0, DType.F32)), DType.F32)
    # each pair votes: a positive score is the first one's
    for_first, for_second = (np.zeros((len(pairs), len(counts)), np.float32) for _ in range(2))
    for row, (i, j) in enumerate(pairs):
        for_first[row, i] = for_second[row, j] = 1
    votes = n.call("MatMul", won, constant(for_first)) + n.call("MatMul", 1.0 - won, constant(for_second))
    given = concat([-scores, scores], 1) if len(counts) == 2 else scores
    return labels(n, best(votes)), given


def _pairwise(given: Array, counts: Sequence[int]) -> Array:
    """The weights of the vectors [S] in the score of each pair of classes: [S, pairs]."""
    ends = np.cumsum([0, *counts])
    own = [slice(a, b) for a, b in pairwise(map(int, ends))]
    pairs = list(combinations(range(len(counts)), 2))
    found = np.zeros((ends[-1], len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        found[own[i], column] = given[j - 1, own[i]]
        found[own[j], column] = given[i, own[j]]
    return found
