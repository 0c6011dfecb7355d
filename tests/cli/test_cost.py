"""`irshap cost`: what it prints and writes, and how bad input ends."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from irshap.cli import main
from irshap.cli.compile import compile_command
from irshap.cli.cost import cost_command
from irshap.cost.session import MODELLED, version_note
from irshap.demo import __path__ as demo_path
from irshap.ir.core import Graph
from irshap.lowering.lift import Lift
from irshap.pipeline.base import Context
from irshap.pipeline.strategies import STRATEGIES

pytestmark = pytest.mark.slow

DIGITS = str(Path(next(iter(demo_path))) / "digits.onnx")
REFERENCES = str(Path(next(iter(demo_path))) / "digits_references.npy")


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(["cost", *args])
    return code, *capsys.readouterr()


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, DIGITS, "-r", "20", "-n", "2", "--memory-limit", "128MiB", "--device", "cpu:2x64MiB", "--json"
    )
    data = json.loads(out)
    assert code == 0
    assert [p["name"] for p in data["programs"]] == ["inference", "@naive", "@default"]
    alone, naive, best = data["programs"]
    assert alone["flops"] == alone["forward_flops"] == naive["forward_flops"] == 2 * 485258
    assert naive["times_inference"] > best["times_inference"] > 20
    assert naive["memory"]["peak"] > alone["memory"]["peak"]
    assert best["largest_references"] > 20
    assert best["flops_formula"].count("R") and "peak_formula" not in best
    assert best["needed_bytes"] > best["memory"]["private"]
    assert all(p["seconds_estimate"] > 0 for p in data["programs"])
    assert (
        sum(g["flops"] for g in data["by_op"]) == best["flops"] == sum(g["flops"] for g in data["by_layer"])
    )
    assert data["uncosted"] == []


def test_tables(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, DIGITS, "--references", REFERENCES, "--each-pass", "--layers", "--device", "T4"
    )
    count = len(np.load(REFERENCES))
    assert code == 0
    expected = [f"R = {count} references", "@naive", "after eliminate-split-tile", "N*R", "lower bounds"]
    for text in (*expected, "By layer", "conv2/Conv", "most R in 16.0 GiB"):
        assert text in out


@pytest.mark.parametrize(
    ("method", "pipelines"),
    [("occlusion{window=(4,4)}", ["@masks"]), ("integrated-gradients{steps=4}", ["@naive", "@path"])],
)
def test_other_methods(capsys: pytest.CaptureFixture[str], method: str, pipelines: list[str]) -> None:
    """Masks are counted: four patches, T(x), and no more; the points of a path twice each."""
    assert main(["cost", DIGITS, "--method", method, "-r", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in found["programs"]] == ["inference", *pipelines]
    times = found["programs"][-1]["times_inference"]
    assert times == pytest.approx(5 if pipelines == ["@masks"] else 1 + 3 * 4 * 2, rel=0.1)


def test_the_options_of_compile_mean_the_same() -> None:
    compiled, costed = ({o for p in c.params for o in p.opts} for c in (compile_command, cost_command))
    # where the file goes and how its making is watched, and what its metadata says: nothing of it costs
    assert compiled - costed == {
        "--output", "-o", "--names", "--verify", "--print-after", "--time-passes", "--verbose", "-v",
    }  # fmt: skip


def test_a_fixed_batch_is_what_is_costed(capsys: pytest.CaptureFixture[str]) -> None:
    fixed, any_, one = (
        json.loads(run(capsys, DIGITS, "--json", *options)[1])
        for options in (["--batch", "4"], ["-n", "4"], ["--batch", "auto"])
    )
    assert [d["samples"] for d in (fixed, any_, one)] == [4, 4, 1]
    for program, other in zip(fixed["programs"], any_["programs"], strict=True):
        assert program["flops"] == other["flops"]
        # sizes that are known save what computes them
        assert program["nodes"] <= other["nodes"]
        assert program["memory"]["peak"] == pytest.approx(other["memory"]["peak"], rel=0.05)
    assert fixed["programs"][-1]["nodes"] < any_["programs"][-1]["nodes"]


def test_summaries_are_costed(capsys: pytest.CaptureFixture[str]) -> None:
    plain, summed = (
        json.loads(run(capsys, DIGITS, "--json", *options)[1])["programs"]
        for options in ([], ["--summary", "heatmap=(224,224)"])
    )
    assert [p["flops"] for p in plain[:-1]] == [p["flops"] for p in summed[:-1]]
    assert summed[-1]["flops"] > plain[-1]["flops"] + 224 * 224


def test_what_is_compiled_is_costed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", np.arange(1.0, 1 + len(np.load(REFERENCES))))
    np.save(tmp_path / "groups.npy", np.arange(64).reshape(1, 8, 8) // 16)
    cases = {
        "@default": ["--strategy", "fold", "--rule", "mixed", "--emit", "completeness_error"],
        "@cuda": ["--for", "cuda", "--fp16", "--batch", "3", "--summary", "top=5"],
        "@coalitions": ["--method", "exact-shapley", "--groups", str(tmp_path / "groups.npy")],
        "@path": ["--method", "integrated-gradients{steps=2}", "--weights", str(tmp_path / "weights.npy")],
    }
    for name, options in cases.items():
        code, out, err = run(capsys, DIGITS, "-r", REFERENCES, "--json", *options)
        assert code == 0, err
        assert json.loads(out)["programs"][-1]["name"] == name
        output = str(tmp_path / "out.onnx")
        assert main(["compile", DIGITS, "-r", REFERENCES, "-o", output, *options]) == 0
        capsys.readouterr()


def test_an_open_axis_gets_its_size(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[n,t,3] x) => (float[n,3] y) <int64[1] axes = {1}> {
        a = Exp (x)
        y = ReduceSum <keepdims = 0> (a, axes)
    }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "open.onnx")
    given = [str(tmp_path / "open.onnx"), "-r", str(tmp_path / "zeros.npy"), "--memory-limit", "1GiB"]
    flops = []
    for size in (64, 128):
        np.save(tmp_path / "zeros.npy", np.zeros((4, size, 3), np.float32))
        code, out, err = run(capsys, *given, "--json", "--dim", f"t={size}")
        assert code == 0, err
        flops.append(json.loads(out)["programs"][0]["flops"])
        assert main(["compile", *given, "-o", str(tmp_path / "out.onnx"), "--dim", f"t={size}"]) == 0
        assert f"t = {size}" in capsys.readouterr().out
    assert flops[1] == 2 * flops[0]
    # one value for each channel serves samples of any size, whose memory nobody knows
    np.save(tmp_path / "zeros.npy", np.zeros((4, 1, 3), np.float32))
    for command in (["cost", *given], ["compile", *given, "-o", str(tmp_path / "out.onnx")]):
        assert main(command) == 2
        mend = "Say it (Model(dims=...), --dim t=SIZE), with references of that size"
        assert mend in capsys.readouterr().err


def test_a_page_and_a_plot(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, image = tmp_path / "cost.html", tmp_path / "cost.png"
    code, _, _ = run(capsys, DIGITS, "-r", "5", "--html", str(page), "--plot", str(image))
    assert code == 0
    assert image.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    HTMLParser().feed(text)
    assert text.count("<svg") == 2 and "<script" not in text and "digits.onnx" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cost.html", "cost.png"]


def test_nodes_without_a_cost_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y, float[N,3] z) {
        y = Relu (x)
        z = Bernoulli <seed = 1.0> (x)
    }"""
    path = tmp_path / "g.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    code, out, _ = run(capsys, str(path))
    assert code == 0
    assert "not costed" in out and "Bernoulli" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--memory", "much"], "is no size of memory"),
        (["--device", "abacus"], "no device is called"),
        (["-r", "0"], "neither a number"),
        (["-r", "nowhere.npy"], "neither a number"),
        (["--passes", "@nothing"], "nothing"),
        (["--html", "/nowhere/at/all.html"], "folder"),
        (["--target", "99"], "10 classes"),
        (["--session", "other"], "default"),
        (["--batch", "2", "-n", "3"], "--samples 3 contradicts --batch 2"),
        (["--passes", "lift,canonicalize"], "gives no attributions"),
        (["--passes", "canonicalize,lower"], "put lift before it"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    code, out, err = run(capsys, DIGITS, *args)
    assert code == 2 and message in err and "Traceback" not in err and not out


def test_a_model_is_lifted_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lifted = []
    original = Lift.run

    def counting(self: Lift, ir: Any, context: Context) -> Graph:
        lifted.append(ir)
        return original(self, ir, context)

    monkeypatch.setattr(Lift, "run", counting)
    code, out, _ = run(capsys, DIGITS, "-r", "20", "--memory-limit", "128MiB", "--each-pass", "--json")
    assert code == 0 and len(json.loads(out)["strategies"]) == len(STRATEGIES)
    assert lifted == [DIGITS]


def test_another_version_of_onnx_runtime_gets_a_note(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in MODELLED:
        monkeypatch.setattr(onnxruntime, "__version__", f"{version}.7")
        assert version_note() is None
    assert json.loads(run(capsys, DIGITS, "--json")[1])["notes"] == []
    monkeypatch.setattr(onnxruntime, "__version__", f"{MODELLED[0]}0.1")
    page = tmp_path / "cost.html"
    texts = (
        *(run(capsys, DIGITS, *options)[1] for options in (["--json"], ["--html", str(page)])),
        page.read_text(),
    )
    note = version_note()
    assert note is not None and all(note in text for text in texts)
