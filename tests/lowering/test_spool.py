"""What is stored of the references in a temporary file: the same model, and nothing left behind."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exactness import case
from places import ROOT

import irshap
from irshap import demo
from irshap.errors import UserError
from irshap.lowering.files.spool import Spool
from irshap.passes.references import stored
from irshap.pipeline.named import PIPELINES

CHUNKS = PIPELINES["default"].replace("stream{otherwise=fold}", "stream{chunk=2}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def compiled() -> Any:
    return irshap.compile(demo.model_path(), case("digits").references["image"][:8], passes=CHUNKS)


def test_a_spooled_model_is_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, regions = compiled(), []
    monkeypatch.setattr(stored, "_SPOOLED", 0)
    monkeypatch.setattr(Spool, "region", lambda s, n, real=Spool.region: regions.append(n) or real(s, n))
    spooled = compiled()
    assert sum(regions) > 10_000
    assert bytes(spooled) == bytes(usual)
    assert spooled.model == usual.model
    for external in (False, True):
        for name, made in (("usual", usual), ("spooled", spooled)):
            where = tmp_path / f"{name}{external}"
            where.mkdir()
            made.save(where / "m.onnx", external_data=external)
        files = [
            {f.name: f.read_bytes() for f in sorted((tmp_path / f"{n}{external}").iterdir())}
            for n in ("usual", "spooled")
        ]
        assert files[0] == files[1]
        assert len(files[0]) == 1 + external
    sample = case("digits").cut(3, 0)[0]
    for a, b in zip(
        usual.explainer()(sample).raw.values(), spooled.explainer()(sample).raw.values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_arrays_of_a_spool(folder: Path) -> None:
    """They share one file, are written a piece at a time and in turns, and outlive the spool."""
    spool = Spool()
    kinds = (np.float32, np.int64, np.bool_)
    arrays = [(np.arange(12).reshape(3, 4) % 5).astype(kind) for kind in kinds]
    regions = [spool.region(a.nbytes) for a in arrays]
    for i in range(3):
        for region, array in zip(regions, arrays, strict=True):
            region.append(array[i])
    found = [r.array(a.dtype, a.shape) for r, a in zip(regions, arrays, strict=True)]
    empty = regions[0].array(np.dtype(np.float32), [0, 3])
    del spool, regions
    gc.collect()
    for a, b in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype and a.flags.aligned and not a.flags.writeable
    assert empty.shape == (0, 3)


def test_a_spool_that_is_read_takes_no_more(folder: Path) -> None:
    spool = Spool()
    region = spool.region(8)
    region.append(b"12345678")
    region.array(np.dtype(np.int64), [1])
    with pytest.raises(ValueError, match="no more room"):
        spool.region(8)


@pytest.mark.skipif(os.name != "posix", reason="open files have names here")
def test_a_spool_has_no_name(folder: Path) -> None:
    spool = Spool()
    region = spool.region(8)
    region.append(b"12345678")
    assert not list(folder.iterdir())
    array = region.array(np.dtype(np.int64), [1])
    assert not list(folder.iterdir())
    assert array.tobytes() == b"12345678"


KILLED = """
import sys, time
import irshap.compiler.compile
from irshap.passes.references import stored
from irshap.lowering.files import session, weights
stored._SPOOLED = weights.HELD_FROM = session.HELD_FROM = 0
from irshap.lowering.files.spool import Region
append = Region.append
def slow(self, array):
    append(self, array)
    print("writing", flush=True)
    time.sleep(0.05)
Region.append = slow
import numpy as np
from irshap import demo
rows = np.random.default_rng(0).random((40, 1, 8, 8), dtype=np.float32)
irshap.compile(demo.model_path(), rows, passes=sys.argv[1])
"""


@pytest.mark.skipif(os.name != "posix", reason="open files have names here")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_killed_leaves_nothing(sent: signal.Signals, tmp_path: Path) -> None:
    """Where what is stored of the references is being written."""
    place = tmp_path / "tmp"
    place.mkdir()
    environment = {**os.environ, "TMPDIR": str(place), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, CHUNKS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(12):  # the weights first, then some chunks
            assert process.stdout.readline() == "writing\n"
        process.send_signal(sent)
        assert process.wait(60) == -sent
    assert {f.name for f in place.iterdir()} <= {".ses"}  # which is ONNX Runtime's


def test_a_full_disk_is_one_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, at: int) -> int:
            return at

        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    spool = Spool()
    region = spool.region(24)
    monkeypatch.setattr(spool, "_file", Full())
    with pytest.raises(UserError, match="No space left") as caught:
        region.append(np.ones(3))
    assert "TMPDIR" in str(caught.value)


def test_no_folder_for_temporary_files_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="can't be written: No such file") as caught:
        Spool()
    assert "TMPDIR" in str(caught.value)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_outlives_the_original(
    copied: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = bytes(compiled())
    monkeypatch.setattr(stored, "_SPOOLED", 0)
    made = compiled()
    other = copied(made)
    del made
    gc.collect()
    assert bytes(other) == wanted
    other.save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == wanted


def test_no_more_files_than_one_for_all_that_is_stored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stays open, and a process may have 256 of them, or 1024."""
    monkeypatch.setattr(stored, "_SPOOLED", 0)
    spools = []
    monkeypatch.setattr(stored, "Spool", lambda: spools.append(Spool()) or spools[-1])
    assert bytes(compiled())
    assert len(spools) == 1
