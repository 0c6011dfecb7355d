"""`irshap compile --names`: names from a file of JSON into the explained model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import irshap
from irshap import demo
from irshap.cli import main


def test_names_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names, out = tmp_path / "names.json", tmp_path / "e.onnx"
    names.write_text(json.dumps({"classes": list("abcdefghij")}))
    command = ["compile", str(demo.model_path()), "-r", str(demo.references_path()), "-o", str(out)]
    assert main([*command, "--names", str(names)]) == 0
    assert irshap.Explainer(out).names.classes == tuple("abcdefghij")
    names.write_text("classes: a")
    assert main([*command, "--names", str(names)]) == 2
    assert "names.json: is no JSON: " in capsys.readouterr().err
    assert main([*command, "--names", str(tmp_path / "none.json")]) == 2
    assert "can't be read: No such file" in capsys.readouterr().err
