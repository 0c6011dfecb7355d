"""Integer inputs that lookups read both alone and combined, as a box by its sides and by its width."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import irshap
from irshap.errors import ReferencesError
from irshap.lowering.files.session import Session

BOXES = """<ir_version: 8, opset_import: ["": 17]>
g (int64[N, 4] ids, int64[N, 4, 2] box) => (float[N, 3] y)
<int64 zero = {0}, int64 one = {1}, int64[1] axis = {1}>
{
    left = Gather<axis = 2>(box, zero)  right = Gather<axis = 2>(box, one)  width = Sub(right, left)
    w = Gather(words, ids)  a = Gather(sides, left)  b = Gather(sides, right)  c = Gather(widths, width)
    ab = Add(a, b)  abc = Add(ab, c)  e = Mul(w, abc)  t = Tanh(e)  y = ReduceSum<keepdims = 0>(t, axis)
}"""
WIDE = np.array([[[0, 3], [2, 8], [1, 1], [4, 6]], [[5, 6], [0, 0], [2, 7], [3, 8]]])


def boxes(text: str = BOXES) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    for i, (name, rows) in enumerate({"words": 6, "sides": 9, "widths": 9}.items()):
        table = np.random.default_rng(i).standard_normal((rows, 3)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(table, name))
    return model


def test_what_lookups_read_combined_is_held() -> None:
    """LayoutLM looks up boxes' sides, and their widths: a reference must not have another box's sides."""
    x, r = np.array([[1, 2, 3, 0], [5, 4, 1, 1]]), np.array([[3, 3, 0, 2]])
    found = irshap.compile(boxes(), r).explainer()({"ids": x, "box": WIDE})
    assert found.values.shape == x.shape
    run = Session(boxes()).run
    base = run({"ids": np.repeat(r, 2, 0), "box": WIDE})[0]
    np.testing.assert_allclose(found.base_values, base[[0, 1], found.target_index], atol=1e-6)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-6)
    with pytest.raises(ReferencesError, match="input 'box' takes no references"):
        irshap.compile(boxes(), {"ids": r, "box": WIDE[:1]})


def test_what_lookups_read_combined_is_attributed_where_nothing_else_is() -> None:
    alone = boxes(BOXES.replace("int64[N, 4] ids, ", "").replace("Gather(words, ids)", "Gather(words, left)"))
    found = irshap.compile(alone, WIDE[:1] % 6).explainer()(WIDE % 6)
    assert found.values.shape == WIDE.shape
