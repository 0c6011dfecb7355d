"""Half precision: each op alone in ONNX Runtime, float16 models, and the pass on the fixtures' models."""

from __future__ import annotations

from pathlib import Path

import flat
import numpy as np
import onnx
import pytest
from contract import DIFFERENTIABLE, Case, feeds_of, op_graph, session_outputs
from exactness import FAMILIES, MODELS, SINGLE, assert_close, attributions, case, explained
from onnx import numpy_helper
from rounding import rounding

import irshap
from irshap import demo
from irshap.errors import PipelineError
from irshap.ir.types import DType
from irshap.lowering import lower
from irshap.ops import quantized
from irshap.pipeline.named import PIPELINES
from irshap.pipeline.text import parse_pipeline

pytestmark = pytest.mark.slow


def in_half(case: Case) -> tuple[Case, list[np.ndarray]]:
    arrays = [a.astype(np.float16) if a.dtype.kind == "f" else a for a in case.sample.operands]
    return case.with_arrays(arrays), arrays


QUANTIZATION = Path(quantized.__file__).stem
"""ONNX has float16 scales since opset 19 only; such models are explained in float32 (the pass single)."""


def _narrows(case: Case) -> bool:
    return not case.op.bodies and type(case.op).__module__.rpartition(".")[2] != QUANTIZATION


@pytest.mark.parametrize("case", [p for p in DIFFERENTIABLE if _narrows(p.values[0])])
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
    assert found.values.dtype == np.float32
    largest = np.abs(wanted.values).max()
    np.testing.assert_allclose(found.values.astype(np.float32), wanted.values, atol=0.02 * largest)


def assert_near_float32(name: str, found: irshap.Explanation) -> None:
    """Predictions are the same, attributions within 2 % of the largest, and sums within 2 % of f - base."""
    wanted = explained(name, "@default")
    for output, array in wanted.outputs.items():
        np.testing.assert_allclose(found.outputs[output], array, rtol=1e-5, atol=1e-5, err_msg=output)
    assert_close(attributions(found.raw), attributions(wanted.raw), 0.02)
    gap = np.abs(found.target_values - found.base_values)
    assert (np.abs(found.completeness_error) <= 0.02 * gap + 1e-4).all()


@pytest.mark.parametrize("name", MODELS)
def test_the_fixtures_in_onnx_runtime(name: str) -> None:
    given = case(name)
    compiled = flat.compile(given.path, given.references, wrt=given.wrt, fp16=True)
    assert_near_float32(name, compiled.explainer()(given.inputs))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", [*SINGLE, *(f"{family}_dynamo" for family in FAMILIES)])
def test_the_fixtures_where_every_op_rounds(name: str, device: str) -> None:
    given = case(name)
    compiled = flat.compile(given.path, given.references, wrt=given.wrt, device=device, fp16=True)
    metadata = {p.key: p.value for p in compiled.model.metadata_props}
    found = irshap.Explainer(lower(rounding(compiled.graph), metadata=metadata))(given.inputs)
    assert_near_float32(name, found)


@pytest.mark.parametrize("store", ["activations", "references"])
def test_in_a_loop_over_references(store: str) -> None:
    """What the loop's body reads in float16 comes in so, and is stored so."""
    given = case("digits")
    steps = PIPELINES["default"].replace("stream{otherwise=fold}", f"stream{{chunk=4, store={store}}}")
    options = {"passes": steps, "fp16": True, "verify": "types"}
    compiled = flat.compile(given.path, given.references, **options)  # type: ignore[arg-type]
    (loop,) = (n for n in compiled.graph.nodes if n.op.bodies)
    assert any(v.dtype is DType.F16 for v in loop.operands)
    assert all(v.dtype is DType.F32 for v in loop.results)
    assert_near_float32("digits", compiled.explainer()(given.inputs))


