"""The explainer: shapes as in SHAP, and one clear message for each kind of bad input."""

from __future__ import annotations

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
from irshap.errors import ModelError, TargetError, UserError

IMAGES = demo.digits()[0][:4]


@pytest.fixture(scope="module")
def digits() -> CompiledModel:
    return irshap.compile(demo.model_path(), demo.references_path())


@pytest.fixture(scope="module")
def explainer(digits: CompiledModel) -> irshap.Explainer:
    return irshap.Explainer(digits)


@pytest.fixture(scope="module")
def two() -> irshap.Explainer:
    data = np.load(FIXTURES / "two_inputs.npz")
    references = {n: data[f"references.{n}"] for n in ("image", "features")}
    return irshap.compile(FIXTURES / "two_inputs.onnx", references).explainer()


def samples(count: int = 3) -> dict[str, Any]:
    data = np.load(FIXTURES / "two_inputs.npz")
    return {n: data[f"inputs.{n}"][:count] for n in ("image", "features")}


def test_an_explanation(explainer: irshap.Explainer) -> None:
    found = explainer(IMAGES)
    assert len(found) == 4
    assert found.values.shape == found.data.shape == IMAGES.shape
    assert found.values.dtype == np.float32
    assert found.base_values.shape == found.target_index.shape == found.target_values.shape == (4,)
    assert found.target_index.dtype == np.int64
    assert list(found.outputs) == ["logits"]
    np.testing.assert_array_equal(found.target_index, found.outputs["logits"].argmax(1))
    np.testing.assert_array_equal(found.target_values, found.outputs["logits"].max(1))
    assert np.abs(found.completeness_error).max() < 1e-5
    np.testing.assert_allclose(found.total() + found.base_values, found.target_values, atol=1e-5)
    assert explainer.input_names == explainer.attributed == ("image",)
    assert explainer.metadata["irshap.version"] == irshap.__version__


def test_the_files_own_completeness_error_is_used() -> None:
    compiled = flat.compile(demo.model_path(), demo.references_path(), emit="completeness_error")
    found = compiled.explainer()(IMAGES)
    assert found.completeness_error is found.raw["completeness_error"]
    assert list(found.outputs) == ["logits"]
    derived = found.target_values - found.base_values - found.total()
    np.testing.assert_allclose(found.completeness_error, derived, atol=1e-5)


def test_forms_of_an_explained_model(digits: CompiledModel, tmp_path: Path) -> None:
    path = tmp_path / "explained.onnx"
    digits.save(path)
    wanted = irshap.Explainer(digits)(IMAGES).values
    for form in (path, str(path), digits.model, path.read_bytes()):
        np.testing.assert_array_equal(irshap.Explainer(form)(IMAGES).values, wanted)


def test_forms_of_samples(explainer: irshap.Explainer, two: irshap.Explainer, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    wanted = explainer(IMAGES).values
    for found in (
        explainer({"image": IMAGES}),
        explainer(image=IMAGES),
        explainer(tmp_path / "x.npy"),
        explainer(IMAGES.astype(np.float64)),
        explainer(IMAGES.tolist()),
    ):
        np.testing.assert_array_equal(found.values, wanted)
    given = samples()
    np.savez(tmp_path / "x.npz", **given)
    wanted_two = two(given)
    assert isinstance(wanted_two.values, dict)
    assert list(wanted_two.values) == list(wanted_two.data) == ["image", "features"]
    for found in (two(given["image"], given["features"]), two(**given), two(str(tmp_path / "x.npz"))):
        np.testing.assert_array_equal(found.values["features"], wanted_two.values["features"])
    total = sum(v.reshape(3, -1).sum(1, dtype=np.float64) for v in wanted_two.values.values())
    np.testing.assert_allclose(wanted_two.total(), total)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (((IMAGES[0],), {}), r"input 'image': has shape \[1, 8, 8\].*for a single one give array\[None\]"),
        (((IMAGES[:, :, :4],), {}), r"has shape \[4, 1, 4, 8\], the model wants \[N, 1, 8, 8\]"),
        ((((IMAGES * 255).astype(np.uint8),), {}), "has dtype uint8, the model wants float32. convert it"),
        (((IMAGES[:0],), {}), "there is no sample"),
        (((), {}), "no value for input 'image'"),
        (((None,), {}), "input: is None. give an array, or a file of one"),
        (((IMAGES, IMAGES), {}), "2 arrays for 1 inputs"),
        ((({"imag": IMAGES},), {}), "no such input 'imag'. did you mean image"),
        (((), {"imag": IMAGES}), "no such input 'imag'. did you mean image"),
        (((IMAGES,), {"image": IMAGES}), "input"),
        ((("missing.npy",), {}), "missing.npy: no such file"),
    ],
)
def test_bad_samples(explainer: irshap.Explainer, given: Any, message: str) -> None:
    arrays, named = given
    with pytest.raises(UserError, match=message) as caught:
        explainer(*arrays, **named)
    assert caught.value.exit_code == 2


