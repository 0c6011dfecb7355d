"""What commands write, and what they must not write over."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from shells import Shell

import irshap
from irshap import demo
from irshap.errors import UserError

COMPILE = ("compile", "q.onnx", "--references", "refs.npy", "--output")


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """In a folder with a model whose weights have a file of their own, references and samples."""
    model = onnx.load(demo.model_path())
    onnx.save_model(model, "q.onnx", save_as_external_data=True, location="q.bin", size_threshold=0)
    np.save("refs.npy", np.load(demo.references_path())[:2])
    np.save("x.npy", demo.digits()[0][:2])
    return shell


@pytest.mark.parametrize(
    ("name", "what"),
    [("q.onnx", "the model"), ("q.bin", "the model's data 'q.bin'"), ("refs.npy", "the references")],
)
def test_no_input_is_overwritten(shell: Shell, name: str, what: str) -> None:
    assert f"{name}: it would overwrite {what}" in shell.refused(*COMPILE, name)


DATA = f"out.onnx.{'0' * 16}.data"


def test_nor_by_the_data_file_of_the_output(shell: Shell) -> None:
    Path("q.bin").rename(DATA)
    model = onnx.load("q.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = DATA if entry.key == "location" else entry.value
    onnx.save(model, "q.onnx")
    assert f"it would overwrite the model's data {DATA!r}" in shell.refused(*COMPILE, "out.onnx")


def test_a_name_that_is_no_utf_8(shell: Shell) -> None:
    assert "its name is no UTF-8" in shell.refused(*COMPILE, "\udcff.onnx")


OUTPUTS = [
    COMPILE,
    ("print", "q.onnx", "--output"),
    ("print", "q.onnx", "--graph"),
    ("run", "explained.onnx", "x.npy", "--output"),
    ("report", "explained.onnx", "x.npy", "--html"),
    ("references", "x.npy", "--kind", "mean", "--output"),
]


@pytest.mark.parametrize("command", OUTPUTS)
def test_what_is_no_file_is_not_replaced(shell: Shell, command: tuple[str, ...]) -> None:
    irshap.compile("q.onnx", "refs.npy").save("explained.onnx")
    pipe = shell.folder / "pipe.svg"
    os.mkfifo(pipe)
    assert "pipe.svg: is not a regular file" in shell.refused(*command, "pipe.svg")
    assert pipe.is_fifo()


DATA = f"out.onnx.{'0' * 16}.data"


def test_nor_by_an_explanation(shell: Shell) -> None:
    pipe = shell.folder / "pipe.npz"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="not a regular file"):
        irshap.compile("q.onnx", "refs.npy").explainer()("x.npy").save(pipe)
    assert pipe.is_fifo()


@pytest.mark.parametrize("letter", ["l", "\N{OCTOPUS}"])
def test_names_as_long_as_the_system_allows(shell: Shell, letter: str) -> None:
    name = letter * (240 // len(letter.encode())) + ".npz"
    shell.ok(*COMPILE, name)
    shell.ok("run", name, "x.npy", "--output", f"_{name}")
    assert "image_attributions" in np.load(shell.folder / f"_{name}").files
