"""`irshap.compile`: its pipelines, what it returns, and one clear message for each kind of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import flat
import numpy as np
import onnx
import pytest
from places import FIXTURES

import irshap
from irshap import demo
from irshap.compiler.compile import CompiledModel
from irshap.cost import Settings, predict
from irshap.errors import (
    IrshapError,
    ModelError,
    NotDifferentiable,
    PipelineError,
    ReferencesError,
    TargetError,
)
from irshap.ir.dims import N
from irshap.ir.evaluator import evaluate

WITHOUT_REFERENCES = "lift,target,canonicalize,autodiff,deeplift,dce,lower"


def fixture(name: str) -> tuple[Path, dict[str, Any], dict[str, Any], Any]:
    """A model, its samples and references by input, and the peers' results."""
    data = np.load(FIXTURES / f"{name}.npz")
    names = [str(n) for n in data["input_names"]]
    inputs, references = ({n: data[f"{kind}.{n}"] for n in names} for kind in ("inputs", "references"))
    return FIXTURES / str(data["model"]).rsplit("/", 1)[-1], inputs, references, data


def small(body: str, inputs: str = "float[N,3] x", outputs: str = "float[N,2] y") -> onnx.ModelProto:
    """A model from ONNX's text format."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> toy ({inputs}) => ({outputs}) {{ {body} }}'
    )
    onnx.checker.check_model(model)
    return model


LINEAR = """
    w = Constant <value = float[3,2] {1, -2, 3, 0.5, 2, 1}> ()
    h = MatMul (x, w)
    y = Relu (h)
