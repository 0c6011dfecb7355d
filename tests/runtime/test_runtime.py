"""irshap.runtime alone: what explains a model needs numpy and ONNX Runtime, and nothing of the compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import irshap
from irshap import contract, demo
from irshap.compiler import compiled as compiling
from irshap.compiler.compile import CompiledModel
from irshap.errors import ModelError
from irshap.files import own_data

IMAGES = demo.digits()[0][:3]

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        below = ("irshap.errors", "irshap.extras", "irshap.contract", "irshap.files")
        own = ("irshap", *below, "irshap.runtime")
        allowed = name in own or name.startswith("irshap.runtime.")
        if not allowed and top not in {*sys.stdlib_module_names, "numpy", "onnxruntime"}:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Block())
"""
CHECK = """
own = {m for m in sys.modules if m.split(".")[0] == "irshap" and not m.startswith("irshap.runtime")}
assert own == {"irshap", "irshap.errors", "irshap.extras", "irshap.contract", "irshap.files"}, own
foreign = {"sympy", "onnx", "networkx", "click", "rich", "ml_dtypes", "google"} & set(sys.modules)
assert not foreign, foreign
"""
EXPLAIN = """
import numpy
from irshap.runtime import Explainer, Explanation
model = open(sys.argv[1], "rb").read() if sys.argv[2] == "bytes" else sys.argv[1]
explanation = Explainer(model)(numpy.load("x.npy"))
assert isinstance(explanation, Explanation)
assert abs(explanation.completeness_error).max() < 1e-5
numpy.save("values.npy", explanation.values)
"""


@pytest.fixture(scope="module")
def digits() -> CompiledModel:
    return irshap.compile(demo.model_path(), demo.references_path())


def python(code: str, *arguments: str, folder: Path) -> None:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", ["path", "bytes", "external data"])
def test_explaining_imports_nothing_else(digits: CompiledModel, form: str, tmp_path: Path) -> None:
    digits.save(tmp_path / "explained.onnx", external_data=form == "external data")
    assert bool(own_data(tmp_path / "explained.onnx")) == (form == "external data")
    np.save(tmp_path / "x.npy", IMAGES)
    python(BLOCK + EXPLAIN + CHECK, "explained.onnx", form, folder=tmp_path)
    expected = digits.explainer()(IMAGES).values
    np.testing.assert_array_equal(np.load(tmp_path / "values.npy"), expected)


def test_the_block_blocks(tmp_path: Path) -> None:
    for module in ("onnx", "sympy", "irshap.ir.core", "irshap.compiler.compile"):
        with pytest.raises(AssertionError, match=f"blocked: {module.rpartition('.')[0] or module}"):
            python(f"{BLOCK}\nimport irshap\nimport {module}", folder=tmp_path)


@pytest.mark.parametrize("module", ["irshap.runtime", "irshap.runtime.explainer", "irshap.runtime.arrays"])
def test_importing_it_loads_nothing_of_the_compiler(module: str, tmp_path: Path) -> None:
    python(f"import sys, {module}\n{CHECK}", folder=tmp_path)


def test_a_model_too_large_for_a_message_runs_from_files(
    digits: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = digits.explainer()(IMAGES).values
    monkeypatch.setattr(compiling, "MAX_PROTO", 1000)
    np.testing.assert_array_equal(digits.explainer()(IMAGES).values, expected)
    with pytest.raises(ModelError, match=r"over 2 GiB.*save it"):
        bytes(digits)


def test_a_compiled_models_bytes_are_the_saved_file(digits: CompiledModel, tmp_path: Path) -> None:
    digits.save(tmp_path / "explained.onnx")
    assert bytes(digits) == (tmp_path / "explained.onnx").read_bytes()


class Huge:
    def ByteSize(self) -> int:  # noqa: N802
        return 2**31

    def SerializeToString(self) -> bytes:  # noqa: N802
        raise AssertionError("asked for what no message can hold")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Huge(), "over 2 GiB.*save_model.*give the path"),
        (3, "int is no model. give a path, bytes, a CompiledModel or an onnx.ModelProto"),
    ],
)
def test_what_is_no_model_is_refused(model: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        irshap.Explainer(model)


def test_names_in_files_stay() -> None:
    """They stand in files that users keep and in programs that read them: changing one breaks both."""
    outputs = (contract.BASE_VALUES, contract.TARGET_INDEX, contract.COMPLETENESS_ERROR)
    assert outputs == ("base_values", "target_index", "completeness_error")
    assert (contract.TARGET, contract.REFERENCE_WEIGHTS) == ("target", "reference_weights")
    assert (contract.attributions("x"), contract.references("x")) == ("x_attributions", "x_references")
    assert contract.attributed("x_attributions") == "x"
    assert contract.attributed("base_values") is None
    assert contract.is_references("x_references")
    assert {value for name, value in vars(contract.Metadata).items() if name.isupper()} == {
        "irshap.names",
        "irshap.sizes",
        "irshap.version",
        "irshap.pipeline",
        "irshap.model_sha256",
        "irshap.explained_output",
        "irshap.references",
        "irshap.references_sha256",
        "irshap.held",
        "irshap.incomplete",
        "irshap.uncovered",
        "irshap.tensors",
        "irshap.batch",
        "irshap.training",
        "irshap.memory",
    }


def test_a_compiled_file_uses_these_names() -> None:
    compiled = irshap.compile(
        demo.model_path(), demo.references_path(), method="deeplift{emit=completeness_error}", target="input"
    )
    assert isinstance(compiled.model, onnx.ModelProto)
    outputs = [o.name for o in compiled.model.graph.output]
    added = [contract.attributions("image"), contract.BASE_VALUES, contract.TARGET_INDEX]
    assert outputs == ["logits", *added, contract.COMPLETENESS_ERROR]
    assert [i.name for i in compiled.model.graph.input] == ["image", contract.TARGET]
    keys = {p.key for p in compiled.model.metadata_props}
    named = {value for name, value in vars(contract.Metadata).items() if name.isupper()}
    rest = contract.Metadata
    unneeded = {rest.GAPS, rest.HELD, rest.NAMES, rest.SIZES, rest.TENSORS, rest.UNCOVERED}
    unneeded |= {rest.BATCH, rest.TRAINING}
    assert {key for key in keys if key.startswith("irshap.")} == named - unneeded
