"""The benchmark's arithmetic: the programs between two pipelines, promises, and what memory is expected."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from places import BENCH


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    import ablation

    yield ablation
    for name in set(sys.modules) - before:
        if str(BENCH) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_steps_lead_from_naive_to_default(bench: Any) -> None:
    from irshap.pipeline.manager import PassManager

    steps = bench.steps()
    managers = [PassManager.from_text(step.pipeline) for step in steps]
    for manager in managers:
        manager.check()
        assert any(p.binds_references for p in manager.passes)
    assert managers[0].text == PassManager.from_text("@naive").text
    assert managers[-1].text == PassManager.from_text("@default").text
    assert [s.name for s in steps][0::-1] == ["naive"]
    assert steps[-1].name == "default"
    assert len({s.name for s in steps}) == len(steps)


def test_steps_keep_the_naive_binding_until_another_comes(bench: Any) -> None:
    steps = bench.steps(
        "lift,target,autodiff,deeplift,bind-references,dce,lower",
        "lift,target,autodiff,deeplift,eliminate-split-tile,dce,fold-references,dce,lower",
    )
    assert [s.pipeline for s in steps] == [
        "lift,target,autodiff,deeplift,bind-references,dce,lower",
        "lift,target,autodiff,deeplift,eliminate-split-tile,bind-references,dce,lower",
        "lift,target,autodiff,deeplift,eliminate-split-tile,dce,bind-references,dce,lower",
        "lift,target,autodiff,deeplift,eliminate-split-tile,dce,fold-references,dce,lower",
    ]


def test_no_steps_to_a_pipeline_without_the_naive_passes(bench: Any) -> None:
    with pytest.raises(ValueError, match="deeplift"):
        bench.steps("lift,target,autodiff,deeplift,lower", "lift,target,autodiff,lower")


def entry(seconds: float, unit: float, peak: int, runtime: str = "onnx", **more: Any) -> dict[str, Any]:
    rounds = [{"seconds": seconds * slow, "unit": unit * slow} for slow in (1, 3, 1.5)]
    return {"runtime": runtime, "before": 10, "loaded": 110, "peak": peak, "rounds": rounds, **more}


def test_promises_are_computed_from_the_record(bench: Any, tmp_path: Path) -> None:
    from versus.claims import findings
    from versus.record import Record

    record = Record(tmp_path / "results.json", "peers")
    record.cell("vgg19", 20)["systems"] |= {
        "inference 1": entry(1, 11, 120),
        "default": entry(11, 11, 210, distances={"naive": 1e-6}),
        # measured when the machine was twice as slow: the ratio counts
        "shap": entry(198, 22, 710, "torch"),
        "captum": {"failed": "needs more memory than the machine has"},
    }
    found = {(f.promise, f.at): (f.measured, f.holds) for f in findings(record)}
    assert found["faster than SHAP", "R = 20"] == (9.0, True)
    assert found["faster than SHAP", "R = 10"] == (None, None)
    assert found["faster than Captum", "R = 20"] == (None, None)
    assert found["memory by SHAP's", "R = 20"] == (100 / 600, True)
    assert found["time by that of inferring 1 and R", "worst at R = 20"] == (1.0, True)
    assert found["`@default` and `@naive` apart, by the largest, in float32", "worst at R = 20"] == (
        1e-6,
        True,
    )
    record.save()
    assert Record(tmp_path / "results.json", "peers").data == record.data
    assert Record(tmp_path / "results.json", "ablation").networks() == []


def test_expected_memory_follows_smaller_numbers_of_references(bench: Any, tmp_path: Path) -> None:
    from versus.record import Record

    record = Record(tmp_path / "results.json", "peers")
    assert record.expected_peak("vgg19", 5, "shap") is None
    record.cell("vgg19", 1)["systems"]["shap"] = entry(1, 1, 210)
    assert record.expected_peak("vgg19", 1, "shap") == 210
    assert record.expected_peak("vgg19", 5, "shap") == pytest.approx(210 + 1.15 * 100 * 4, abs=1)
    record.cell("vgg19", 5)["systems"]["shap"] = entry(1, 1, 410)
    assert record.expected_peak("vgg19", 10, "shap") == pytest.approx(410 + 1.15 * 50 * 5, abs=1)


def outcome(**parts: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {k: [] for k in ("nodes", "tensors", "metadata", "values", "data", "rest")}
    return {"code": 0, "pipeline": "lift,lower", **empty, **parts}


def test_what_counts_as_the_same_bytes(bench: Any) -> None:
    from sameness.compare import DIFFERS, REFUSED, REWORDED, SAME, compare

    refusal = {"code": 2, "complaint": "error: no such class"}
    report = {"code": 0, "json": {"programs": [{"peak": 1}]}}
    sides = {
        "equal": (outcome(), outcome()),
        "renamed": (outcome(), outcome(pipeline="lift,dce,lower")),
        "node": (outcome(nodes=["Relu 'a' 0", "Add 'b' 0"]), outcome(nodes=["Relu 'a' 0", "Add 'b' 1"])),
        "longer": (outcome(), outcome(tensors=["'c' 0"])),
        "metadata": (outcome(metadata=["k = 1"]), outcome(metadata=["k = 2"])),
        "refused": (refusal, refusal),
        "reworded": (refusal, {**refusal, "complaint": "error: class 9 of 3"}),
        "crashed": (refusal, {**refusal, "complaint": "crash: KeyError"}),
        "mended": ({"code": 1, "complaint": "error: no"}, outcome()),
        "text": ({"code": 0, "text": "a\nb\n"}, {"code": 0, "text": "a\nc\n"}),
        "more told": (report, {"code": 0, "json": {"programs": [{"peak": 1}], "note": "new"}}),
        "other peak": (report, {"code": 0, "json": {"programs": [{"peak": 2}]}}),
    }
    before, after = ({name: pair[i] for name, pair in sides.items()} for i in (0, 1))
    found = compare(dict.fromkeys(sides, "all"), before, after)
    assert found.verdicts["all"] == {SAME: 3, REFUSED: 1, REWORDED: 1, DIFFERS: 7}
    assert found.differences["node"] == "node 1 of 2, 2: Add 'b' 0 -> Add 'b' 1"
    assert found.differences["longer"] == "tensor 0 of 0, 1: None -> 'c' 0"
    assert found.differences["text"] == "line 1 of 2, 2: b -> c"
    assert found.differences["other peak"] == ".programs[0].peak: 1 -> 2"
    assert found.differences["mended"] == "exit code 1 -> 0: error: no"
    assert list(found.reworded) == ["reworded"]
    assert found.renamed == {("lift,lower", "lift,dce,lower"): 1}


def test_a_model_file_is_described_but_for_the_version(bench: Any, tmp_path: Path) -> None:
    import onnx
    from sameness.collect import describe

    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1, 2}> { y = Mul(x, w) }""")

    def described(**metadata: str) -> dict[str, Any]:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.producer_name, changed.producer_version = "irshap", metadata["version"]
        for key, value in metadata.items():
            changed.metadata_props.add(key=f"irshap.{key}", value=value)
        onnx.save(changed, tmp_path / "model.onnx")
        return describe(tmp_path / "model.onnx")

    one = described(version="1", pipeline="lift,lower", references="3")
    assert one == described(version="2", pipeline="lift,lower", references="3")
    assert one["pipeline"] == "lift,lower"
    assert one["metadata"] == ["irshap.references = 3"]
    other = described(version="1", pipeline="lift,lower", references="4")
    assert {k for k in one if one[k] != other[k]} == {"metadata"}
    model.graph.initializer[0].float_data[0] = 3
    (tmp_path / "model.onnx.data").write_bytes(b"outside")
    changed = described(version="1", pipeline="lift,lower", references="3")
    assert {k for k in one if one[k] != changed[k]} == {"tensors", "data"}


