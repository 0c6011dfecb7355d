"""Other runtimes: how far an output is, what is said where one is missing, and those that are here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from shells import Shell

import irshap
from irshap import demo
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
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r'pip install "irshap\[openvino\]"'):
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


def test_compare_on_the_command_line(explained: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = demo.digits()
    np.save("x.npy", images[:2])
    common = ["run", explained, "x.npy", "--compare"]
    told = shell.json(*common, "--with", "reference")["compared"]
    assert {t["output"] for t in told} >= {"logits", "image_attributions"}
    assert all(t["distance"] < 1e-5 for t in told)
    assert "from ONNX Runtime" in shell.ok(*common, "--with", "reference")
    assert "--compare and --with belong together" in shell.refused(*common)
    assert "did you mean reference?" in shell.refused(*common, "--with", "refrence")

    right = ENGINES["reference"].run

    def wrong(*given: object) -> object:
        found = right(*given)  # type: ignore[arg-type]
        found[0]["image_attributions"] *= 1.01
        return found

    monkeypatch.setattr(ENGINES["reference"], "run", wrong)
    assert shell(*common, "--with", "reference").code == 1
    assert "reference (image_attributions)" in shell.err
