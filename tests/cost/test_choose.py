"""Which strategy a compilation takes, and what is told of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import flat
import numpy as np
import pytest

import irshap
from irshap import demo
from irshap.cli import main
from irshap.cost.choose import before_slot, predictions
from irshap.errors import PipelineError, UserError
from irshap.pipeline.named import PIPELINES
from irshap.pipeline.strategies import STRATEGIES, with_strategy
from irshap.pipeline.text import format_pipeline, parse_pipeline
from irshap.runtime import Explainer

pytestmark = pytest.mark.slow

REFERENCES = np.random.default_rng(3).random((64, 1, 8, 8), dtype=np.float32)
SAMPLES = REFERENCES[:3]
STREAM, FOLD = (
    format_pipeline(with_strategy(parse_pipeline(PIPELINES["default"]), name)) for name in ("stream", "fold")
)


def binders(text: str) -> list[str]:
    return [p.name for p in parse_pipeline(text) if p.binds_references]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_the_same(strategy: str) -> None:
    naive = irshap.compile(demo.model_path(), REFERENCES, passes="@naive").explainer()(SAMPLES)
    compiled = irshap.compile(demo.model_path(), REFERENCES, strategy=strategy)
    assert compiled.choice is None
    assert binders(compiled.pipeline) == binders(STRATEGIES[strategy])
    scale = np.abs(naive.values).max()
    np.testing.assert_allclose(compiled.explainer()(SAMPLES).values, naive.values, rtol=0, atol=1e-5 * scale)


def test_options_that_are_set_already_stay() -> None:
    given = parse_pipeline(STREAM.replace("stream{otherwise=fold}", "stream{chunk=3, limit=77}"))
    (found,) = (p for p in with_strategy(given, "recompute") if p.name == "stream")
    assert (found.chunk, found.limit, found.store) == (3, 77, "references")


def test_a_limit_leads_to_the_first_that_fits(tmp_path: Path) -> None:
    """Tight limits: what is stored for 4000 references takes 70 MiB; to map or to recompute it, little."""
    passes = STREAM.replace("stream{otherwise=fold}", "stream{chunk=50, otherwise=fold}")
    given = parse_pipeline(passes)
    listed = predictions(before_slot(demo.model_path(), given), given, 4000)
    found = {(p.strategy, p.external): p for p in listed}
    peaks = {key: p.peak for key, p in found.items()}
    assert {name for name, external in peaks if not external} == set(STRATEGIES)
    assert peaks["recompute", False] < peaks["stream", False] < peaks["fold", False]
    assert peaks["stream", True] < 0.7 * peaks["stream", False]
    assert found["recompute", False].file < found["stream", False].file == found["stream", True].file
    # reading what is stored takes less time than computing it
    assert list(peaks).index(("stream", True)) < list(peaks).index(("recompute", False))
    references = np.concatenate([REFERENCES] * 63)[:4000]
    for external in (False, True):
        limit = int(peaks["stream", external] * 1.04)
        assert external == (limit < peaks["stream", False])
        compiled = irshap.compile(demo.model_path(), references, passes=passes, memory_limit=limit)
        assert compiled.choice is not None
        assert (compiled.choice.strategy, compiled.choice.external) == ("stream", external)
        assert compiled.pipeline == compiled.choice.pipeline
        assert ("stream, with a data file: the first" in compiled.choice.reason) == external
        compiled.save(tmp_path / f"{external}.onnx")
        assert (tmp_path / f"{external}.onnx.data").exists() == external
    with pytest.raises(UserError, match="no strategy stays within") as caught:
        irshap.compile(demo.model_path(), references, passes=passes, memory_limit="1MiB")
    assert all(name in str(caught.value) for name in (*STRATEGIES, "stream with a data file"))
    # a limit that equals what is listed says why it isn't enough, and the one that is named is
    smallest = min(peaks.values())
    with pytest.raises(UserError, match="of which 3% are left for errors of the prediction") as caught:
        irshap.compile(demo.model_path(), references, passes=passes, memory_limit=smallest)
    enough = re.search(r"Raise the limit to (\d+MiB)", str(caught.value))
    assert enough is not None
    irshap.compile(demo.model_path(), references, passes=passes, memory_limit=enough[1])


def test_a_data_file_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "refs.npy", REFERENCES)
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    for path, options in ((one, []), (two, ["--external-data"])):
        command = ["compile", str(demo.model_path()), "-r", str(tmp_path / "refs.npy"), "-o", str(path)]
        assert main([*command, *options]) == 0
    assert sorted(p.name for p in tmp_path.glob("*.data")) == ["two.onnx.data"]
    assert two.stat().st_size < one.stat().st_size
    expected, found = (Explainer(path)(SAMPLES).values for path in (one, two))
    np.testing.assert_array_equal(found, expected)
    capsys.readouterr()
    private = []
    for options in ([], ["--external-data"]):
        assert main(["cost", str(demo.model_path()), "-r", "4000", "--json", *options]) == 0
        programs = {e["name"]: e for e in json.loads(capsys.readouterr().out)["strategies"]}
        private.append(programs["stream"]["memory"]["private"])
    assert private[1] < private[0]


def test_the_pipelines_own_strategy_comes_first() -> None:
    for name, own in (("stream", STREAM), ("fold", FOLD)):
        compiled = irshap.compile(demo.model_path(), REFERENCES, passes=own, memory_limit="4GiB")
        assert compiled.choice is not None
        assert compiled.choice.strategy == name


@pytest.mark.parametrize("given", [{"strategy": "fold"}, {"memory_limit": "1GiB"}])
def test_a_pipeline_without_the_place_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(PipelineError, match="one of fold-references, stream"):
        flat.compile(demo.model_path(), REFERENCES, passes="@naive", **given)


def test_unknown_strategies_list_the_near_ones() -> None:
    with pytest.raises(PipelineError, match="stream"):
        irshap.compile(demo.model_path(), REFERENCES, strategy="streem")


def test_the_command_says_what_it_chose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "refs.npy", REFERENCES)
    files = ["-r", str(tmp_path / "refs.npy"), "-o", str(tmp_path / "out.onnx")]
    limit = ["--passes", STREAM, "--memory-limit", "1GiB"]
    assert main(["compile", str(demo.model_path()), *files, *limit]) == 0
    assert "strategy stream: the first to stay within 1024 MiB" in capsys.readouterr().out
    assert main(["compile", str(demo.model_path()), *files, "--strategy", "recompute", "--json"]) == 0
    assert "store=references" in json.loads(capsys.readouterr().out)["pipeline"]


def test_costs_of_each_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", str(demo.model_path()), "-r", "50", "--memory", "1GiB", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["strategies"]}
    assert set(found) == set(STRATEGIES)
    assert found["fold"]["file_bytes"] == pytest.approx(found["stream"]["file_bytes"], rel=0.1)
    assert found["recompute"]["file_bytes"] < found["stream"]["file_bytes"]
    # the same work, but for the references' forward pass
    assert found["fold"]["flops"] == pytest.approx(found["stream"]["flops"], rel=0.01)
    assert found["recompute"]["flops"] > 1.2 * found["stream"]["flops"]
    assert found["fold"]["largest_references"] < found["recompute"]["largest_references"]
