"""What commands write, and what they must not write over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from irshap import demo
from irshap.cli import main


@pytest.fixture
def parted(tmp_path: Path) -> Path:
    """A model with its weights in a file of their own, and references beside it."""
    model = onnx.load(demo.model_path())
    onnx.save_model(
        model, tmp_path / "q.onnx", save_as_external_data=True, location="q.bin", size_threshold=0
    )
    np.save(tmp_path / "refs.npy", np.load(demo.references_path())[:2])
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("q.onnx", "it would overwrite the model"),
        ("q.bin", "it would overwrite the model's data 'q.bin'"),
        ("refs.npy", "it would overwrite the references"),
    ],
)
def test_no_input_is_overwritten(
    parted: Path, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p.name: p.read_bytes() for p in parted.iterdir()}
    given = ["compile", str(parted / "q.onnx"), "-r", str(parted / "refs.npy"), "-o", str(parted / name)]
    assert main(given) == 2
    assert message in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in parted.iterdir()} == before


def test_nor_by_the_data_file_of_the_output(parted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (parted / "q.bin").rename(parted / "out.onnx.data")
    model = onnx.load(parted / "q.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "out.onnx.data" if entry.key == "location" else entry.value
    onnx.save(model, parted / "q.onnx")
    given = [
        "compile",
        str(parted / "q.onnx"),
        "-r",
        str(parted / "refs.npy"),
        "-o",
        str(parted / "out.onnx"),
    ]
    assert main(given) == 2
    assert "it would overwrite the model's data 'out.onnx.data'" in capsys.readouterr().err


def test_a_name_that_is_no_utf_8(parted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "compile",
        str(parted / "q.onnx"),
        "-r",
        str(parted / "refs.npy"),
        "-o",
        str(parted / "\udcff.onnx"),
    ]
    assert main(given) == 2
    assert "its name is no UTF-8" in capsys.readouterr().err
