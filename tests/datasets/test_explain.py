"""Data sets explained: equal to `Explainer`, resumed to the byte, refused where another run's results are."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explaining import Array, arrays, contents, model, saved, table

import irshap
from irshap.cli import main
from irshap.datasets import explain_dataset, plan
from irshap.datasets.job import Explained, Shard, Worker
from irshap.datasets.manifest import Manifest
from irshap.errors import UserError

SMALL = {"batch": 8, "shard_rows": 64, "format": "npy"}


def explained(folder: Path, data: Any, **options: Any) -> dict[str, Array]:
    explain_dataset(model(), data, folder, **{**SMALL, **options})
    return arrays(folder)


class Broken(Exception):
    """What a test throws into a run."""


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`breaking(n)`: the run throws at its n-th shard."""
    whole = Worker.explained
    left = [10**9]

    def call(self: Worker, shard: Shard, rows: Any = None) -> Explained:
        left[0] -= 1
        if left[0] < 0:
            raise Broken
        return whole(self, shard, rows)

    monkeypatch.setattr(Worker, "explained", call)
    yield lambda count: left.__setitem__(0, count)


def test_equal_to_the_explainer(tmp_path: Path) -> None:
    x = table()
    report = explain_dataset(model(), x, tmp_path / "out", **SMALL, max_error=1e-4)
    found, e = arrays(tmp_path / "out"), irshap.Explainer(model())(x)
    np.testing.assert_allclose(found["x_attributions"], e.values, atol=1e-6)
    np.testing.assert_allclose(found["base_value"], e.base_values, rtol=1e-6)
    np.testing.assert_allclose(found["prediction"], e.target_values, rtol=1e-6)
    np.testing.assert_array_equal(found["target"], e.target_index)
    total = found["x_attributions"].sum(axis=1)
    np.testing.assert_allclose(found["prediction"] - found["base_value"], total, atol=1e-5)
    assert (report.rows, report.shards, report.bad, report.found) == (1000, 16, 0, 0)


@pytest.mark.parametrize("format", ["npy", "parquet"])
def test_the_same_bytes_however_it_runs(tmp_path: Path, format: str, breaking: Any) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    x = table()
    explain_dataset(model(), x, tmp_path / "one", **{**SMALL, "format": format}, workers=1)
    explain_dataset(model(), x, tmp_path / "three", **{**SMALL, "format": format}, workers=3)
    done, count = 0, 0
    while done < 16:
        breaking(3)
        try:
            count += 1
            explain_dataset(model(), x, tmp_path / "parts", **{**SMALL, "format": format}, workers=2)
        except Broken:
            pass
        listed = json.loads((tmp_path / "parts" / "_manifest.json").read_text())["shards"]
        journal = tmp_path / "parts" / "_journal.jsonl"
        now = len(journal.read_text().splitlines()) if journal.exists() else len(listed)
        assert now > done
        done = now
    assert count >= 5
    assert contents(tmp_path / "one") == contents(tmp_path / "three") == contents(tmp_path / "parts")


def test_a_finished_run_is_left_alone(tmp_path: Path, breaking: Any) -> None:
    first = explain_dataset(model(), table(), tmp_path / "out", **SMALL)
    before = contents(tmp_path / "out")
    breaking(0)
    again = explain_dataset(model(), table(), tmp_path / "out", **SMALL)
    assert again.found == first.rows == 1000
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": table(seed=9)}, "explanations of other data"),
        ({"data": table(999)}, "explanations of other data"),
        ({"model": model(target=1)}, "explanations by another model"),
        ({"top": 2}, "other options .top: 0 there, 2 now"),
        ({"dtype": "float16"}, "other options .dtype"),
        ({"max_error": 1e-3}, "other options .max_error"),
        ({"batch": 16}, "batch: 8 there, 16 now"),
        ({"threads": 2}, "threads: 1 there, 2 now"),
    ],
    ids=["data", "rows", "model", "top", "dtype", "max_error", "batch", "threads"],
)
def test_another_run_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    explain_dataset(model(), table(), tmp_path / "out", **SMALL)
    before = contents(tmp_path / "out")
    options = {"model": model(), "data": table(), **SMALL, **changed}
    with pytest.raises(UserError, match=message):
        explain_dataset(options.pop("model"), options.pop("data"), tmp_path / "out", **options)
    assert contents(tmp_path / "out") == before


