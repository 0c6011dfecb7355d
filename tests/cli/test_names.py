"""`irshap compile --names`: names from a file of JSON into the explained model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
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


def test_labels_of_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explained, samples, labels, out = (tmp_path / n for n in ("e.onnx", "x.npy", "names.txt", "found.npz"))
    irshap.compile(demo.model_path(), method="gradient").save(explained)
    np.save(samples, demo.digits()[0][:2])
    labels.write_text("cat.png\ndog\x1b.png\n")
    command = ["run", str(explained), str(samples), "--labels", str(labels)]
    assert main([*command, "-o", str(out)]) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if ".png" in line]
    assert rows == ["cat.png", "dog?.png"]
    with np.load(out) as arrays:
        assert arrays["labels"].tolist() == ["cat.png", "dog\x1b.png"] and "logits" in arrays
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["sample"], row["label"]) for row in told] == [(0, "cat.png"), (1, "dog\x1b.png")]
    labels.write_text("cat.png")
    assert main(command) == 2
    assert "1 labels for 2 samples. give one for each sample" in capsys.readouterr().err
