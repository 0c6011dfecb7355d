"""The zoo's measurement on models of a few nodes, its rows and its page."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from places import BENCH

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def measured(
    folder: Path, text: str, held: bool = False, told: dict[str, Any] | None = None, **shape: tuple[int, ...]
) -> dict[str, Any]:
    from zoo_models.case import REFERENCES, SAMPLES, Inputs
    from zoo_models.measure import measure

    onnx.save(onnx.parser.parse_model(text), folder / "model.onnx")
    rng = np.random.default_rng(0)

    def rows(count: int) -> dict[str, Any]:
        return {n: rng.standard_normal((count, *s)).astype(np.float32) for n, s in shape.items()}

    samples, references = rows(SAMPLES), rows(REFERENCES)
    if held:
        samples["m"] = rng.integers(0, 2, (SAMPLES, 4))
        references["m"] = rng.integers(0, 2, (REFERENCES, 4))
    Inputs(samples, references, {}, told=told or {}).save(folder / "inputs.npz")
    return measure(folder / "model.onnx", Inputs.load(folder / "inputs.npz"))


HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


@pytest.mark.parametrize("batch", ["N", "1"])
def test_a_complete_model_and_its_batch_of_one(batch: str, tmp_path: Path) -> None:
    row = measured(
        tmp_path,
        f"{HEAD} g (float[{batch}, 4] x) => (float[{batch}, 4] y) {{ t = Tanh(x)  y = Mul(t, x) }}",
        x=(4,),
    )
    assert row["result"] == "complete" and row["error"] < 1e-5 and row["base_off"] < 1e-5
    assert row["nodes"] == 2 < row["explained_nodes"] and row["by_inference"] > 0 and row["held"] == []


def test_a_held_input_takes_the_samples_value_in_the_base(tmp_path: Path) -> None:
    row = measured(
        tmp_path,
        f"""{HEAD} g (float[N, 4] x, int64[N, 4] m) => (float[N, 4] y) {{
            f = Cast<to = 1>(m)  t = Tanh(x)  y = Mul(t, f) }}""",
        held=True,
        x=(4,),
    )
    assert row["result"] == "complete" and row["held"] == ["m"] and row["base_off"] < 1e-5


def test_a_whole_input_one_of_several_outputs_and_maps(tmp_path: Path) -> None:
    graph = f"{HEAD} g (float[3, 2] x, int64[3] i) => (float[3, 2] y) {{ g = Gather(x, i)  y = Mul(g, x) }}"
    graph = graph.replace("int64[3] i) => (float[3, 2] y)", ") => (float[3, 2] y) <int64[3] i = {1, 2, 0}>")
    row = measured(tmp_path, graph.replace("x, )", "x)"), told={"batch": "none"}, x=(3, 2))
    assert row["result"] == "complete" and row["base_off"] < 1e-5
    heads = f"{HEAD} g (float[N, 4] x) => (float[N, 4] a, float[N, 4] y) {{ a = Hardmax(x)  y = Mul(x, x) }}"
    assert measured(tmp_path, heads, told={"output": "y"}, x=(4,))["result"] == "complete"
    assert measured(tmp_path, heads, x=(4,))["kind"] == "NotDifferentiable"
    maps = """<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]>
        g (float[N, 2] x) => (seq(map(int64, float)) y) {
            p = Softmax(x)  y = ai.onnx.ml.ZipMap<classlabels_int64s = [4, 7]>(p) }"""
    assert measured(tmp_path, maps, x=(2,))["result"] == "complete"


def test_a_gap_that_is_reported_and_the_plain_file_beside_it(tmp_path: Path) -> None:
    plain = f"{HEAD} g (float[N, 4] x) => (float[N, 4] y) {{ y = Mul(x, x) }}"
    onnx.save(onnx.parser.parse_model(plain), tmp_path / "plain.onnx")
    scales = "<float s = {0.05}, uint8 z = {128}>"
    rounded = plain.replace(
        "{ y = Mul(x, x)", "{ q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Mul(d, d)"
    )
    rounded = rounded.replace("y) {", f"y) {scales} {{", 1)
    assert measured(tmp_path, rounded, x=(4,))["result"] == "refused"
    told = {"quantized": True, "plain": "plain.onnx"}
    row = measured(tmp_path, rounded, told=told, x=(4,))
    assert row["result"] == "reported" and 1e-5 < row["gap"] < 0.1 and row["error"] < 1e-5
    assert 1e-4 < row["beside_plain"] < 0.1 and row["other_classes"] == 0


def test_a_wrong_sum_a_wrong_prediction_a_refusal_and_a_broken_file_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = f"{HEAD} g (float[N, 4] x) => (float[N, 4] y) {{ y = Tanh(x) }}"
    assert measured(tmp_path, good.replace("Tanh", "Hardmax"), x=(4,))["kind"] == "NotDifferentiable"
    assert measured(tmp_path, good, x=(5,))["result"] == "unusable"

    saturated = good.replace("y = Tanh(x)", "b = Add(x, big)  y = Tanh(b)").replace(
        "=> (float[N, 4] y)", "=> (float[N, 4] y) <float big = {9}>"
    )
    assert "rounding" in measured(tmp_path, saturated, x=(4,))["message"]

    from zoo_models import measure as module

    import irshap

    compile = irshap.compile
    monkeypatch.setattr(module, "METHOD", "input-x-gradient")
    monkeypatch.setattr(irshap, "compile", lambda *_, **__: 1 // 0)
    crashed = measured(tmp_path, good, x=(4,))
    assert (crashed["result"], crashed["kind"]) == ("crashed", "ZeroDivisionError")

    def scaled(model: Any, *given: Any, **named: Any) -> Any:
        """Compiles another function than the file's."""
        found = onnx.parser.parse_model(good.replace("Tanh(x)", "Mul(x, x)"))
        return compile(found, *given)

    monkeypatch.setattr(irshap, "compile", scaled)
    assert measured(tmp_path, good, x=(4,))["result"] == "wrong"

    def untrue(model: Any, *given: Any, **named: Any) -> Any:
        """Attributes a half of the difference."""
        found = compile(model, *given)
        for node in found.model.graph.node:
            node.output[:] = [n.replace("x_attributions", "whole") for n in node.output]
            node.input[:] = [n.replace("x_attributions", "whole") for n in node.input]
        half = onnx.helper.make_tensor("half", 1, [], [0.5])
        found.model.graph.initializer.append(half)
        found.model.graph.node.append(onnx.helper.make_node("Mul", ["whole", "half"], ["x_attributions"]))
        return found

    monkeypatch.setattr(irshap, "compile", untrue)
    row = measured(tmp_path, good, x=(4,))
    assert row["result"] == "inexact" and 0.1 < row["error"] < 2


