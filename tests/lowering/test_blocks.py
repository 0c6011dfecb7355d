"""Col2Im lifts to a transposed convolution."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.errors import NotDifferentiable
from irshap.lowering import lift, lower
from irshap.lowering.files.session import Session

FORMS = {
    "one axis": ("N, 6, 3", "4", "2", ""),
    "side by side": ("N, 8, 16", "8, 8", "2, 2", "<strides = [2, 2]>"),
    "overlapping": ("N, 8, 9", "4, 4", "2, 2", ""),
    "padded": ("N, 12, 15", "5, 6", "2, 3", "<strides = [2, 1], pads = [1, 0, 0, 1]>"),
    "with gaps": ("N, 8, 8", "4, 6", "2, 2", "<dilations = [2, 2]>"),
    "a volume": ("N, 8, 8", "3, 3, 3", "2, 2, 2", ""),
}  # fmt: skip


def model(shape: str, image: str, block: str, attributes: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 18]> g (float[{shape}] x) => (float[N, m] y)
        <int64[k] image = {{{image}}}, int64[k] block = {{{block}}}>
        {{ c = Col2Im {attributes} (x, image, block) t = Tanh(c) y = Flatten(t) }}""".replace(
            "[k]", f"[{image.count(',') + 1}]"
        )
    )


@pytest.mark.parametrize("name", FORMS)
def test_as_onnx_runtime_has_it(name: str) -> None:
    made = model(*FORMS[name])
    graph = lift(made)
    assert all(n.op.modeled for n in graph.nodes)
    shape = [2, *(int(d) for d in FORMS[name][0].split(", ")[1:])]
    x, r = (np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i in range(2))
    here, there = (Session(m).run({"x": x})[0] for m in (lower(graph), made))
    np.testing.assert_allclose(here, there, atol=1e-6)
    found = irshap.compile(made, r).explainer()(x)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-5)


def test_a_block_too_large_for_kernels_still_keeps_rows_apart() -> None:
    made = model("N, 1056, 1", "33, 32", "33, 32", "")
    with pytest.raises(NotDifferentiable, match=r"Col2Im.* up to 1024 elements"):
        irshap.compile(made, np.zeros((1, 1056, 1), np.float32))
