"""What is stored of the references in a temporary file: the same model, and nothing left behind."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exactness import case

import irshap
from irshap import demo
from irshap.errors import ModelError, UserError
from irshap.lowering.files import session
from irshap.lowering.files.save import save_model
from irshap.lowering.files.spool import Spool, place_of, refer
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
    usual = compiled()
    monkeypatch.setattr(stored, "_SPOOLED", 0)
    spooled = compiled()
    assert len(list(folder.iterdir())) > 2
    # what is stored isn't in memory
    assert spooled.lowered.ByteSize() < 0.9 * usual.lowered.ByteSize()
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
    del spooled, made
    gc.collect()
    assert not list(folder.iterdir())


def test_where_a_part_of_an_array_is(folder: Path) -> None:
    spool, rows = Spool(), np.arange(12, dtype=np.float32).reshape(3, 4)
    for row in rows:
        spool.append(row)
    array = spool.array(rows.dtype, rows.shape)
    np.testing.assert_array_equal(array, rows)
    place = place_of(array[1:])
    assert place is not None
    assert place[1] == 16
    # neither a part with gaps nor a copy lies there as it is
    assert place_of(array[:, 1:]) is None
    assert place_of(array.copy()) is None


def test_a_spool_that_is_never_read_leaves_nothing(folder: Path) -> None:
    spool = Spool()
    spool.append(np.zeros(3))
    del spool
    gc.collect()
    assert not list(folder.iterdir())


def test_other_external_data_is_refused_still(folder: Path, tmp_path: Path) -> None:
    """A path that no spool of this process has is nobody's to read."""
    spool = Spool()
    spool.append(np.ones(4000, np.float32))
    array = spool.array(np.dtype(np.float32), [4000])
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[4000])
    assert refer(tensor, array)
    out = onnx.helper.make_tensor_value_info("w", 1, [4000])
    graph = onnx.helper.make_graph([], "g", [], [out], [tensor])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    save_model(model, tmp_path / "a.onnx", check=False)
    assert onnx.load(tmp_path / "a.onnx").graph.initializer[0].raw_data == array.tobytes()
    model.graph.initializer[0].external_data[0].value = "/etc/hostname"
    with pytest.raises(ModelError, match="refers to external data"):
        save_model(model, tmp_path / "b.onnx", check=False)


def test_a_full_disk_is_one_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    spool = Spool()
    monkeypatch.setattr(spool, "_file", Full())
    with pytest.raises(UserError, match="No space left") as caught:
        spool.append(np.ones(3))
    assert "TMPDIR" in str(caught.value)


def test_large_weights_are_mapped_while_references_are_computed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = compiled()
    monkeypatch.setattr(session, "_MAPPED", 0)
    assert bytes(compiled()) == bytes(usual)
    assert not list(folder.iterdir())


def test_no_folder_for_temporary_files_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match="can't be written: No such file") as caught:
        Spool()
    assert "TMPDIR" in str(caught.value)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_outlives_the_files(
    copied: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = bytes(compiled())
    monkeypatch.setattr(stored, "_SPOOLED", 0)
    made = compiled()
    other = copied(made)
    if copied is not copy.copy:
        del made
        gc.collect()
        assert not list(folder.iterdir())
    assert bytes(other) == wanted
    other.save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == wanted


def test_files_that_were_tidied_away_are_still_mapped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = bytes(compiled())
    monkeypatch.setattr(stored, "_SPOOLED", 0)
    made = compiled()
    for file in folder.iterdir():
        file.unlink()
    made.save(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == bytes(made) == wanted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes aren't forked here")
def test_a_forked_process_leaves_the_files(folder: Path) -> None:
    spool = Spool()
    spool.append(np.ones(3))
    array = spool.array(np.dtype(float), [3])
    if not (child := os.fork()):
        del array, spool
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(folder.iterdir())) == 1


def test_small_arrays_take_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file stays open, and a process may have 256 of them, or 1024."""
    monkeypatch.setattr(stored, "_SPOOLED", 0)
    made = compiled()
    sizes = sorted(f.stat().st_size for f in folder.iterdir())
    del made
    gc.collect()
    monkeypatch.setattr(stored, "_SPOOLED", sum(sizes) - 1)
    made = compiled()
    large = [s for s in sizes if s >= sum(sizes) // 256]
    assert sorted(f.stat().st_size for f in folder.iterdir()) == large != sizes
    assert bytes(made)