def test_bad_samples_of_two_inputs(two: irshap.Explainer) -> None:
    given = samples()
    with pytest.raises(UserError, match="one array, but the model has 2 inputs"):
        two(given["image"])
    with pytest.raises(UserError, match="no value for input 'features'"):
        two({"image": given["image"]})
    with pytest.raises(UserError, match=r"different numbers of samples \(image: 3, features: 2\)"):
        two(given["image"], given["features"][:2])


def test_a_target_at_run_time() -> None:
    compiled = irshap.compile(demo.model_path(), demo.references_path(), target="input")
    explainer = compiled.explainer()
    assert explainer.input_names == ("image", "target")
    found = explainer(IMAGES, target=[3, 1, 4, 1])
    np.testing.assert_array_equal(found.target_index, [3, 1, 4, 1])
    np.testing.assert_array_equal(found.target_values, found.outputs["logits"][range(4), [3, 1, 4, 1]])
    with pytest.raises(UserError, match=r"input 'target'. say it beside the samples: target=... \(--tar"):
        explainer({"image": IMAGES})
    np.testing.assert_array_equal(explainer(IMAGES, target=3).target_index, [3] * 4)
    np.testing.assert_array_equal(explainer(IMAGES, target=[3, -1, -10, 0]).target_index, [3, 9, 0, 0])
    last = explainer(IMAGES, target=-1)
    np.testing.assert_array_equal(last.values, explainer(IMAGES, target=9).values)
    with pytest.raises(TargetError, match=r"class 10 for sample 2: the output has 10 classes. Use 0 to 9"):
        explainer(IMAGES, target=[0, 0, 10, 0])
    with pytest.raises(TargetError, match=r"has shape \[1\] for 4 samples. give one class for each sample"):
        explainer(IMAGES, target=[3])
    with pytest.raises(UserError, match="input 'target': has dtype float64, the model wants int64"):
        explainer(IMAGES, target=[3.0] * 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_named(explainer: irshap.Explainer, two: irshap.Explainer, value: float) -> None:
    images = IMAGES.copy()
    images[1, 0, 2, 3] = images[3, 0, 0, 0] = value
    message = rf"input 'image': sample 1 holds {value} at \[0, 2, 3\].*leave out sample 1 .*\(2 in all\)"
    with pytest.raises(UserError, match=message):
        explainer(images)
    given = samples()
    given["features"] = given["features"].copy()
    given["features"][2, 4] = value
    with pytest.raises(UserError, match=rf"input 'features': sample 2 holds {value} at \[4\]"):
        two(given)


def test_what_is_no_number_passes_where_it_does_no_harm() -> None:
    """Numbers that the model replaces itself, and masks of -inf, are the model's business."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,2] x, float[N,2] mask) => (float[N,2] y) <float zero = {0}> {
        no = IsNaN(x)
        h = Where(no, zero, x)
        s = Add(h, mask)
        y = Softmax(s)
    }"""
    target = irshap.Target(0, wrt="h", context="mask")  # type: ignore[arg-type]
    compiled = irshap.compile(
        onnx.parser.parse_model(text), {"x": np.zeros((1, 2), np.float32)}, target=target
    )
    x, mask = np.float32([[1, np.nan], [2, 1]]), np.float32([[0, 0], [0, -np.inf]])
    found = compiled.explainer()(x, mask)
    assert np.isfinite(found.values).all()
    with pytest.raises(UserError, match="sample 0 holds inf at"):
        compiled.explainer()(np.float32([[np.inf, 0], [0, 0]]), mask)


def test_bad_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"returns no attributions. compile it first"):
        irshap.Explainer(demo.model_path())
    with pytest.raises(ModelError, match="no such file"):
        irshap.Explainer(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        irshap.Explainer(tmp_path)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ModelError, match=r"text.onnx: ONNX Runtime can't load it"):
        irshap.Explainer(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="ONNX Runtime can't load it"):
        irshap.Explainer(b"hello")


def test_the_file_needs_nothing_of_irshap(digits: CompiledModel, tmp_path: Path) -> None:
    digits.save(tmp_path / "explained.onnx")
    np.save(tmp_path / "x.npy", IMAGES)
    onnx.checker.check_model(str(tmp_path / "explained.onnx"), full_check=True)
    code = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession("explained.onnx", providers=["CPUExecutionProvider"])
names = [o.name for o in session.get_outputs()]
logits, values, base, index = session.run(names, {"image": numpy.load("x.npy")})
assert not any(m.split(".")[0] == "irshap" for m in sys.modules)
print(abs(logits.max(1) - base - values.sum((1, 2, 3))).max())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 1e-5


def test_cuda_without_options_computes_in_float32(
    digits: CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32, which the provider takes by default, rounds so that attributions don't sum."""
    import onnxruntime

    given: list[Any] = []
    made = onnxruntime.InferenceSession

    def session(model: Any, options: Any, providers: list[Any]) -> Any:
        given.extend(providers)
        return made(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr("onnxruntime.InferenceSession", session)
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]  # also where ONNX Runtime is the CPU's build
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: there)
    own = ("CUDAExecutionProvider", {"device_id": "1"})
    for providers in (["CUDAExecutionProvider", "CPUExecutionProvider"], [own]):
        digits.explainer(providers)
    assert given == [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider", own]