"""
ROWS = np.float32([[1, 2, 3], [-1, 0, 2]])


@pytest.fixture(scope="module")
def digits() -> CompiledModel:
    return flat.compile(demo.model_path(), demo.references_path(), verify="types")


def test_the_demo_model_equals_shap(digits: CompiledModel) -> None:
    data = np.load(FIXTURES / "digits.npz")
    found = digits.explainer()(data["inputs.image"])
    np.testing.assert_allclose(found.values, data["shap_values.image"], atol=1e-4)
    np.testing.assert_allclose(found.base_values, data["base_values"], atol=1e-4)
    np.testing.assert_array_equal(found.target_index, data["target_index"])


@pytest.mark.parametrize("name", ["smooth_mlp", "two_inputs"])
def test_other_models_equal_shap_and_autograd(name: str) -> None:
    model, inputs, references, data = fixture(name)
    found = irshap.compile(model, references).explainer()(inputs)
    gradient = irshap.compile(model, method="gradient").explainer()(inputs)
    assert gradient.base_values is None
    assert gradient.completeness_error is None
    for input_name in inputs:
        for explanation, key, atol in ((found, "shap_values", 1e-4), (gradient, "gradients", 1e-5)):
            values = explanation.values
            of_input = values[input_name] if isinstance(values, dict) else values
            np.testing.assert_allclose(of_input, data[f"{key}.{input_name}"], atol=atol)


def test_completeness_on_200_digits(digits: CompiledModel) -> None:
    images = demo.digits()[0][:200]
    found = digits.explainer()(images)
    change = np.abs(found.target_values - found.base_values)
    assert np.all(np.abs(found.completeness_error) <= 1e-4 * np.maximum(1, change))


def test_completeness_on_200_digits_in_float64() -> None:
    # ONNX Runtime has no float64 convolution, so irshap's own evaluator runs it; a few references are enough.
    model, references = FIXTURES / "digits_f64.onnx", np.load(demo.references_path())[:4]
    compiled = flat.compile(model, references, emit="completeness_error")
    images = demo.digits()[0][:200].astype(np.float64)
    found = evaluate(compiled.graph, {"image": images})
    change = np.abs(found["logits"].max(1) - found["base_values"])
    assert found["image_attributions"].dtype == np.float64
    assert np.all(np.abs(found["completeness_error"]) <= 1e-9 * np.maximum(1, change))


def test_a_compiled_model(digits: CompiledModel, tmp_path: Path) -> None:
    onnx.checker.check_model(digits.model, full_check=True)
    assert [o.name for o in digits.model.graph.output] == [
        "logits",
        "image_attributions",
        "base_values",
        "target_index",
    ]
    assert digits.pipeline == flat.pipeline_text()
    assert digits.report.passes[0].text == "lift"
    assert digits.graph.name
    assert "image_attributions" in repr(digits)
    metadata = {p.key: p.value for p in digits.model.metadata_props}
    assert metadata["irshap.version"] == irshap.__version__
    assert metadata["irshap.pipeline"] == digits.pipeline
    assert metadata["irshap.references"] == "100"
    assert metadata["irshap.explained_output"] == "logits"
    assert len(metadata["irshap.model_sha256"]) == len(metadata["irshap.references_sha256"]) == 64
    digits.save(tmp_path / "a.onnx")
    again = irshap.compile(demo.model_path(), demo.references_path())
    again.save(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_peak_that_is_predicted_stands_in_the_file() -> None:
    def said(**how: Any) -> tuple[CompiledModel, dict[str, Any]]:
        compiled = irshap.compile(how.pop("model", demo.model_path()), demo.references_path(), **how)
        metadata = {p.key: p.value for p in compiled.lowered.metadata_props}
        return compiled, json.loads(metadata["irshap.memory"])

    usual, told = said()
    assert told == {
        "peak": predict(usual.graph, {N: 1}, Settings.of("default")).peak,
        "samples": 1,
        "session": "default",
    }
    many, of_three = said(model=irshap.Model(demo.model_path(), batch=3))
    assert of_three["samples"] == 3 and of_three["peak"] == predict(many.graph, {}).peak > told["peak"]
    # the limit leads to another program, and that is the one which is told of
    chosen, limited = said(memory_limit="60MiB")
    assert chosen.choice is not None
    assert limited["peak"] == predict(chosen.graph, {N: 1}, Settings.of("default")).peak


def test_a_peak_that_depends_on_more_is_left_out() -> None:
    own = irshap.compile(demo.model_path(), irshap.References(per_sample=True))
    assert "irshap.memory" not in {p.key for p in own.lowered.metadata_props}


def test_digests_follow_the_data() -> None:
    def digests(model: onnx.ModelProto, references: Any, **more: Any) -> tuple[str, str]:
        compiled = flat.compile(model, references, **more)
        metadata = {p.key: p.value for p in compiled.model.metadata_props}
        return metadata["irshap.model_sha256"], metadata["irshap.references_sha256"]

    first = digests(small(LINEAR), ROWS)
    assert digests(small(LINEAR), ROWS) == first
    assert digests(small(LINEAR), ROWS + 1)[1] != first[1]
    assert digests(small(LINEAR), ROWS, weights=[1, 2])[1] != first[1]
    assert digests(small(LINEAR.replace("-2", "-3")), ROWS)[0] != first[0]


def test_several_classes_equal_each_class_alone() -> None:
    model, inputs, references, _ = fixture("two_inputs")
    every = flat.compile(model, references, target="all", emit="completeness_error").explainer()(inputs)
    top = irshap.compile(model, references, target="top-2").explainer()(inputs)
    asked = irshap.compile(model, references, target="input").explainer()
    n, classes = every.target_index.shape
    assert classes == 4
    assert np.abs(every.completeness_error).max() < 1e-5
    np.testing.assert_allclose(every.total() + every.base_values, every.target_values, atol=1e-5)
    for k in range(classes):
        alone = irshap.compile(model, references, target=k).explainer()(inputs)
        run_time = asked(inputs, target=np.full(n, k))
        for name in inputs:
            np.testing.assert_allclose(every.values[name][:, k], alone.values[name], atol=1e-6)
            np.testing.assert_allclose(run_time.values[name], alone.values[name], atol=1e-6)
        np.testing.assert_allclose(every.base_values[:, k], alone.base_values, atol=1e-6)
        np.testing.assert_array_equal(alone.target_index, k)
        rows, places = np.nonzero(top.target_index == k)
        np.testing.assert_allclose(top.values["image"][rows, places], alone.values["image"][rows], atol=1e-6)


def test_weights_equal_repeated_references() -> None:
    weighted = flat.compile(small(LINEAR), ROWS, weights=[3, 1]).explainer()(ROWS * 2)
    repeated = irshap.compile(small(LINEAR), ROWS[[0, 0, 0, 1]]).explainer()(ROWS * 2)
    np.testing.assert_allclose(weighted.values, repeated.values, rtol=1e-6)
    np.testing.assert_allclose(weighted.base_values, repeated.base_values, rtol=1e-6)


def test_context_inputs_keep_the_samples_values() -> None:
    model, inputs, references, _ = fixture("two_inputs")
    given = {"image": references["image"]}
    found = flat.compile(model, given, context_inputs=["features"], emit="completeness_error").explainer()(
        inputs
    )
    assert found.raw.keys() & {"image_attributions", "features_attributions"} == {"image_attributions"}
    assert np.abs(found.completeness_error).max() < 1e-5
    with pytest.raises(ReferencesError, match="input 'features' takes no references"):
        flat.compile(model, references, context_inputs=["features"])


def test_an_interior_tensor() -> None:
    found = flat.compile(small(LINEAR), ROWS, wrt="h", emit="completeness_error").explainer()(ROWS + 1)
    assert found.raw["h_attributions"].shape == (2, 2)
    assert np.abs(found.completeness_error).max() < 1e-5


def test_references_at_run_time() -> None:
    compiled = irshap.compile(small(LINEAR), passes=WITHOUT_REFERENCES)
    explainer = compiled.explainer()
    assert explainer.input_names == ("x", "x_references")
    found = explainer(ROWS * 2, x_references=ROWS)
    fixed = irshap.compile(small(LINEAR), ROWS).explainer()(ROWS * 2)
    np.testing.assert_allclose(found.values, fixed.values, rtol=1e-6)


@pytest.mark.parametrize("form", ["path", "bytes", "proto"])
def test_forms_of_a_model(form: str, tmp_path: Path) -> None:
    proto = small(LINEAR)
    onnx.save(proto, tmp_path / "m.onnx")
    model: Any = {"path": tmp_path / "m.onnx", "bytes": proto.SerializeToString(), "proto": proto}[form]
    before = proto.SerializeToString(deterministic=True)
    assert irshap.compile(model, ROWS).explainer()(ROWS).values.shape == (2, 3)
    assert proto.SerializeToString(deterministic=True) == before


def test_verification_and_progress() -> None:
    calls: list[Any] = []

    class Listener:
        def starts(self, index: int, total: int, name: str) -> None:
            calls.append((index, total, name))

    compiled = flat.compile(small(LINEAR), ROWS, passes="@naive", verify="numeric", progress=Listener())
    names = [call[2] for call in calls]
    assert names == [run.text.split("{")[0] for run in compiled.report.passes]
    verified = {run.text.split("{")[0]: run.verified for run in compiled.report.passes}
    assert verified["lift"] == verified["bind-references"] == verified["lower"] == "numeric"
    assert "pullbacks" in verified["autodiff"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"target": "target", "deeplift": "deeplift"}),
        ({"target": 3}, {"target": 'target{target="3"}'}),
        ({"target": "top-5", "output": "logits"}, {"target": "target{target=top-5,output=logits}"}),
        ({"context_inputs": ("a", "b")}, {"target": 'target{context="a,b"}'}),
        ({"wrt": "/conv/Conv_output_0"}, {"target": 'target{wrt="/conv/Conv_output_0"}'}),
        (
            {"weighted": True, "emit": ["completeness_error"]},
            {"deeplift": "deeplift{weights=true,emit=completeness_error}"},
        ),
        ({"method": "gradient"}, {"gradient": "gradient"}),
        ({"passes": "@naive", "target": 3}, {"target": 'target{target="3"}'}),
        ({"passes": 'lift,target{target="3"},lower'}, {"target": 'target{target="3"}'}),
        ({"passes": 'lift,target{target="3"},lower', "target": "3"}, {"target": 'target{target="3"}'}),
    ],
)
def test_pipeline_of_arguments(arguments: dict[str, Any], expected: dict[str, str]) -> None:
    text = flat.pipeline_text(**arguments)
    assert irshap.PassManager.from_text(text).text == text
    for name, part in expected.items():
        assert name in part
        assert f",{part}," in f",{text},"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "deplift"}, "no method is called 'deplift'. did you mean deeplift"),
        ({"passes": "@naive", "method": "gradient"}, "method 'gradient' contradicts the given passes"),
        (
            {"passes": 'lift,target{target="3"},lower', "target": 4},
            "target='4' contradicts target='3' of pass target",
        ),
        ({"passes": "lift,lower", "wrt": "x"}, "wrt needs the pass target, which the pipeline doesn't have"),
        (
            {"method": "gradient", "emit": "completeness_error"},
            "emit=completeness_error is no option of the method gradient",
        ),
        ({"passes": "lift,lowr"}, "no pass is called 'lowr'. did you mean lower"),
    ],
)
def test_arguments_that_contradict(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        flat.pipeline_text(**arguments)


TRUTH = small("y = Cast <to = 1> (x)", inputs="bool[N,2] x")
JUMPING = small("r = Hardmax (x)\n c = Constant <value = float[3,2] {1,2,3,4,5,6}> ()\n y = MatMul (r, c)")


@pytest.mark.parametrize(
    ("model", "arguments", "error", "message"),
    [
        (LINEAR, {"target": 2}, TargetError, "target 2: the output has 2 classes"),
        (LINEAR, {"target": "top-3"}, TargetError, "'top-3': the output has 2 classes"),
        (LINEAR, {"target": "best"}, TargetError, "unknown target 'best'"),
        (LINEAR, {"output": "z"}, TargetError, "the model has no float output 'z'"),
        (LINEAR, {"wrt": "hh"}, TargetError, "no tensor 'hh' that an output depends on. did you mean h"),
        (LINEAR, {"context_inputs": ["xx"]}, TargetError, "the model has no tensor 'xx'"),
        (LINEAR, {"references": None}, ReferencesError, "no references for input 'x'"),
        (LINEAR, {"references": ROWS[:0]}, ReferencesError, "there is no reference"),
        (LINEAR, {"references": ROWS.astype(int)}, ReferencesError, "has dtype int64"),
        (
            LINEAR,
            {"references": ROWS[:, :2]},
            ReferencesError,
            r"has shape \[2, 2\], the model wants \[R, 3\]",
        ),
        (LINEAR, {"references": ROWS * np.nan}, ReferencesError, "NaN or infinite"),
        (LINEAR, {"weights": [1]}, ReferencesError, "wanted are 2 numbers"),
        (
            LINEAR,
            {"method": "gradient"},
            PipelineError,
            "references are given, but the pipeline has no pass that would bind them",
        ),
        (
            LINEAR,
            {"passes": "lift,canonicalize", "references": None},
            PipelineError,
            "starts and ends with a model",
        ),
        (LINEAR, {"verify": "all"}, PipelineError, "no level of verification is called 'all'"),
        (LINEAR, {"emit": "error"}, IrshapError, "error"),
        (LINEAR, {"rule": "resale"}, IrshapError, "resale"),
        (TRUTH, {}, TargetError, "depends on no float input that could be attributed"),
        (JUMPING, {}, NotDifferentiable, "r.*[Hh]ardmax"),
        (b"", {}, ModelError, "empty"),
        (b"hello, world", {}, ModelError, "bytes"),
        ("missing.onnx", {}, ModelError, "no such file"),
    ],
)
def test_bad_input(model: Any, arguments: dict[str, Any], error: type[IrshapError], message: str) -> None:
    source = small(LINEAR) if model is LINEAR else model
    with pytest.raises(error, match=message) as caught:
        flat.compile(source, **{"references": ROWS, **arguments})
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_public_names() -> None:
    assert {name for name in irshap.__all__ if getattr(irshap, name, None) is None} == set()
    assert set(irshap.__all__) <= set(dir(irshap))
    with pytest.raises(AttributeError, match="no attribute 'compil'"):
        irshap.compil  # noqa: B018


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("irshap", ["numpy", "sympy", "onnx", "onnxruntime", "click"]),
        ("irshap.cli", ["numpy", "sympy", "onnx", "onnxruntime", "rich", "matplotlib"]),
        ("irshap.runtime.explainer", ["sympy", "onnx"]),
    ],
)
def test_imports_stay_light(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_numeric_verification_measures_the_completeness_error_against_what_cancels() -> None:
    model, _, references, _ = fixture("two_inputs")
    few = {name: rows[:3] for name, rows in references.items()}
    compiled = flat.compile(model, few, emit="completeness_error", verify="numeric")
    assert "completeness_error" in [o.name for o in compiled.model.graph.output]
