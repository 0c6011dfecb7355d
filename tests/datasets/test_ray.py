"""The Ray engine on a cluster of several nodes (all on this machine): the same bytes, whatever ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import explaining
import numpy as np
import pytest
from explaining import contents, model, saved, table
from places import ROOT

from irshap.datasets import explain_dataset
from irshap.datasets.files import InMemory
from irshap.errors import UserError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"batch": 8, "shard_rows": 32, "format": "npy"}
SHARDS = 32
STORE = 80_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, as a driver's machine often is, and two nodes of one core."""
    from ray.cluster_utils import Cluster

    for module in (explaining, sys.modules[__name__]):  # which workers can't import
        ray.cloudpickle.register_pickle_by_value(module)
    # a machine that doesn't answer any more is given up after 3 seconds, not 15
    soon = {
        "health_check_initial_delay_ms": 0,
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 3,
    }
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": soon}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=STORE)
    ray.init(made.address, logging_level="ERROR", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local engine writes."""
    folder = tmp_path_factory.mktemp("local")
    explain_dataset(model(), table(), folder / "out", **SMALL)
    return contents(folder / "out")


class Deadly(InMemory):
    """Rows of which some end the process of the actor that reads them, so many times."""

    def __init__(self, deaths: Path, most: int) -> None:
        super().__init__({"x": table()})
        self.deaths, self.most, self.driver = deaths, most, os.getpid()
        deaths.mkdir()

    def read(self, start: int, stop: int) -> Any:
        died = len(list(self.deaths.iterdir()))
        if start <= 500 < stop and died < self.most and os.getpid() != self.driver:
            (self.deaths / str(died)).touch()
            os._exit(1)
        return super().read(start, stop)


def write_parquet(rows: Any, path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {str(i): rows[:, i] for i in range(rows.shape[1])}
    parquet.write_table(arrow.table(columns), path, row_group_size=100)


class Stopped(Exception):
    """What a test throws into a run."""


def stopping(rows: int) -> Any:
    def progress(done: int, total: int | None) -> None:
        if done >= rows:
            raise Stopped

    return progress


@pytest.mark.parametrize("kind", ["arrays", "npy", "parquet"])
def test_the_bytes_of_the_local_engine(cluster: Any, tmp_path: Path, kind: str) -> None:
    data, path, options = table(), saved(tmp_path), {**SMALL, "max_error": 1e-3}
    if kind == "npy":
        np.save(tmp_path / "x.npy", data)
        data = tmp_path / "x.npy"
    if kind == "parquet":
        write_parquet(data, tmp_path / "x.parquet")
        data, options["format"] = tmp_path / "x.parquet", "parquet"
    explain_dataset(path, data, tmp_path / "local", **options)
    report = explain_dataset(path, data, tmp_path / "ray", **options, engine="ray")
    assert (report.rows, report.shards, report.found) == (1000, SHARDS, 0)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


class Lasting(InMemory):
    """Rows that take a moment, so that a machine doesn't get all done that it has before it ends."""

    def read(self, start: int, stop: int) -> Any:
        time.sleep(0.04)
        return super().read(start, stop)


@pytest.mark.parametrize("comes", [True, False])
def test_a_node_that_is_killed(cluster: Any, tmp_path: Path, whole: dict[str, bytes], comes: bool) -> None:
    """The other one does all that is left; a machine that comes meanwhile helps it.

    Ray tells only seconds later, when the other one has nothing left to do: then it gets what was lost.
    """
    told: list[int] = []

    def progress(done: int, total: int | None) -> None:
        told.append(done)
        if len(told) == SHARDS // 3:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        if comes and len(told) == 2 * SHARDS // 3:
            cluster.add_node(num_cpus=1, object_store_memory=STORE)

    data = Lasting({"x": table()})
    explain_dataset(model(), data, tmp_path / "out", **SMALL, engine="ray", progress=progress)
    assert len(told) == SHARDS
    assert contents(tmp_path / "out") == whole
    if not comes:
        cluster.add_node(num_cpus=1, object_store_memory=STORE)


def test_an_actor_that_ends_once(cluster: Any, tmp_path: Path, whole: dict[str, bytes]) -> None:
    data = Deadly(tmp_path / "deaths", 1)
    explain_dataset(model(), data, tmp_path / "out", **SMALL, engine="ray")
    assert len(list(data.deaths.iterdir())) == 1
    assert contents(tmp_path / "out") == whole


def test_rows_that_always_end_their_actor(cluster: Any, tmp_path: Path, whole: dict[str, bytes]) -> None:
    data = Deadly(tmp_path / "deaths", 99)
    with pytest.raises(UserError, match=r"3 actors ended over shard 1[45]"):
        explain_dataset(model(), data, tmp_path / "out", **SMALL, engine="ray")
    # two may be laid to the shard before, whose answer got lost
    assert 3 <= len(list(data.deaths.iterdir())) <= 5
    report = explain_dataset(model(), table(), tmp_path / "out", **SMALL)
    assert report.found >= 32
    assert contents(tmp_path / "out") == whole


def test_a_bad_row_ends_the_run_once(cluster: Any, tmp_path: Path) -> None:
    bad = table()
    bad[500] = np.nan
    with pytest.raises(UserError, match=r"^data: row 500 is not finite") as raised:
        explain_dataset(model(), bad, tmp_path / "out", **SMALL, strict=True, engine="ray")
    assert type(raised.value) is UserError
    report = explain_dataset(model(), bad, tmp_path / "out", **SMALL, engine="ray")
    assert 0 < report.found < 1000
    assert [row["row"] for row in report.bad_rows] == [500]
    explain_dataset(model(), bad, tmp_path / "local", **SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


@pytest.mark.parametrize("first", ["local", "ray"])
def test_one_engine_goes_on_where_the_other_was(
    cluster: Any, tmp_path: Path, whole: dict[str, bytes], first: str
) -> None:
    second = "local" if first == "ray" else "ray"
    with pytest.raises(Stopped):
        explain_dataset(model(), table(), tmp_path / "out", **SMALL, engine=first, progress=stopping(300))
    report = explain_dataset(model(), table(), tmp_path / "out", **SMALL, engine=second)
    assert 300 <= report.found < 1000
    assert contents(tmp_path / "out") == whole


class Elsewhere(InMemory):
    """Rows that aren't there on other machines."""

    def __setstate__(self, state: Any) -> None:
        raise UserError("no such file", where="x.parquet")


def test_data_that_a_node_does_not_have(cluster: Any, tmp_path: Path) -> None:
    data = Elsewhere({"x": table()})
    with pytest.raises(UserError, match=r"an actor can't start: .*x\.parquet: no such file"):
        explain_dataset(model(), data, tmp_path / "out", **SMALL, engine="ray")


def test_iterators_are_refused(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an iterator can't go to other machines"):
        explain_dataset(model(), iter(table()), tmp_path / "out", **SMALL, engine="ray")


@pytest.mark.parametrize("what", ["model", "versions", "row"])
def test_a_machine_that_sees_something_else(
    cluster: Any, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is told of another model, other versions or data than the nodes have."""
    import irshap.datasets.ray as engine

    name = {"model": "model_digest", "versions": "versions", "row": "digest_of"}[what]
    other: Any = {"onnxruntime": "0.1"} if what == "versions" else "other"
    monkeypatch.setattr(engine, name, lambda *_: other)
    with pytest.raises(UserError, match=r"^node [\d.]+: another .* than on the driver's machine"):
        explain_dataset(model(), table(), tmp_path / "out", **SMALL, engine="ray")


def command(tmp_path: Path, *given: str) -> list[str]:
    np.save(tmp_path / "x.npy", table(1500))
    small = ["--batch", "8", "--shard-rows", "8", "--format", "npy"]
    paths = [str(saved(tmp_path)), str(tmp_path / "x.npy"), "-o", str(tmp_path / "out")]
    return [sys.executable, "-m", "irshap", "explain", *paths, *small, *given]


def test_interrupted_on_the_command_line(cluster: Any, tmp_path: Path) -> None:
    """Ctrl-C: what was finished is kept, and nothing of the run stays on the cluster."""
    ray_command = command(tmp_path, "--engine", "ray", "--address", cluster.address)
    process = subprocess.Popen(ray_command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out" / "_journal.jsonl"
    while not journal.exists() or journal.stat().st_size < 5000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    done = subprocess.run(ray_command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert " of them from before" in done.stdout
    explain_dataset(saved(tmp_path), tmp_path / "x.npy", tmp_path / "local", **{**SMALL, "shard_rows": 8})
    assert contents(tmp_path / "out") == contents(tmp_path / "local")


def test_no_cluster_there(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--engine", "ray", "--address", "127.0.0.1:9"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stdout
    assert "127.0.0.1:9: no cluster can be reached" in done.stderr
    assert "Traceback" not in done.stderr