def test_options_say_what_arguments_say(bench: Any, tmp_path: Path) -> None:
    from sameness.files import Files, options

    files = Files(tmp_path)
    given = {"target": -1, "context_inputs": ("a", "b"), "fp16": False, "weights": [1, 2], "verify": "types"}
    given |= {"model": b"", "rule": None, "memory_limit": 8}
    *found, weights, limit = options(given, files.arrays)
    assert found == ["--target=-1", "--context=a", "--context=b", "--no-fp16"]
    assert limit == "--memory-limit=8"
    assert weights == f"--weights={files.arrays([1, 2])}"
    assert files.arrays({"file": [1]}) == files.arrays({"file": [1]})
    assert len(list(tmp_path.iterdir())) == 2


def test_the_section_of_another_script_stays(bench: Any, tmp_path: Path) -> None:
    from versus import page

    path = tmp_path / "page.md"
    path.write_text("# Benchmarks\n\n## Promises\n\nall hold\n")
    page.put_section(path, ["old", "### Part", "lines"])
    page.put_section(path, ["new", "### Part", "lines"])
    text = f"# Benchmarks\n\n## Promises\n\nall hold\n\n## {page.OTHERS}\n\nnew\n### Part\nlines\n"
    assert path.read_text() == text
    assert list(page._kept(path)) == [f"## {page.OTHERS}", "", "new", "### Part", "lines"]
    assert list(page._kept(tmp_path / "none.md")) == []