def test_rows_are_appended_and_read_again(tmp_path: Path) -> None:
    from zoo_models.runs import Rows, limited, measured

    rows = Rows(tmp_path / "rows.jsonl")
    for result in ("crashed", "refused"):
        rows.add({"case": "a/b", "result": result, "message": "why"})
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
    assert Rows(tmp_path / "rows.jsonl").found["a/b"]["result"] == "refused"

    assert limited(["-c", "print(1)"], 60, 2**33)[:2] == (0, "1\n")
    assert limited(["-c", "while True: pass"], 0.2, 2**33)[0] == "timeout"
    code, _, errors = limited(["-c", "bytearray(2 ** 32)"], 60, 2**30)
    assert code == 1 and "MemoryError" in errors
    gone = measured(tmp_path / "none.onnx", tmp_path / "none.npz", 60, 2**33)
    assert gone["result"] == "crashed" and "none.npz" in gone["message"]


def test_the_page_counts_and_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo_models import page as module

    monkeypatch.setattr(module, "version", lambda _: "1.0")

    def row(model: str, result: str, **more: Any) -> dict[str, Any]:
        named = {"case": f"text/{model}", "suite": "text", "model": model}
        return {**named, "result": result, "nodes": 10, **more}

    numbers = {"error": 1e-6, "prediction_off": 0.0, "by_inference": 2.0, "explained_nodes": 40}
    numbers |= {"compile_seconds": 3.0}
    rows = [
        row("a", "complete", **numbers),
        row("b", "complete", **numbers | {"error": 5e-4}),
        row("c", "inexact", **numbers | {"error": float("nan")}),
        row("d", "refused", kind="TargetError", message="node_7 (is_nan): jumps in [2, 3]"),
        row("e", "refused", kind="TargetError", message="/a/IsNaN (is_nan): jumps in [4]"),
        row("f", "not exported", message="no such op"),
    ]
    rows += [
        row("g", "complete", **numbers, form="basic", beside_plain=2e-6),
        row("g", "reported", **numbers, form="qdq", gap=0.03),
        {
            "case": "text/a/shap",
            "suite": "text",
            "model": "a",
            "peer": "shap",
            "result": "inexact",
            "error": 0.5,
        },
    ]
    rows[-2]["case"] = "text/g/qdq"
    text = module.page(json.loads(json.dumps(rows)))
    assert "| text | 7 | 7 | 3 (42.9 %) | 1 | 2 | 0 | 1 | 0 | 1 |" in text
    assert "| text | 1.0e-06 | inf | inf | 60.0 % | 2.0 | 2.0 | 4.0 | 3.0 s |" in text
    assert "**refused**, 2: TargetError" in text and "In text/d, text/e" in text
    assert "**not exported**, 1: no such op" in text
    assert (
        "| basic | 1 | 2.0e-06 | 2.0e-06 |  |  |" in text and "| qdq | 1 |  |  | 3.0e-02 | 3.0e-02 |" in text
    )
    assert "| text | shap | 1 | 0 | 1 | 0 | 5.0e-01 |" in text


