"""Other runtimes: how far an output is, what is said where one is missing, and those that are here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import irshap
from irshap import demo
from irshap.cli.commands import run
from irshap.engines import ENGINES, EngineFailed, distances, own_results
from irshap.errors import UserError


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "digits.onnx"
    irshap.compile(demo.model_path(), np.load(demo.references_path())[:5], device="any").save(path)
    return path


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_a_runtime_that_is_here_gives_the_same(name: str, explained: Path) -> None:
    images, _ = demo.digits()
    feeds = [{"image": images[:1]}, {"image": images[:3]}]
    try:
        found = ENGINES[name]().run(explained, feeds)
    except EngineFailed:
        raise
    except UserError as error:
        pytest.skip(str(error))
    for theirs, ours in zip(found, own_results(explained, feeds), strict=True):
        assert max(d.relative for d in distances(theirs, ours)) < 1e-5


@pytest.mark.parametrize("name", ["web", "node"])
def test_without_node(name: str, explained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match=r"needs Node\.js\. install it"):
        ENGINES[name]().run(explained, [])


def test_without_openvino(explained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(UserError, match=r"pip install irshap\[openvino\]"):
        ENGINES["openvino"]().run(explained, [])


def test_what_the_reference_evaluator_cannot_load(tmp_path: Path) -> None:
    file = tmp_path / "no.onnx"
    file.write_bytes(b"no model")
    with pytest.raises(EngineFailed, match="can't load it"):
        ENGINES["reference"]().run(file, [])


def test_distances() -> None:
    wanted = {
        "same": np.array([1.0, -4.0]),
        "near": np.array([1.0, -4.0]),
        "class": np.array([1, 2]),
        "gone": np.array([1.0]),
        "shape": np.array([1.0]),
        "nan": np.array([1.0, 2.0]),
        "both": np.array([np.nan, 2.0]),
    }
    found = {
        "same": np.array([1.0, -4.0]),
        "near": np.array([1.0, -4.4]),
        "class": np.array([1, 3]),
        "shape": np.array([[1.0]]),
        "nan": np.array([np.nan, 2.0]),
        "both": np.array([np.nan, 2.0]),
    }
    told = {d.name: d for d in distances(found, wanted)}
    assert told["same"].relative == told["both"].relative == 0
    assert told["near"].relative == pytest.approx(0.1)
    assert told["nan"].strange == 1
    assert all(told[name].relative == np.inf for name in ("class", "gone", "shape", "nan"))


def test_compare_on_the_command_line(
    explained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = demo.digits()
    samples = tmp_path / "x.npy"
    np.save(samples, images[:2])
    common = ["run", str(explained), str(samples)]
    assert run([*common, "--compare", "--with", "reference", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["compared"]
    assert {t["output"] for t in told} >= {"logits", "image_attributions"}
    assert all(t["distance"] < 1e-5 for t in told)
    assert run([*common, "--compare", "--with", "reference"]) == 0
    assert "from ONNX Runtime" in capsys.readouterr().out
    assert run([*common, "--compare"]) == 2
    assert run([*common, "--compare", "--with", "refrence"]) == 2
    assert "did you mean reference?" in capsys.readouterr().err

    right = ENGINES["reference"].run

    def wrong(*given: object) -> object:
        found = right(*given)  # type: ignore[arg-type]
        found[0]["image_attributions"] *= 1.01
        return found

    monkeypatch.setattr(ENGINES["reference"], "run", wrong)
    assert run([*common, "--compare", "--with", "reference"]) == 1
    assert "reference (image_attributions)" in capsys.readouterr().err
