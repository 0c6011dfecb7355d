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
from irshap.cost import SessionModel, Settings, stages
from irshap.cost.choose import before_slot, choose, predictions
from irshap.cost.limits import Limit, largest, needed, references_within
from irshap.errors import PipelineError, UserError
from irshap.files import own_data
from irshap.ir.dims import N, R
from irshap.pipeline.named import PIPELINES
from irshap.pipeline.strategies import STRATEGIES, slot_of, with_strategy
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
    passes = STREAM.replace("stream{otherwise=fold}", "stream{chunk=50,price=0,otherwise=fold}")
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
        limit = found["stream", external].needs
        assert external == (limit < found["compact", False].needs)
        compiled = irshap.compile(demo.model_path(), references, passes=passes, memory_limit=limit)
        assert compiled.choice is not None
        assert (compiled.choice.strategy, compiled.choice.external) == ("stream", external)
        assert compiled.pipeline == compiled.choice.pipeline
        assert ("stream, with a data file: the first" in compiled.choice.reason) == external
        compiled.save(tmp_path / f"{external}.onnx")
        assert bool(own_data(tmp_path / f"{external}.onnx")) == external
    with pytest.raises(UserError, match="no strategy stays within") as caught:
        irshap.compile(demo.model_path(), references, passes=passes, memory_limit="1MiB")
    assert all(name in str(caught.value) for name in (*STRATEGIES, "stream with a data file"))
    # the limit that is named is enough
    enough = re.search(r"Raise the limit to (\d+MiB)", str(caught.value))
    assert enough is not None
    irshap.compile(demo.model_path(), references, passes=passes, memory_limit=enough[1])


def test_a_data_file_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "refs.npy", REFERENCES)
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    for path, options in ((one, []), (two, ["--external-data"])):
        command = ["compile", str(demo.model_path()), "-r", str(tmp_path / "refs.npy"), "-o", str(path)]
        assert main([*command, *options]) == 0
    assert list(tmp_path.glob("*.data")) == own_data(two)
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
    said = "strategy stream: the first that needs no more than 1024 MiB in ONNX Runtime's default session"
    assert said in capsys.readouterr().out
    assert main(["compile", str(demo.model_path()), *files, *limit, "--session", "explainer"]) == 0
    assert "MiB in Explainer's session (" in capsys.readouterr().out
    assert main(["compile", str(demo.model_path()), *files, "--strategy", "recompute", "--json"]) == 0
    assert "store=references" in json.loads(capsys.readouterr().out)["pipeline"]


def test_costs_of_each_strategy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", str(demo.model_path()), "-r", "50", "--memory-limit", "1GiB", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["strategies"]}
    assert set(found) == set(STRATEGIES)
    assert found["fold"]["file_bytes"] == pytest.approx(found["stream"]["file_bytes"], rel=0.1)
    assert found["recompute"]["file_bytes"] < found["stream"]["file_bytes"]
    # the same work, but for the references' forward pass
    assert found["fold"]["flops"] == pytest.approx(found["stream"]["flops"], rel=0.01)
    assert found["recompute"]["flops"] > 1.2 * found["stream"]["flops"]
    assert found["fold"]["largest_references"] < found["recompute"]["largest_references"]


def test_a_limit_is_for_the_default_session_unless_said_otherwise() -> None:
    """Memory patterns, which `Explainer` turns off, take a block beside what the first run left."""
    given = parse_pipeline(FOLD)
    start = before_slot(demo.model_path(), given)
    usual, own = (
        {(p.strategy, p.external): p.needs for p in predictions(start, given, 4000, session)}
        for session in ("default", "explainer")
    )
    assert usual["fold", False] > 1.02 * own["fold", False]
    between = (usual["fold", False] + own["fold", False]) // 2
    taken = {name: choose(start, given, 4000, between, name).strategy for name in ("default", "explainer")}
    assert taken["explainer"] == "fold" != taken["default"]
    with pytest.raises(PipelineError, match="no session is called 'defualt'"):
        irshap.compile(demo.model_path(), REFERENCES, memory_limit="4GiB", session="defualt")


def test_a_limit_holds_for_a_strategy_that_is_given() -> None:
    given = parse_pipeline(STREAM)
    start = before_slot(demo.model_path(), given)
    (fold, *_) = predictions(start, given, 4000, names=["fold"])
    references = np.concatenate([REFERENCES] * 63)[:4000]
    limit = fold.needs - 2**20
    found = irshap.compile(demo.model_path(), references, strategy="fold", memory_limit=limit)
    assert found.choice is not None and (found.choice.strategy, found.choice.external) == ("fold", True)
    with pytest.raises(UserError, match=r"no strategy stays within .*: fold \d+ MiB, fold with a data file"):
        irshap.compile(demo.model_path(), references, strategy="fold", memory_limit="64MiB")


def test_no_number_is_said_beyond_one_that_does_not_fit() -> None:
    """What stands in one file is parsed; from 2 GiB on it is mapped, so that more references need less."""
    given = parse_pipeline(STREAM)
    stage = stages(before_slot(demo.model_path(), given), given[slot_of(given) :], expected=4000)[-1]
    session = SessionModel.of(stage.graph, stored=stage.stored)
    settings = Settings(external_over=32 << 20)
    parsed = largest(lambda count: not session.is_mapped({N: 1, R: count}, settings), 10**5)
    before, mapped = (
        needed(session.predict({N: 1, R: count}, settings), settings) for count in (parsed, parsed + 1)
    )
    assert mapped < before
    found = references_within(session, (mapped + before) // 2, {N: 1}, settings)
    assert 0 < found.references < parsed and not found.capped
    assert references_within(session, before * 9 // 8, {N: 1}, settings).references > parsed
    assert references_within(session, 1 << 20, {N: 1}, settings) == Limit(0, capped=False)
    # what is compiled for one number alone is known better
    memory = session.predict({N: 1, R: parsed}, settings)
    known = references_within(session, needed(memory, settings) - 1, {N: 1}, settings, (5, memory))
    assert known.references == 4
