"""Ids that become vectors of zeros and a one: as good as a lookup, with one number for each id."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap

ONE_HOTS = {
    "equal": "c = Unsqueeze(ids, end) q = Equal(c, all) e = Cast<to=1>(q)",
    "expanded": "c = Unsqueeze(ids, end) n = Shape(c) x = Expand(c, n) q = Equal(x, all) e = Cast<to=1>(q)",
    "op": "e = OneHot(ids, depth, ends)",
}


@pytest.mark.parametrize("kind", ONE_HOTS)
def test_ids_that_become_vectors_of_zeros_and_a_one(kind: str) -> None:
    """As good as a lookup: one number for each id."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (int64[N,3] ids) => (float[N,2] y)
        <float[4,2] table = {{1,2,3,-4,5,6,-7,8}}, int64[1] axis = {{1}}, int64[1] end = {{-1}},
        int64[4] all = {{0,1,2,3}}, int64 depth = {{4}}, float[2] ends = {{0, 1}}> {{
        {ONE_HOTS[kind]} w = MatMul(e, table) t = Tanh(w) y = ReduceSum<keepdims=0>(t, axis) }}"""
    )
    references, ids = np.array([[0, 1, 2]]), np.array([[3, 1, 0], [2, 2, 2]])
    found = irshap.compile(model, references, target="1").explainer()(ids)
    table = np.tanh(np.array([2, -4, 6, 8]))
    np.testing.assert_allclose(found.values, table[ids] - table[references], rtol=1e-5, atol=1e-6)