def test_the_smallest_that_are_trained(tmp_path: Path) -> None:
    import train_zoo

    def row(model: str, nodes: int, **more: Any) -> str:
        named = {"suite": "text", "model": model, "batch": "dynamic", "length": "fixed", "nodes": nodes}
        return json.dumps(named | more)

    rows = [row("a", 9), row("b", 7), row("a", 5), row("c", 1, batch="one"), row("d", 2, suite="sklearn")]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    assert list(train_zoo.smallest(2, rows=tmp_path / "rows.jsonl").items()) == [("text/a", 5), ("text/b", 7)]
    assert train_zoo.smallest(9, "b$", tmp_path / "rows.jsonl") == {"text/b": 7}
    wanted = {"v": np.array([1.0, -4.0]), "w": np.array([0.5])}
    assert train_zoo.off({"v": np.array([1.0, -4.0]), "w": np.array([0.7])}, wanted) == pytest.approx(0.05)
    told = {
        "network": "text/a",
        "nodes": 5,
        "parameters": 2,
        "numbers": 1234,
        "float64": 1e-16,
        "float32": 1e-7,
    }
    text = train_zoo.page([told, {"network": "text/b", "nodes": 7, "why": "refused: no"}])
    assert "| text/a | 5 | 2 | 1 234 | 1.0e-16 | 1.0e-07 |" in text and "| text/b | 7 | refused: no |" in text


def test_gradients_are_torchs() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    import train_zoo

    found = train_zoo.compared("recurrent/gru_final_states", "torchscript")
    assert found["float64"] < 1e-9 and found["float32"] < 1e-4 and found["parameters"] == 10


def test_inputs_are_guessed_from_what_the_file_says_and_what_runs(tmp_path: Path) -> None:
    from zoo_models.guessing import guess

    text = f"""{HEAD} g (int32[unk, t] ids, float[2, unk, 3] state, int64 rate, bool[unk, t] m, float[5] w)
        => (float[unk, 2] y) <float[4, 3] table = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}}, int64 z = {{0}},
        int64[1] one = {{1}}, int64[1] two = {{2}}, float[3, 2] a = {{1, 2, 3, 4, 5, 6}},
        int64[1] at = {{12}}, int64[1] end = {{13}}> {{
            e = Gather(table, ids)
            f = Slice(e, at, end, one)
            g = Squeeze(f, one)
            s = Gather(state, z)
            h = Add(g, s)
            y = MatMul(h, a) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    inputs = guess(tmp_path / "model.onnx", {})
    shapes = {n: (a.shape, a.dtype.name) for n, a in inputs.samples.items()}
    assert shapes == {
        "ids": ((3, 16), "int32"),  # 8 is too short, ids over 3 are none of the table's
        "state": ((2, 3, 3), "float32"),
        "rate": ((), "int64"),
        "m": ((3, 16), "bool"),
        "w": ((5,), "float32"),
    }
    assert inputs.samples["ids"].max() < 4 and inputs.axes == {"state": 1, "rate": None, "w": None}
    assert set(inputs.references) == {"ids", "m"}
    assert guess(tmp_path / "model.onnx", {"t": 20}).samples["m"].shape == (3, 20)
    # an axis of -1 is a batch, too, and a state of a batch of 1 is one for all
    x = onnx.parser.parse_model(
        f"{HEAD} g (float[N, 4] x, float[1, 1, 4] h) => (float[N, 4] y) {{ y = Tanh(x) }}"
    )
    onnx.save(x, tmp_path / "state.onnx")
    assert guess(tmp_path / "state.onnx", {}).axes == {"h": None}
    x.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    del x.graph.input[1]
    onnx.save(x, tmp_path / "open.onnx")
    assert guess(tmp_path / "open.onnx", {}).samples["x"].shape == (3, 4)
    inputs.save(tmp_path / "inputs.npz")
    one = next(type(inputs).load(tmp_path / "inputs.npz").rows())
    assert {n: a.shape for n, a in one.items()} == {
        "ids": (1, 16), "state": (2, 1, 3), "rate": (), "m": (1, 16), "w": (5,),
    }  # fmt: skip
    with pytest.raises(ValueError, match="depend"):
        onnx.save(
            onnx.parser.parse_model(
                text.replace("y = MatMul(h, a)", "y = MatMul(z3, a)").replace(
                    "int64 z =", "float[1, 3] z3 = {1, 2, 3}, int64 z ="
                )
            ),
            tmp_path / "constant.onnx",
        )
        guess(tmp_path / "constant.onnx", {})
