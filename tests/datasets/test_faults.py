"""What goes wrong on the way: one message, finished work kept, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from explaining import NET, Array, arrays, contents, model, saved, table
from onnx import numpy_helper
from places import ROOT
from shells import Shell

import irshap
from irshap.datasets import explain_dataset, verify_dataset
from irshap.datasets.manifest import locked
from irshap.errors import UserError

SMALL = {"batch": 8, "shard_rows": 64, "format": "npy"}


def shards(folder: Path) -> int:
    """How many are noted."""
    journal = folder / "_journal.jsonl"
    if journal.exists():
        return len(journal.read_text().splitlines())
    manifest = folder / "_manifest.json"
    return len(json.loads(manifest.read_text())["shards"]) if manifest.exists() else 0


def test_rows_of_nan_are_listed(shell: Shell) -> None:
    x = table(200)
    x[70, 2], x[150] = np.nan, np.inf
    np.save("x.npy", x)
    saved(Path())
    command = ("explain", "explained.onnx", "x.npy", "-o", "out", "--format", "npy")
    shell(*command)
    assert shell.code == 1 and shell.err == "error: out: 2 of 200 rows are no good\n"
    assert "70   not finite" in shell.out and "150   not finite" in shell.out
    values = arrays(Path("out"))["x_attributions"]
    assert np.isnan(values[[70, 150]]).all()
    good = np.delete(np.arange(200), [70, 150])
    clean = x.copy()
    clean[[70, 150]] = 0
    explain_dataset(model(), clean, "clean", format="npy")
    np.testing.assert_array_equal(values[good], arrays(Path("clean"))["x_attributions"][good])
    told = json.loads(Path("out", "_manifest.json").read_text())["shards"]
    assert [r["row"] for s in told for r in s["bad_rows"]] == [70, 150]
    # a finished run says it again
    shell(*command)
    assert shell.code == 1
    shell(*command[:3], "-o", "other", "--strict", "--format", "npy")
    assert shell.code == 2 and "row 70 is not finite. mend it, or leave strict out" in shell.err
    assert not shards(Path("other"))


def test_incomplete_rows_are_listed(tmp_path: Path) -> None:
    report = explain_dataset(model(), table(), tmp_path / "out", **SMALL, max_error=1e-8)
    assert 0 < report.bad <= 1000 and all(row["error"] > 1e-8 for row in report.bad_rows)
    with pytest.raises(UserError, match=r"row \d+ is incomplete .completeness error"):
        explain_dataset(model(), table(), tmp_path / "strict", **SMALL, max_error=1e-8, strict=True)
    with pytest.raises(UserError, match="no completeness error can be derived"):
        explain_dataset(model(method="gradient"), table(), tmp_path / "none", **SMALL, max_error=1)


def wrong_after(good: int, bad: Any) -> Iterator[Array]:
    yield from table(good)
    yield bad


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros(6, np.int64), "is int64 .6. from row 130 on, and was float32"),
        (np.zeros(7, np.float32), r"is float32 \[7\] from row 130 on"),
        (np.array(["a"] * 6), "is <U1"),
        (None, "is None"),
        ({"y": np.zeros(6, np.float32)}, "'y' is float32"),
    ],
    ids=["dtype", "shape", "texts", "none", "name"],
)
def test_rows_that_change_on_the_way(tmp_path: Path, bad: Any, message: str) -> None:
    """The shards before them are kept, and the same rows go on, mended."""
    with pytest.raises(UserError, match=message):
        explain_dataset(model(), wrong_after(130, bad), tmp_path / "out", **SMALL)
    assert shards(tmp_path / "out") == 2
    report = explain_dataset(model(), iter(table(200)), tmp_path / "out", **SMALL)
    assert (report.found, report.rows) == (128, 200)
    explain_dataset(model(), iter(table(200)), tmp_path / "whole", **SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_an_iterator_goes_on_with_the_same_rows_only(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        explain_dataset(model(), wrong_after(130, None), tmp_path / "out", **SMALL)
    with pytest.raises(UserError, match="rows 0 to 63 aren't those that were explained before"):
        explain_dataset(model(), iter(table(200, seed=5)), tmp_path / "out", **SMALL)
    with pytest.raises(UserError, match="rows of an iterator can't be read again"):
        verify_dataset(model(), iter(table(200)), tmp_path / "out", **SMALL)


def test_two_writers(tmp_path: Path) -> None:
    explain_dataset(model(), table(100), tmp_path / "out", **SMALL)
    with locked(tmp_path / "out"), pytest.raises(UserError, match=rf"pid {os.getpid()}. is writing into it"):
        explain_dataset(model(), table(100), tmp_path / "out", **SMALL)
    # what a process left that was killed doesn't count
    (tmp_path / "out" / ".lock").write_text("1\n")
    explain_dataset(model(), table(100), tmp_path / "out", **SMALL)
    assert not (tmp_path / "out" / ".lock").exists()


def test_folders_that_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match=r"has other files, such as 'a.txt'"):
        explain_dataset(model(), table(100), tmp_path / "notes", **SMALL)
    assert contents(tmp_path / "notes") == {"a.txt": b"mine"}
    for name, message in (
        ("none/out", "its folder doesn't exist"),
        ("notes/a.txt", "is a file, not a folder"),
    ):
        with pytest.raises(UserError, match=message):
            explain_dataset(model(), table(100), tmp_path / name, **SMALL)
    for text in ("", "{}", "[1]", '{"format": 9, "complete": true, "run": {}, "shards": []}'):
        (tmp_path / "notes" / "_manifest.json").write_text(text)
        with pytest.raises(UserError, match="is no manifest of explanations"):
            explain_dataset(model(), table(100), tmp_path / "notes", **SMALL)


def test_a_folder_that_cant_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":  # nobody makes folders there, not even root
        with pytest.raises(UserError, match="can't be made"):
            explain_dataset(model(), table(100), "/sys/out", **SMALL)
    (tmp_path / "out").mkdir(mode=0o500)
    opened = Path.open

    def refuse(self: Path, *mode: Any, **more: Any) -> Any:
        if self.parent == tmp_path / "out":  # root writes anywhere: as the system says it to others
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *mode, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="can't be written: Permission denied"):
        explain_dataset(model(), table(100), tmp_path / "out", **SMALL)


RUN = """
import sys
from irshap.cli import main
if {limit}:
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(main(["explain", "explained.onnx", "x.npy", "-o", "out", "--format", {format!r}, "--batch", "8",
               "--shard-rows", "64", "--workers", "2"]))