def test_what_methods_are_held_against(bench: Any) -> None:
    import method_speed

    rounds = {"captum ig": 9.0, "captum ig of 10": 6.0, "ig": 2.0}
    found = {name: {"clock": seconds} for name, seconds in rounds.items()}
    assert method_speed.ratio(found, ("captum ig", "captum ig of 10"), "ig", "clock") == 3.0
    assert method_speed.ratio(found, "occlusion", "images", "clock") is None
    for _, over, under, _, _ in method_speed.PROMISES:
        sides = [[s] if isinstance(s, str) else s for s in (over, under)]
        assert all(name in method_speed.PARTS for side in sides for name in side)


def test_limits_lead_to_different_strategies(bench: Any, tmp_path: Path) -> None:
    from limit_kept import HEADING, MIB, limits, put, table

    assert limits([n * MIB for n in (300, 500, 200, 250, 100)]) == [300, 200, 100]
    assert limits([300 * MIB, 400 * MIB]) == [360, 330, 300]
    entry = {"network": "a", "references": 2, "limit": 9, "strategy": "fold", "external": True}
    kept = entry | {"predicted": 5 * MIB, "kept": True, "private": 7 * MIB}
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{HEADING}\n\nSaid.\n\n## Next\n\nMore.\n")
    for killed in (False, True):
        put(page, table([kept, entry | {"predicted": MIB, "kept": False}] if killed else [kept]))
    text = page.read_text()
    assert "| a | 9 | fold, data file | 51 | 7 | yes |\n| a | 9 | fold, data file | 47 | - | **no** |" in text
    assert text.count("| network |") == 1 and "1 of 2 limits kept" in text
    assert text.startswith(f"# Title\n\n{HEADING}\n\nSaid.\n\n|") and text.endswith(".\n\n## Next\n\nMore.\n")


def test_each_kind_of_node_counts_at_the_best_rate_of_its_kind(bench: Any) -> None:
    import floor

    def event(kind: str, numbers: int, duration: int) -> dict[str, Any]:
        shape = {"float": [numbers]}
        return {
            "dur": duration,
            "args": {"op_name": kind, "input_type_shape": [shape], "output_type_shape": [shape]},
        }

    size = floor.LARGE
    events = [event("Mul", size, 10), event("Mul", 2 * size, 40), event("Mul", 8, 1), event("Add", 6, 3)]
    least = floor.at_best(events)
    assert abs(least["Mul"] - 10e-6 * (3 + 8 / size)) < 1e-12 and abs(least["Add"] - 3e-6) < 1e-12


def test_scripts_know_the_passes_by_themselves() -> None:
    """In a process of their own, where no test has imported the catalog of passes."""
    told = "import ablation; from versus.agreement import PassManager; PassManager.from_text('@default')"
    command = [sys.executable, "-c", f"{told}; print(len(ablation.steps()))"]
    done = subprocess.run(command, cwd=BENCH, capture_output=True, text=True, check=False)
    assert not done.stderr
    assert int(done.stdout) > 2
