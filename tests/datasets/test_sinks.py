"""What stands in the folder: equal in every format, reduced as the pass `summary` does, verified."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from explaining import FEATURES, Array, arrays, contents, model, table
from shells import Shell

import irshap
from irshap.datasets import explain_dataset, verify_dataset
from irshap.datasets.sinks import NpySink
from irshap.errors import UserError
from irshap.files import atomic
from irshap.passes.summary import Summary

SMALL = {"batch": 8, "shard_rows": 64}
X = table(200)


def npy(folder: Path, name: str = "npy", **options: Any) -> dict[str, Array]:
    explain_dataset(options.pop("model", model()), X, folder / name, **SMALL, format="npy", **options)
    return arrays(folder / name)


def test_parquet_has_what_npy_has(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = npy(tmp_path)
    explain_dataset(model(), X, tmp_path / "parquet", **SMALL)
    rows = parquet.read_table(tmp_path / "parquet")
    assert rows.column("row").to_pylist() == list(range(200))
    assert rows.column_names == [
        "row",
        "target",
        "prediction",
        "base_value",
        "completeness_error",
        "x_attributions",
    ]
    for name, array in found.items():
        stored = np.array(rows.column(name).to_pylist(), array.dtype)
        np.testing.assert_array_equal(stored, array)
    assert rows.schema.field("x_attributions").metadata == {b"shape": b"6"}


def test_a_file_has_the_rights_of_any_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask is the whole process's: shards that are written at the same time would take each other's."""

    def refuse(mask: int) -> int:
        raise AssertionError(f"sets the umask {mask}")

    monkeypatch.setattr(os, "umask", refuse)
    (tmp_path / "plain").touch()
    with atomic(tmp_path / "whole") as file:
        file.write(b"1")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "whole"]