"""


def process(folder: Path, format: str, limit: int = 0) -> subprocess.Popen[str]:
    code = RUN.format(limit=limit, format=format)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=env, text=True, **pipes)


@pytest.mark.parametrize("format", ["npy", "parquet"])
def test_a_full_disk(tmp_path: Path, format: str) -> None:
    """A limit for the size of files says EFBIG where a full disk says ENOSPC: both are OSErrors of write."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    saved(tmp_path)
    np.save(tmp_path / "x.npy", table(1000))
    run = process(tmp_path, format, 9000 if format == "npy" else 3000)
    _, err = run.communicate()
    assert run.returncode == 2 and err.count("error: ") == 1 and "can't be written: File too large" in err
    assert "Traceback" not in err
    run = process(tmp_path, format)
    run.communicate()
    assert run.returncode == 0
    explain_dataset(
        tmp_path / "explained.onnx", tmp_path / "x.npy", tmp_path / "whole", **{**SMALL, "format": format}
    )
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["npy", "parquet"])
def test_killed_at_random_moments(tmp_path: Path, format: str) -> None:
    """SIGKILL, again and again: the folder's bytes are those of an undisturbed run.

    tests/bench/kill_explain.py does it hundreds of times.
    """
    if format == "parquet":
        pytest.importorskip("pyarrow")
    saved(tmp_path)
    np.save(tmp_path / "x.npy", table(4000))
    explain_dataset(
        tmp_path / "explained.onnx", tmp_path / "x.npy", tmp_path / "whole", **{**SMALL, "format": format}
    )
    rng, out = np.random.default_rng(3), tmp_path / "out"
    kept = [0]
    for _ in range(3):
        run = process(tmp_path, format)
        begun = shards(out)
        while run.poll() is None and shards(out) <= begun:
            time.sleep(0.002)
        time.sleep(float(rng.uniform(0, 0.1)))
        run.send_signal(signal.SIGKILL)
        run.communicate()
        kept.append(shards(out))
    assert kept == sorted(kept) and kept[1] > 0
    process(tmp_path, format).communicate()
    assert contents(out) == contents(tmp_path / "whole")


def test_memory_within_a_limit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one row at a time needs .* MiB, the limit is 100 MiB"):
        explain_dataset(model(), table(), tmp_path / "out", memory_limit="100MiB", format="npy")


PEAK = """
import sys
from pathlib import Path
from irshap.datasets import explain_dataset
explain_dataset("wide.onnx", "wide.npy", "out", format="npy", top=5, memory_limit=sys.argv[1])
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process took is asked of Linux")
def test_a_process_stays_within_its_limit(tmp_path: Path) -> None:
    """Batches, shards and sessions are as many as fit: of a few numbers, too, that are kept of 4000 each."""
    net, rng = onnx.parser.parse_model(NET.replace("N,6", "N,4000")), np.random.default_rng(1)
    for name, shape in (("w", (4000, 16)), ("v", (16, 3))):
        net.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    irshap.compile(net, np.zeros((5, 4000), np.float32)).save(tmp_path / "wide.onnx")
    np.save(tmp_path / "wide.npy", rng.normal(size=(4000, 4000)).astype(np.float32))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PEAK, "224MiB"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 224 * 1024
