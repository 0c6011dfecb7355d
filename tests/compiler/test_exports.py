"""Models and references as people have them: read, exported, or refused with the lines that export them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import irshap
from irshap import demo
from irshap.errors import ModelError, ReferencesError
from irshap.metrics.completeness import check_completeness

REFERENCES = np.load(demo.references_path())[:3]
IMAGES = demo.digits()[0][:4]


class Program:
    """As torch's ONNXProgram."""

    def __init__(self) -> None:
        self.model_proto = onnx.load(demo.model_path())


def made_by(package: str, name: str, base: type = object) -> Any:
    """An object of a class of another package, which isn't installed."""
    return type(name, (base,), {"__module__": f"{package}.somewhere", "forward": lambda self, x: x})()


def sessions() -> dict[str, Any]:
    path, providers = demo.model_path(), ["CPUExecutionProvider"]
    return {
        "of a path": onnxruntime.InferenceSession(str(path), providers=providers),
        "of bytes": onnxruntime.InferenceSession(path.read_bytes(), providers=providers),
    }


def test_what_holds_a_model_is_read() -> None:
    expected = bytes(irshap.compile(demo.model_path(), REFERENCES))
    data = demo.model_path().read_bytes()
    forms = {**sessions(), "program": Program(), "bytearray": bytearray(data), "view": memoryview(data)}
    for name, form in forms.items():
        assert bytes(irshap.compile(form, REFERENCES)) == expected, name
        assert bytes(irshap.compile(irshap.Model(form), REFERENCES)) == expected, name
    assert check_completeness(Program(), REFERENCES, IMAGES).ok


SESSION = sessions()["of a path"]
SESSION._model_path = None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "the model: None is no model that irshap can read. give the path of an ONNX file"),
        (3, "an object of type int is no model"),
        ([1], "an object of type list is no model"),
        (onnx.GraphProto(), "an object of type GraphProto is no model"),
        (SESSION, "the session doesn't hold its model. give the path or the bytes"),
        (
            made_by("keras", "Model"),
            r'is a Keras model. export it: model.export\("model.onnx", format="onnx"\)',
        ),
        (made_by("tensorflow", "Module"), "is a Keras model"),
        (
            made_by("sklearn", "BaseEstimator"),
            r"is exported by skl2onnx, which is missing. pip install skl2onnx.*skl2onnx.to_onnx\(",
        ),
        (made_by("torch", "Module"), r"Module can't be exported: .*torch.onnx.export\(model, \(x,\)"),
        (made_by("torch", "ExportedProgram"), r"can't be exported: .*torch.onnx.export\("),
        (
            irshap.compile(demo.model_path(), REFERENCES),
            r"is already explained. run it: compiled.explainer\(\)",
        ),
    ],
)
def test_what_cannot_be_read(model: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for missing in ("torch", "skl2onnx"):
        monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message) as caught:
        irshap.compile(model, REFERENCES)
    assert "\n" not in str(caught.value)


def test_a_module_needs_references_that_its_forward_takes() -> None:
    module = made_by("torch", "Module")
    with pytest.raises(ModelError, match=r"which are given for z; forward takes x. name"):
        irshap.compile(module, {"z": REFERENCES})
    with pytest.raises(ModelError, match=r"which are given for no input; forward takes x"):
        irshap.compile(module, method="gradient")
    compiled = made_by("torch", "Module")  # as torch.compile returns
    compiled.forward, compiled._orig_mod = lambda *args: args, module
    with pytest.raises(ModelError, match=r"which are given for z; forward takes x. name"):
        irshap.compile(compiled, {"z": REFERENCES})


class Tensor:
    """As a torch tensor that requires a gradient: numpy can't read it, and `detach` can."""

    dtype = "torch.float32"

    def __init__(self, array: Any, free: bool = False) -> None:
        self.array, self.free = array, free

    def detach(self) -> Tensor:
        return Tensor(self.array, free=True)

    def cpu(self) -> Tensor:
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if not self.free:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return np.asarray(self.array, dtype)


def test_references_and_samples_in_other_forms() -> None:
    expected = irshap.compile(demo.model_path(), REFERENCES)
    for form in (Tensor(REFERENCES), [Tensor(r) for r in REFERENCES], {"image": Tensor(REFERENCES)}):
        assert bytes(irshap.compile(demo.model_path(), form)) == bytes(expected)
    as_list = irshap.compile(demo.model_path(), REFERENCES.tolist())
    explainer = expected.explainer()
    found = explainer(IMAGES)
    np.testing.assert_array_equal(as_list.explainer()(IMAGES).values, found.values)
    for samples in (Tensor(IMAGES), [Tensor(x) for x in IMAGES], IMAGES.tolist()):
        np.testing.assert_array_equal(explainer(samples).values, found.values)

    class Broken(Tensor):
        def detach(self) -> Broken:
            return self

    with pytest.raises(ReferencesError, match=r"references: is no array: Can't call numpy"):
        irshap.compile(demo.model_path(), Broken(REFERENCES))
    with pytest.raises(ReferencesError, match=r"references: is no array, but of type object. give an array"):
        irshap.compile(demo.model_path(), object())
    with pytest.raises(ReferencesError, match=r"references 'image': is None. give an array"):
        irshap.compile(demo.model_path(), {"image": None})