def test_a_plan_goes_on_with_what_it_began(tmp_path: Path, breaking: Any) -> None:
    """What was given once needn't be given again."""
    whole = explained(tmp_path / "whole", table())
    breaking(2)
    with pytest.raises(Broken):
        explain_dataset(model(), table(), tmp_path / "out", **SMALL)
    breaking(100)
    explain_dataset(model(), table(), tmp_path / "out", format="npy")
    assert whole.keys() == arrays(tmp_path / "out").keys()
    assert contents(tmp_path / "whole") == contents(tmp_path / "out")


def test_all_that_is_lost_is_forgotten_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the journal of all shards would be written for each of them."""
    whole = explained(tmp_path / "out", table(64), shard_rows=8)
    (tmp_path / "out" / "prediction.npy").unlink()
    write, written = Manifest._rewrite_journal, []
    monkeypatch.setattr(Manifest, "_rewrite_journal", lambda self: written.append(write(self)))
    found = explained(tmp_path / "out", table(64), shard_rows=8)
    assert len(written) == 1
    assert found.keys() == whole.keys() and all(np.array_equal(found[name], whole[name]) for name in whole)


def test_killed_between_manifest_and_journal(tmp_path: Path) -> None:
    explain_dataset(model(), table(200), tmp_path / "out", **SMALL)
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "_journal.jsonl").write_text("{}\n")
    explain_dataset(model(), table(200), tmp_path / "out", **SMALL)
    assert contents(tmp_path / "out") == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores can't be chosen here")
def test_a_core_for_each_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one; the thread that asked keeps all of them."""
    whole, seen, here = Worker.explained, dict[int, set[int]](), os.sched_getaffinity(0)

    def call(self: Worker, shard: Shard, rows: Any = None) -> Explained:
        seen[threading.get_ident()] = os.sched_getaffinity(0)
        return whole(self, shard, rows)

    monkeypatch.setattr(Worker, "explained", call)
    for workers in (len(here), len(here) + 1):
        seen.clear()
        explain_dataset(model(), table(), tmp_path / str(workers), **SMALL, workers=workers)
        cores = [core for found in seen.values() for core in found]
        alone = workers == len(here)
        assert (
            (len(cores) == len(set(cores)) == len(seen)) if alone else all(c == here for c in seen.values())
        )
    assert os.sched_getaffinity(0) == here


def test_an_option_that_isnt_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data sets have no option 'tops'. did you mean top"):
        explain_dataset(model(), table(), tmp_path / "out", tops=3)
    with pytest.raises(UserError, match="no engine is called 'ra'"):
        explain_dataset(model(), table(), tmp_path / "out", engine="ra")


def test_a_files_data_and_models(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", table())
    explain_dataset(saved(tmp_path), tmp_path / "x.npy", tmp_path / "files", **SMALL)
    explain_dataset(model(), table(), tmp_path / "memory", **SMALL)
    files, memory = contents(tmp_path / "files"), contents(tmp_path / "memory")
    files.pop("_manifest.json"), memory.pop("_manifest.json")
    assert files == memory


def test_more_shards_than_are_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line before it begins, and none where its advice is followed or can't be any more."""
    monkeypatch.setattr(plan, "MANY_SHARDS", 2)
    np.save(tmp_path / "x.npy", table(32))

    def warnings(out: str, shard_rows: str) -> list[str]:
        given = [str(saved(tmp_path)), str(tmp_path / "x.npy"), "-o", str(tmp_path / out), "--format", "npy"]
        assert main(["explain", *given, "--batch", "8", "--shard-rows", shard_rows]) == 0
        return capsys.readouterr().err.splitlines()

    (told,) = warnings("out", "8")
    assert told.startswith("warning: 4 shards are slow to list and to go on with: --shard-rows 16 makes 2, ")
    assert not warnings("out", "8")
    assert not warnings("other", "16")


@pytest.mark.parametrize("batch, shard_rows", [(1, 83), (32, 64), (1024, 4096)])
def test_how_many_shards_are_good(batch: int, shard_rows: int) -> None:
    """The rows it names are whole batches, and few enough."""
    small, most = plan.Plan(batch, shard_rows), plan.MANY_SHARDS * shard_rows
    assert plan.many_shards(small, None, 1) is None
    assert plan.many_shards(small, most, 1) is None
    for rows in (most + 1, 10**12):
        told = plan.many_shards(small, rows, 1 << 20) or ""
        assert told.startswith(f"{-(-rows // shard_rows)} shards")
        named = int(told.partition("--shard-rows ")[2].partition(" ")[0])
        assert named % batch == 0 and f"a session takes {named} MiB" in told
        assert plan.many_shards(plan.Plan(batch, named), rows, 1) is None
