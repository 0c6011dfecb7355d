"""Half precision: each op alone in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contract import Case, feeds_of, session_outputs
from onnx import numpy_helper
from test_contract import DIFFERENTIABLE, op_graph

import irshap
from irshap import demo
from irshap.lowering import lower


def in_half(case: Case) -> tuple[Case, list[np.ndarray]]:
    arrays = [a.astype(np.float16) if a.dtype.kind == "f" else a for a in case.sample.operands]
    return case.with_arrays(arrays), arrays


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_every_op_runs_in_float16(case: Case) -> None:
    """Lowered, it has kernels on ONNX Runtime's CPU, or casts around it; sums of float16 are no worse."""
    with np.errstate(over="ignore"):
        case, arrays = in_half(case)
        expected = case.results([a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays])
        found = session_outputs(lower(op_graph(case)), feeds_of(x=arrays))
        assert found is not None
        for a, b in zip(expected, found, strict=True):
            if a.dtype.kind == "f":
                narrow = a.astype(np.float16).astype(np.float64)
                scale = np.abs(narrow[np.isfinite(narrow)]).max(initial=0.0)
                np.testing.assert_allclose(b, narrow, rtol=1e-3, atol=1e-3 * scale)
            else:
                np.testing.assert_array_equal(a, b)


def converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 model as a float16 one."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del half.graph.value_info[:]
    return half


@pytest.mark.parametrize("target", ["argmax", "top-2"])
def test_a_float16_model(target: str) -> None:
    """Its classes are put in place by a scatter, which ONNX Runtime's CPU has for no float16."""
    model, references = onnx.load(demo.model_path()), np.load(demo.references_path())[:5]
    images = demo.digits()[0][:3]
    wanted = irshap.compile(model, references, target=target).explainer()(images)
    found = irshap.compile(converted(model), references, target=target).explainer()(images)
    assert found.values.dtype == np.float16
    largest = np.abs(wanted.values).max()
    np.testing.assert_allclose(found.values.astype(np.float32), wanted.values, atol=0.02 * largest)