COLUMNS = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,1] age, float[N,1] height) => (float[N,1] y) { p = Mul(age, height) y = Tanh(p) }"""


def test_columns_of_a_frame_are_inputs() -> None:
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame({"height": [0.5, 1.0, 2.0], "age": [1.0, 0.2, 0.3], "other": ["a", "b", "c"]})
    model = onnx.parser.parse_model(COLUMNS)
    compiled = irshap.compile(model, rows[["height", "age"]], target=0)
    arrays = {name: rows[[name]].to_numpy(np.float32) for name in ("age", "height")}
    assert bytes(compiled) == bytes(irshap.compile(model, arrays, target=0))
    found = compiled.explainer()(rows)
    np.testing.assert_array_equal(found.values["age"], compiled.explainer()(arrays).values["age"])


TABLE = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,-2,3,0.5}> { h = MatMul(x, w) y = Tanh(h) }"""


@pytest.mark.parametrize("target", ["argmax", "all", "sum[...]"])
def test_columns_of_references_name_features(target: str) -> None:
    pandas = pytest.importorskip("pandas")
    model, rows = onnx.parser.parse_model(TABLE), pandas.DataFrame({"age": [0.5, 1.0], "height": [1.0, 0.2]})
    explainer = irshap.compile(model, rows, target=target).explainer()
    assert explainer.names.features == {"x": ("age", "height")}
    swapped, expected = explainer(rows[["height", "age"]] * 3), explainer(rows.to_numpy() * 3)
    np.testing.assert_array_equal(swapped.values, expected.values)
    named = {"features": {"x": ["age", "height"]}}
    again = irshap.compile(model, rows[["height", "age"]], target=target, names=named)
    np.testing.assert_array_equal(again.explainer()(rows * 3).values, expected.values)
    assert irshap.compile(model, rows, names={"features": ["a", "b"]}).explainer().names.features["x"] == (
        "a",
        "b",
    )
    with pytest.raises(ReferencesError, match=r"has dtype object.*give numbers alone: array.astype\(numpy.f"):
        irshap.compile(model, rows.astype("Float64"))
    with pytest.raises(ReferencesError, match=r"references: the DataFrame has no column 'height'. give all"):
        irshap.compile(model, rows.rename(columns={"height": "h"}), names=named)


def test_an_estimator_says_what_it_calls_its_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """skl2onnx writes one input, or where steps choose columns by name one for each."""
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame({"height": [0.5, 1.0, 2.0], "age": [1.0, 0.2, 0.3]})
    estimator = made_by("sklearn", "BaseEstimator")
    estimator.feature_names_in_ = np.array(["age", "height"])
    exporter, kinds = ModuleType("skl2onnx"), ModuleType("skl2onnx.common.data_types")
    kinds.FloatTensorType = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "skl2onnx", exporter)
    monkeypatch.setitem(sys.modules, "skl2onnx.common.data_types", kinds)
    exporter.to_onnx = lambda model, x: onnx.parser.parse_model(TABLE)  # type: ignore[attr-defined]
    found = irshap.compile(estimator, rows).explainer()(rows)
    np.testing.assert_array_equal(found.data, rows[["age", "height"]].to_numpy(np.float32))
    assert found.feature_names() == ["age", "height"]

    def by_columns(model: Any, x: Any = None, initial_types: Any = None) -> onnx.ModelProto:
        if initial_types is None:
            raise RuntimeError("Unable to find column name 'age' among names ['X'].")
        assert initial_types == [("age", [None, 1]), ("height", [None, 1])]
        return onnx.parser.parse_model(COLUMNS)

    exporter.to_onnx = by_columns  # type: ignore[attr-defined]
    for references in (rows, {name: rows[[name]] for name in rows}):
        found = irshap.compile(estimator, references, target=0).explainer()(rows)
        np.testing.assert_array_equal(found.data["age"], rows[["age"]].to_numpy(np.float32))
    wanted: list[Any] = []

    def with_texts(model: Any, x: Any = None, initial_types: Any = None) -> onnx.ModelProto:
        wanted.extend(initial_types or [])
        return by_columns(model, x, initial_types and initial_types[:2])

    exporter.to_onnx = with_texts  # type: ignore[attr-defined]
    kinds.StringTensorType = tuple  # type: ignore[attr-defined]
    estimator.feature_names_in_ = np.array(["age", "height", "sex"])
    irshap.compile(estimator, rows.assign(sex=["f", "m", "f"]), target=0)
    assert wanted == [("age", [None, 1]), ("height", [None, 1]), ("sex", (None, 1))]
    estimator.feature_names_in_ = ()
    with pytest.raises(
        ModelError, match=r"can't be exported: RuntimeError: Unable to find column .*'X'\]. see"
    ):
        irshap.compile(estimator, rows)