def test_a_column_for_each_feature(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    names = {"features": [f"f{i}" for i in range(FEATURES)]}
    explain_dataset(model(), X, tmp_path / "out", **SMALL, columns=True, names=names)
    rows = parquet.read_table(sorted((tmp_path / "out").glob("*.parquet")))
    spread = np.stack([rows.column(name).to_numpy() for name in names["features"]], axis=1)
    np.testing.assert_array_equal(spread, npy(tmp_path)["x_attributions"])
    assert not verify_dataset(model(), X, tmp_path / "out", **SMALL, columns=True, names=names).problems
    with pytest.raises(UserError, match="no columns for features with top"):
        explain_dataset(model(), X, tmp_path / "other", columns=True, top=2)


def test_kept_as_the_pass_keeps_it(tmp_path: Path) -> None:
    reduced = irshap.Explainer(model(summary=Summary(top=2, sum=(1,))))(X).raw
    found = npy(tmp_path, top=2, sum_over=(1,))
    assert "x_attributions" not in found
    for name in ("x_top_values", "x_top_indices", "x_sums"):
        np.testing.assert_allclose(found[name], reduced[name], atol=1e-6)
    with pytest.raises(UserError, match="no top 7 of 6 attributions of 'x'"):
        npy(tmp_path, "a", top=7)
    with pytest.raises(UserError, match=r"'x' can't be summed over \[2\]. it has the axes 1 to 1"):
        npy(tmp_path, "b", sum_over=(2,))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_the_files_own_summaries_are_kept(tmp_path: Path) -> None:
    own = npy(tmp_path, model=model(summary=Summary(top=2)))
    np.testing.assert_array_equal(own["x_top_indices"], npy(tmp_path, "b", top=2)["x_top_indices"])


def test_half_the_size(tmp_path: Path) -> None:
    half, whole = npy(tmp_path, dtype="float16"), npy(tmp_path, "whole")
    assert half["x_attributions"].dtype == np.float16 and half["prediction"].dtype == np.float32
    np.testing.assert_allclose(half["x_attributions"], whole["x_attributions"], rtol=1e-3, atol=1e-3)
    pytest.importorskip("pyarrow")
    explain_dataset(model(), X, tmp_path / "parquet", **SMALL, dtype="float16")
    assert not verify_dataset(model(), X, tmp_path / "parquet", **SMALL, dtype="float16").problems
    with pytest.raises(UserError, match="beyond the range of float16"):
        explain_dataset(model(), X * 1e6, tmp_path / "large", **SMALL, format="npy", dtype="float16")


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_classes_inputs_and_names(tmp_path: Path, format: str) -> None:
    """Three classes at once, of two inputs, one of them called as no file may be."""
    if format == "parquet":
        pytest.importorskip("pyarrow")
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,2,3] a_b, float[N,3] c) => (float[N,3] y)
    <float[2] w = {1, 2}> { t = Transpose<perm=[0,2,1]>(a_b) h = MatMul(t, w) r = Relu(h) y = Mul(r, c) }"""
    net = onnx.parser.parse_model(text)
    for node in net.graph.node:
        node.input[:] = ["a/b" if name == "a_b" else name for name in node.input]
    net.graph.input[0].name = "a/b"
    rng = np.random.default_rng(0)
    x = {
        "a/b": rng.normal(size=(20, 2, 3)).astype(np.float32),
        "c": rng.normal(size=(20, 3)).astype(np.float32),
    }
    compiled = irshap.compile(net, {name: array[:2] for name, array in x.items()}, target="all")
    explain_dataset(bytes(compiled), x, tmp_path / "out", format=format, batch=4, shard_rows=8)
    assert not verify_dataset(bytes(compiled), x, tmp_path / "out", format=format).problems
    wanted = compiled.explainer()(x)
    if format == "npy":
        found = np.load(tmp_path / "out" / NpySink.file_of("a/b_attributions"))
        np.testing.assert_allclose(found, wanted.values["a/b"], atol=1e-6)
        assert found.shape == (20, 3, 2, 3)


def test_a_target_at_run_time(tmp_path: Path) -> None:
    asked = model(target="input")
    fixed = npy(tmp_path, model=asked, target=2)
    np.testing.assert_array_equal(fixed["target"], np.full(200, 2))
    classes = np.arange(200) % 3
    explain_dataset(asked, {"x": X, "target": classes}, tmp_path / "each", **SMALL, format="npy")
    each = arrays(tmp_path / "each")
    np.testing.assert_array_equal(each["target"], classes)
    np.testing.assert_array_equal(each["x_attributions"][2::3], fixed["x_attributions"][2::3])
    with pytest.raises(UserError, match="takes no class at run time"):
        npy(tmp_path, "other", target=1)


def test_a_file_for_a_fixed_number_of_rows(tmp_path: Path) -> None:
    fixed = model(batch=4)
    explain_dataset(fixed, X[:19], tmp_path / "out", format="npy", shard_rows=8)
    found, wanted = arrays(tmp_path / "out"), irshap.Explainer(model())(X[:19])
    np.testing.assert_allclose(found["x_attributions"], wanted.values, atol=1e-6)
    with pytest.raises(UserError, match="a batch of 6, for a file that takes 4 rows"):
        explain_dataset(fixed, X, tmp_path / "other", format="npy", batch=6)


@pytest.mark.parametrize("format", ["parquet", "npy"])
def test_damage_is_found_and_mended(shell: Shell, format: str) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    np.save("x.npy", X)
    Path("m.onnx").write_bytes(model())
    command = (
        "explain",
        "m.onnx",
        "x.npy",
        "-o",
        "out",
        "--format",
        format,
        "--shard-rows",
        64,
        "--batch",
        8,
    )
    shell.ok(*command)
    before = contents(Path("out"))
    assert "equal to the bit" in shell.ok(*command, "--verify")
    name = "part-000001.parquet" if format == "parquet" else "x_attributions.npy"
    damaged = bytearray(before[name])
    damaged[1800 if format == "npy" else 300] ^= 1
    Path("out", name).write_bytes(damaged)
    shell(*command, "--verify")
    assert shell.code == 1
    assert f"rows 64 to 127: {name} isn't what was written" in shell.out
    assert "1 of 4 shards are damaged" in shell.err
    assert "136 of them from before" in shell.ok(*command)
    assert contents(Path("out")) == before
    # and one that has gone, or was cut short, is found without being asked for
    Path("out", name).write_bytes(before[name][:-9])
    shell.ok(*command)
    assert contents(Path("out")) == before


def test_another_model_is_noticed_by_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests alone say that files are as they were written, not that they are right."""
    npy(tmp_path)
    monkeypatch.setattr("irshap.datasets.prepare.model_digest", lambda model: "x")
    explain_dataset(model(), X, tmp_path / "out", **SMALL, format="npy")
    found = verify_dataset(model(target=1), X, tmp_path / "out", **SMALL, format="npy")
    assert "isn't what the model gives" in found.problems[0]