def test_what_is_asked_for() -> None:
    def names(**given: object) -> list[str]:
        return [p.name for p in parse_pipeline(flat.pipeline_text(**given))]  # type: ignore[arg-type]

    assert "fp16" not in names()
    assert names(fp16=True)[-2:] == ["fp16", "lower"]
    assert names(device="cuda", fp16=True)[-2:] == ["fp16", "lower"]
    assert not {"fp16", "conv-adjoint", "max-unpool"} & set(names(device="cuda"))
    assert names(device="cuda", method="gradient", fp16=True)[-3:] == ["dce", "fp16", "lower"]
    assert names(passes="@naive", fp16=True)[-2:] == ["fp16", "lower"]
    assert names(passes="@cuda", fp16=True) == names(device="cuda", fp16=True)
    with pytest.raises(PipelineError, match="fp16=False contradicts the given passes"):
        names(passes=PIPELINES["cuda"].replace("lower", "fp16,lower"), fp16=False)
    with pytest.raises(PipelineError, match="device 'cuda' contradicts the given passes"):
        names(passes="@naive", device="cuda")
    with pytest.raises(PipelineError, match="no device is called 'gpu'"):
        names(device="gpu")
    with pytest.raises(PipelineError, match="no op is called 'convolution'"):
        parse_pipeline("fp16{keep=(convolution)}")


def test_half_inputs_and_outputs() -> None:
    given = case("digits")
    steps = PIPELINES["default"].replace(",lower", ",fp16{io=half},lower")
    found = irshap.compile(given.path, given.references, passes=steps).explainer()(given.inputs)
    assert found.raw["logits"].dtype == np.float16
    assert found.values.dtype == found.base_values.dtype == np.float32
    assert_close(attributions(found.raw), attributions(explained("digits", "@default").raw), 0.02)


@pytest.mark.parametrize("io", ["keep", "half"])
@pytest.mark.parametrize("name", ["digits", "text_dynamo"])
def test_numeric_verification(name: str, io: str) -> None:
    """It allows what float16 inside rounds to, and other element types of outputs after this pass."""
    given = case(name)
    steps = PIPELINES["default"].replace(",lower", f",fp16{{io={io}}},lower")
    references = {k: a[:2] for k, a in given.references.items()}
    compiled = flat.compile(given.path, references, passes=steps, verify="numeric")
    checked = [r.verified for r in compiled.report.passes if r.text.startswith(("fp16", "lower"))]
    # inputs of another type can't be given to both sides
    assert ["skipped" in v for v in checked] == [io == "half" and name == "digits", False]


def test_a_float16_model_keeps_its_predictions() -> None:
    model, references = converted(onnx.load(demo.model_path())), np.load(demo.references_path())[:5]
    images = demo.digits()[0][:3]
    wanted = irshap.compile(model, references).explainer()(images)
    found = irshap.compile(model, references, fp16=True).explainer()(images)
    assert [a.dtype for a in (*found.outputs.values(), found.values)] == [np.float16, np.float32]
    np.testing.assert_array_equal(found.outputs["logits"], wanted.outputs["logits"])
    assert_close({"": found.values}, {"": wanted.values}, 0.02)


@pytest.mark.parametrize("base", ["known", "summed"])
def test_guards_hold_in_a_loop_over_references(base: str) -> None:
    """|x| and |r| are 0: float32's smallest number outside of the loop would be 0 in float16 inside."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4] y) {
        c = MatMul (x, w) a = Relu (c) b = MatMul (a, w) y = Relu (b) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    steps = PIPELINES["default"].replace("stream{otherwise=fold}", "stream{chunk=2}")
    target = 2 if base == "known" else "argmax"
    x, references = np.array([[0, 1, 2, -1]], np.float32), np.zeros((4, 4), np.float32)
    compiled = irshap.compile(model, references, target=target, passes=steps, fp16=True)
    np.testing.assert_array_equal(compiled.explainer()(x).values, [[0, 0, 2, 0]])