def test_a_torch_module() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")

    class Two(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.numbers, self.drop = torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)
            self.words = torch.nn.Embedding(7, 3)

        def forward(self, x: Any, ids: Any) -> Any:
            return torch.tanh(self.drop(self.numbers(x)) + self.words(ids).sum(1))

    torch.manual_seed(0)
    module = Two()
    module.words.eval()
    rng = np.random.default_rng(0)
    references = {"x": torch.randn(3, 4, requires_grad=True), "ids": torch.randint(0, 7, (3, 5))}
    compiled = irshap.compile(module, references, target=1)
    assert (module.training, module.drop.training, module.words.training) == (True, True, False)
    samples = {"x": rng.normal(size=(5, 4)).astype(np.float32), "ids": rng.integers(0, 7, (5, 5))}
    found = compiled.explainer()(samples)
    expected = module.eval()(*map(torch.from_numpy, samples.values())).detach().numpy()
    np.testing.assert_allclose(next(iter(found.outputs.values())), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found.completeness_error).max() < 1e-5
    single = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid())
    wide = rng.normal(size=(1, 4))  # float64, a single reference
    assert np.abs(irshap.compile(single, wide).explainer()(samples["x"]).completeness_error).max() < 1e-5
    open_rows = ({0: torch.export.Dim("rows")},)
    exported = torch.export.export(single, (torch.zeros(2, 4),), dynamic_shapes=open_rows)
    with pytest.raises(ModelError, match=r"can't be exported"):
        irshap.compile(torch.nn.Linear(4, 3), {"input": torch.randn(3, 7)})
    assert irshap.compile(exported, np.zeros((1, 4), np.float32)).model.graph.output


def test_a_pipeline_of_scikit_learn() -> None:
    pytest.importorskip("skl2onnx")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 3))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows[:, 0] > rows[:, 1])
    found = irshap.compile(pipeline, rows[:5]).explainer()(rows[10:14])
    expected = pipeline.predict_proba(rows[10:14]).max(1)
    np.testing.assert_allclose(found.target_values, expected, rtol=1e-5)
    assert np.abs(found.completeness_error).max() < 1e-5
    with pytest.raises(ModelError, match=r"Pipeline is exported for one input"):
        irshap.compile(pipeline, {"X": rows[:5]})


def test_a_table_with_texts() -> None:
    pytest.importorskip("skl2onnx")
    pandas = pytest.importorskip("pandas")
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(0)
    table = pandas.DataFrame(rng.normal(size=(40, 2)), columns=["age", "dose"])
    table["sex"] = rng.choice(["f", "m"], 40)
    encoded = make_column_transformer((StandardScaler(), ["age", "dose"]), (OneHotEncoder(), ["sex"]))
    pipeline = make_pipeline(encoded, LogisticRegression()).fit(table, table.age > table.dose)
    found = irshap.compile(pipeline, table[["sex", "dose", "age"]][:5]).explainer()(table[10:14])
    np.testing.assert_allclose(found.target_values, pipeline.predict_proba(table[10:14]).max(1), rtol=1e-5)
    assert set(found.values) == {"age", "dose"} and np.abs(found.completeness_error).max() < 1e-5


def test_a_program_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = ModuleType("torch")
    torch.onnx = ModuleType("torch.onnx")  # type: ignore[attr-defined]

    def export(*args: Any, **named: Any) -> Any:
        try:
            raise ValueError("\n  no rule for \x1b[96maten::odd.\nand much more")
        except ValueError as error:
            raise RuntimeError("step 1 of 3 failed") from error

    torch.onnx.export = export  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    message = r"can't be exported: ValueError: no rule for \?\[96maten::odd. export it"
    with pytest.raises(ModelError, match=message):
        irshap.compile(made_by("torch", "ExportedProgram"), REFERENCES)


def test_paths_stay_paths(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"missing.onnx: no such file"):
        irshap.compile(tmp_path / "missing.onnx", REFERENCES)
