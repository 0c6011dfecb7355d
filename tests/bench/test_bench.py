"""The benchmark's arithmetic: the programs between two pipelines, promises, and what memory is expected."""

from __future__ import annotations

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
